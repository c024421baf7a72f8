"""ByteNet: counts, causality, receptive field, streams."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressnet.models.bytenet import BlockKind, ByteNet, CausalConv, MultiplicativeBlock, ReLUBlock

KINDS: list[BlockKind] = ["relu", "multiplicative"]


def network(block: BlockKind, sets: int = 1, size: int = 8) -> ByteNet:
    torch.manual_seed(0)
    net = ByteNet(11, size, sets, block).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.bias)
    return net


def test_the_papers_blocks() -> None:
    with torch.device("meta"):
        blocks = [ReLUBlock(512, 3, 1), ReLUBlock(800, 3, 1), MultiplicativeBlock(512, 3, 1)]
    counts = [sum(p.numel() for p in block.parameters()) for block in blocks]
    assert counts[0] == 1_841_152
    assert 30 * counts[0] == 55_234_560
    assert 30 * counts[1] == 134_688_000
    assert 30 * counts[2] == 157_608_960  # "157.6M"


def test_the_receptive_field() -> None:
    with torch.device("meta"):
        assert ByteNet(sets=6, hidden_size=4).receptive_field == 373
        assert ByteNet(sets=5, hidden_size=4).receptive_field == 311


@pytest.mark.parametrize("block", KINDS)
def test_what_comes_has_no_influence(block: BlockKind) -> None:
    net, words = network(block), torch.randint(11, (40, 2))
    before, _ = net(words)
    for step in (0, 17, 38):
        other = words.clone()
        other[step + 1 :] = (other[step + 1 :] + 1) % 11
        after, _ = net(other)
        assert torch.equal(after[: step + 1], before[: step + 1])
        assert not torch.equal(after[step + 1 :], before[step + 1 :])


@pytest.mark.parametrize("block", KINDS)
def test_the_receptive_field_is_what_has_influence(block: BlockKind) -> None:
    net = network(block).double()
    embedded: list[Tensor] = []
    net.embedding.register_forward_hook(lambda _, __, out: embedded.append(out))
    words = torch.randint(11, (100, 1))
    log_probabilities, _ = net(words)
    (gradient,) = torch.autograd.grad(log_probabilities[-1].square().sum(), embedded)
    seen = gradient.abs().sum((1, 2)).nonzero().flatten()
    assert 100 - int(seen.min()) == net.receptive_field == 63


@pytest.mark.parametrize("block", KINDS)
@pytest.mark.parametrize("pieces", [[1] * 40, [7, 1, 32], [39, 1]])
def test_a_text_in_pieces_is_the_text(block: BlockKind, pieces: list[int]) -> None:
    net, words = network(block), torch.randint(11, (40, 3))
    whole, last = net(words)
    outputs, state = [], net.init_state(3)
    for piece in words.split(pieces):
        y, state = net.step(piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


def test_steps_are_normalised_one_by_one() -> None:
    net = network("relu")
    words = torch.randint(11, (5, 2))
    alone, _ = net(words[:, :1])
    together, _ = net(words)
    torch.testing.assert_close(together[:, :1], alone, atol=1e-6, rtol=1e-6)


def test_the_causal_convolution_is_torchs() -> None:
    torch.manual_seed(0)
    conv, x = CausalConv(3, 5, 3, 4), torch.randn(20, 2, 3)
    y, state = conv(x, torch.zeros(8, 2, 3))
    weight = conv.product.weight.view(5, 3, 3).transpose(1, 2)  # (n_o, n_i, k)
    padded = torch.nn.functional.pad(x.permute(1, 2, 0), (8, 0))
    expected = torch.nn.functional.conv1d(padded, weight, conv.product.bias, dilation=4).permute(2, 0, 1)
    torch.testing.assert_close(y, expected)
    assert torch.equal(state, x[-8:])


def test_a_kernel_without_a_past_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size 1"):
        ByteNet(kernel_size=1)
