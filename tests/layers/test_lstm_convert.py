from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressnet.layers.lstm import LSTM, lstmp
from compressnet.layers.lstm_convert import from_torch, to_torch

FORMS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"num_layers": 2},
    {"proj_size": 3},
    {"bidirectional": True, "num_layers": 3},
    {"bidirectional": True, "num_layers": 2, "proj_size": 2},
]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
forms = pytest.mark.parametrize("form", FORMS, ids=str)


def theirs_of(form: dict[str, Any], dtype: torch.dtype) -> nn.LSTM:
    torch.manual_seed(len(str(form)))
    return nn.LSTM(6, 5, **form).to(dtype)


def assert_same(ours: LSTM, theirs: nn.LSTM, dtype: torch.dtype) -> None:
    x = torch.randn(9, 4, 6, dtype=dtype)
    state = tuple(torch.randn_like(tensor) for tensor in ours.init_state(4))
    y, (h, c) = ours(x, state)
    y_theirs, (h_theirs, c_theirs) = theirs(x, state)
    for a, b in ((y, y_theirs), (h, h_theirs), (c, c_theirs)):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[dtype])


@forms
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("merge_biases", [False, True])
def test_from_torch(form: dict[str, Any], dtype: torch.dtype, merge_biases: bool) -> None:
    theirs = theirs_of(form, dtype).eval()
    ours = from_torch(theirs, merge_biases)
    assert not ours.training
    assert_same(ours, theirs, dtype)
    own = {parameter.data_ptr() for parameter in ours.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in theirs.parameters())


@forms
def test_there_and_back_is_a_copy(form: dict[str, Any]) -> None:
    theirs = theirs_of(form, torch.float32)
    back = to_torch(from_torch(theirs))
    assert back.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(back.state_dict()[name], weight) for name, weight in theirs.state_dict().items())


@pytest.mark.parametrize("biases", [0, 1, 2])
def test_to_torch(biases: int) -> None:
    ours = LSTM(6, 5, 2, proj_size=2, biases=biases, forget_bias=1.0 if biases else 0.0)  # type: ignore[arg-type]
    assert_same(ours, to_torch(ours), torch.float32)


@forms
def test_lengths_are_packed_sequences(form: dict[str, Any]) -> None:
    theirs = theirs_of(form, torch.float64)
    ours = from_torch(theirs)
    x, lengths = torch.randn(9, 4, 6, dtype=torch.float64), torch.tensor([4, 9, 1, 7])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y_packed, (h, c) = theirs(packed)
    y_theirs, _ = nn.utils.rnn.pad_packed_sequence(y_packed)
    y, state = ours(x, lengths=lengths)
    for a, b in ((y, y_theirs), (state[0], h), (state[1], c)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@forms
def test_gradients_are_torchs(form: dict[str, Any]) -> None:
    theirs = theirs_of(form, torch.float64)
    ours = from_torch(theirs)
    x = torch.randn(9, 4, 6, dtype=torch.float64)
    ours(x)[0].square().sum().backward()
    theirs(x)[0].square().sum().backward()
    with torch.no_grad():
        for network in (ours, theirs):
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter.copy_(parameter.grad)
    for mine, gradient in zip(to_torch(ours).parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, gradient)


def test_lstmp_without_peepholes_is_torchs() -> None:
    ours = lstmp(6, 5, 2, num_layers=2, peepholes=False)
    assert_same(ours, to_torch(ours), torch.float32)


def test_what_torch_has_not_is_listed() -> None:
    ours = LSTM(6, 5, peepholes=True, coupled_gates=True, cell_clip=1.0, layer_norm=True, output_size=3)
    listed = "nn.LSTM has no peepholes, layer_norm, coupled_gates, cell_clip, output_size$"
    with pytest.raises(ValueError, match=listed):
        to_torch(ours)
    with pytest.raises(ValueError, match="nn.LSTM has no proj_clip, nonrecurrent_proj_size$"):
        to_torch(LSTM(6, 5, proj_size=2, proj_clip=1.0, nonrecurrent_proj_size=1))


@pytest.mark.parametrize("form", [{"batch_first": True}, {"dropout": 0.5, "num_layers": 2}], ids=str)
def test_what_is_not_here_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no batch_first .* and no dropout .* set them to False and 0"):
        from_torch(nn.LSTM(6, 5, **form))
