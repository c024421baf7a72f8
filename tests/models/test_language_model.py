"""Recurrent language models: counts, streams, dropout, what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressnet.errors import UsageError
from compressnet.models.language_model import LanguageModel

CELLS = [
    "lstm:peepholes=false",
    "lstm",
    "lstmp:proj_size=5",
    "lstmp:proj_size=5,nonrecurrent_proj_size=3",
    "sru",
    "sru:version=1",
    "torch_lstm",
]


def model(cell: str = "lstm", **arguments: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(30, 12, cell, num_layers=2, **arguments)


def parameters(net: LanguageModel) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_papers_counts() -> None:
    with torch.device("meta"):
        small = LanguageModel(10000, 200, "lstm:peepholes=false", 2)
        two_biases = LanguageModel(10000, 200, "lstm:peepholes=false,biases=2", 2)
        sru = LanguageModel(10000, 910, "sru", 6, tied=True)
        lstm = LanguageModel(10000, 950, "torch_lstm", 2, tied=True)
        projected = LanguageModel(10000, 340, "lstmp:proj_size=160", 2, embedding_size=200)
        five_srus = LanguageModel(10000, 200, "sru", 5)
        awd = LanguageModel(10000, 1150, "lstm:peepholes=false,biases=2", 3, embedding_size=400, tied=True)
        factored = LanguageModel(10000, 200, "lstm", 2, softmax="classes", class_sizes=[100] * 100)
    # Beside the small one within 1 %: lm_ptb_lstmp, lm_ptb_sru, lm_sundermeyer.
    assert [parameters(net) for net in (projected, five_srus, factored)] == [4_648_360, 4_614_000, 4_672_900]
    assert parameters(small) == 4_651_600  # Zaremba's small network, one bias a gate
    assert parameters(two_biases) == 4_653_200  # as his code has them
    assert parameters(awd) == 24_221_600  # Merity et al.: "24M"
    assert parameters(sru) == 24_037_640  # Lei et al.
    assert parameters(lstm) == 23_965_200


@pytest.mark.parametrize("cell", CELLS)
def test_a_text_in_pieces_is_the_text(cell: str) -> None:
    net, words = model(cell).eval(), torch.randint(30, (9, 4))
    whole, last = net(words)
    first, state = net(words[:4], net.init_state(4))
    second, state = net.step(words[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_losses_are_the_log_probabilities_of_the_targets(cell: str) -> None:
    net, words = model(cell).eval(), torch.randint(30, (5, 2))
    targets = torch.randint(30, (5, 2))
    log_probabilities, _ = net(words)
    losses, _ = net(words, (), targets)
    torch.testing.assert_close(losses, -log_probabilities.gather(2, targets[..., None])[..., 0])


def test_dropout_variants() -> None:
    words = torch.randint(30, (6, 2))
    net = model(dropout=0.5, locked_dropout=True, weight_drop=0.5, embedding_dropout=0.2).train()
    torch.manual_seed(1)
    one, _ = net(words)
    other, _ = net(words)
    assert not torch.equal(one, other)
    torch.manual_seed(1)
    torch.testing.assert_close(net(words)[0], one, atol=0, rtol=0)
    assert torch.equal(net.eval()(words)[0], net(words)[0])


def test_a_locked_mask_is_the_same_at_all_steps() -> None:
    net = model(dropout=0.5, locked_dropout=True).train()
    dropped = net._drop(torch.ones(7, 3, 12), 0.5)
    assert torch.equal(dropped, dropped[:1].expand(7, 3, 12))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_the_first_cell_and_the_output_layer_may_have_rates_of_their_own() -> None:
    assert model(dropout=0.3).dropouts == [0.3, 0.3, 0.3]
    assert model(dropout=0.3, input_dropout=0.4, output_dropout=0.0).dropouts == [0.4, 0.3, 0.0]


def test_penalties_are_in_the_losses_of_training_alone() -> None:
    words, targets = torch.randint(30, (6, 2)), torch.randint(30, (6, 2))
    net = model("sru", activation_penalty=2.0, change_penalty=3.0)
    plain, _ = net.eval()(words, (), targets)
    outputs, state = net.embedding(words), net.init_state(2)
    for cell, part in net.cells.with_states(state):
        outputs, _ = cell.step(outputs, part)
    changes = outputs[1:] - outputs[:-1]
    penalty = 2 * outputs.square().mean() + 3 * changes.square().mean()
    torch.testing.assert_close(net.train()(words, (), targets)[0], plain + penalty)
    net(words[:1], (), targets[:1])  # one step changes nothing
    assert model(activation_penalty=1.0).train()(words)[0].shape == (6, 2, 30)


def test_weight_drop_reaches_the_recurrent_matrices_and_their_gradients() -> None:
    net = model("lstm:peepholes=false", weight_drop=0.9).train()
    losses, _ = net(torch.randint(30, (6, 2)), (), torch.randint(30, (6, 2)))
    losses.sum().backward()
    gradients = [p.grad for name, p in net.named_parameters() if "weight_hh" in name]
    assert len(gradients) == 2
    for gradient in gradients:
        assert gradient is not None
        assert 0.8 < float((gradient == 0).float().mean()) < 0.97


def test_tied_weights_and_a_narrow_embedding() -> None:
    net = LanguageModel(30, 12, "lstm", 3, embedding_size=7, tied=True)
    assert net.output.weight is net.embedding.weight
    assert [net.init_state(2)[2 * i].shape[-1] for i in range(3)] == [12, 12, 7]


def test_softmaxes() -> None:
    words, targets = torch.randint(30, (5, 2)), torch.randint(30, (5, 2))
    for net in (
        model(softmax="adaptive", cutoffs=[5, 15]),
        model(softmax="classes", class_sizes=[2, 8, 20]),
    ):
        log_probabilities, _ = net(words)
        torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(5, 2))
        losses, _ = net(words, (), targets)
        torch.testing.assert_close(losses, -log_probabilities.gather(2, targets[..., None])[..., 0])


def test_a_start_within_bounds() -> None:
    net = model(init_range=0.1)
    assert max(float(p.detach().abs().max()) for p in net.parameters()) <= 0.1
    assert all(float(p.abs().max()) > 0.05 for p in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "conv2d"}, "unknown key"),
        ({"cell": "linear"}, "unknown key"),
        ({"cell": "sru:bidirectional=true"}, "cannot stream"),
        ({"cell": "sru", "weight_drop": 0.5}, "no recurrent matrix"),
        ({"cell": "torch_lstm", "weight_drop": 0.5}, "no recurrent matrix"),
        ({"tied": True, "softmax": "adaptive", "cutoffs": [5]}, "tied: needs softmax full"),
        ({"cell": "lstmp:proj_size=5", "tied": True}, r"they are 12 and 5"),
        ({"softmax": "adaptive"}, "needed by softmax adaptive"),
        ({"cutoffs": [5]}, "needed by softmax adaptive"),
        ({"softmax": "adaptive", "cutoffs": [5, 30]}, "must rise between 0 and 30"),
        ({"softmax": "classes"}, "needs the task's `classes`"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, UsageError), match=message):
        model(**arguments)
