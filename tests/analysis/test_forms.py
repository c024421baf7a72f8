"""What `bench` runs: each mode does what it says, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressnet.analysis.example import example_step
from compressnet.analysis.forms import backends_of, make_form
from compressnet.errors import UsageError
from compressnet.models import can_winograd
from compressnet.models.can import can24
from compressnet.models.language_model import LanguageModel


class Cumulative(nn.Module):
    """A stream whose state is the sum of what came before."""

    def init_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.zeros(batch, 2, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = state + x[0]
        return state[None], state


def linear() -> nn.Linear:
    return nn.Linear(3, 4)


def test_forward_keeps_no_gradients_and_evaluates() -> None:
    layer = nn.Sequential(linear(), nn.Dropout(0.9))
    output = make_form(layer, (torch.ones(2, 3),))()
    assert isinstance(output, Tensor)
    assert output.is_inference()
    assert torch.equal(output, layer[0](torch.ones(2, 3)))


def test_backward_fills_every_gradient_anew() -> None:
    layer = linear()
    form = make_form(layer, (torch.ones(2, 3),), "forward+backward")
    form()
    first = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    form()
    assert len(first) == 2
    assert all(
        torch.equal(p.grad, g) for p, g in zip(layer.parameters(), first, strict=True) if p.grad is not None
    )


def test_a_training_step_has_an_optimiser_and_leaves_the_weights() -> None:
    layer = linear()
    before = layer.weight.clone()
    make_form(layer, (torch.ones(2, 3),), "train-step")()
    assert torch.equal(layer.weight, before)


def test_a_stream_carries_its_state() -> None:
    form = make_form(Cumulative(), (torch.ones(1, 5, 2),), "stream-step")
    form()
    output = form()
    assert isinstance(output, Tensor)
    assert torch.equal(output, torch.full((1, 5, 2), 2.0))


class Framed(nn.Module):
    """A stream of sound (B, samples) with a second input: the batch comes first; a step has one size."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def example(self, batch: int = 1, size: int = 64) -> tuple[Tensor, Tensor]:
        return torch.rand(batch, size), torch.rand(batch)

    def example_step(self, batch: int = 1) -> tuple[Tensor, Tensor]:
        return torch.ones(batch, 16), torch.full((batch,), 2.0)

    def init_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return torch.zeros(batch, device=device, dtype=dtype)

    def step(self, x: Tensor, offset: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = state + self.gain * x.sum(1) + offset
        return state[:, None] + x, state

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return x + offset[:, None]


def test_a_step_takes_what_the_module_says() -> None:
    module = Framed()
    form = make_form(module, example_step(module, 3), "stream-step", batch=3)
    form()
    output = form()
    assert isinstance(output, Tensor)
    assert torch.equal(output, torch.full((3, 16), 2 * (16 + 2.0) + 1))


def test_a_stream_of_words_has_a_state_of_the_weights_type() -> None:
    network = LanguageModel(12, 6, "sru", 1)
    form = make_form(network, example_step(network, 2), "stream-step", dtype="bfloat16")
    form()
    output = form()
    assert isinstance(output, Tensor)
    assert output.shape == (1, 2, 12)


@pytest.mark.parametrize("mode", ["forward", "train-step"])
def test_bfloat16(mode: str) -> None:
    layer = linear()
    output = make_form(layer, (torch.ones(2, 3),), mode, dtype="bfloat16")()
    if mode == "forward":
        assert isinstance(output, Tensor)
        assert output.dtype == torch.bfloat16
    else:  # weights and gradients as in training: float32 under autocast
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype == torch.float32


def test_the_strips_of_can_are_its_forward_pass() -> None:
    network, x = can24(kernels="mixed"), torch.rand(1, 3, 20, 12)
    plain, strips = (make_form(network, (x,), backend=backend)() for backend in ("eager", "strips"))
    torch.testing.assert_close(strips, plain, atol=1e-5, rtol=0)
    in_c = ("winograd", "winograd_precise", "winograd_training") if can_winograd.serves(network) else ()
    assert backends_of(network) == ("eager", "compile", "strips", *in_c, "apply", "onnxruntime")
    for mode in ("forward+backward", "train-step"):
        with pytest.raises(UsageError, match="CAN has it for --mode forward only"):
            make_form(network, (x,), mode, "strips")


def test_a_back_end_is_of_the_module_as_it_is_used() -> None:
    network, x = can24(norm="bn"), torch.rand(1, 3, 9, 9)  # strips cannot train its normalisation
    plain, strips = (make_form(network.train(), (x,), backend=backend)() for backend in ("eager", "strips"))
    torch.testing.assert_close(strips, plain, atol=1e-5, rtol=0)


def test_the_same_function_when_compiled() -> None:
    pytest.importorskip("torch._inductor")
    layer, x = linear(), torch.rand(2, 3)
    torch.testing.assert_close(make_form(layer, (x,), backend="compile")(), layer(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sideways"}, "--mode sideways"),
        ({"backend": "c"}, "Linear has eager, compile, onnxruntime$"),
        ({"dtype": "int8"}, "--dtype int8"),
        ({"mode": "stream-step"}, "no streaming form"),
    ],
)
def test_what_cannot_be(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_form(linear(), (torch.ones(2, 3),), **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no parameters to train"):
        make_form(nn.ReLU(), (torch.ones(2, 3),), "train-step")


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_language_models_are_told_what_to_predict(backend: str) -> None:
    network = LanguageModel(12, 6, "sru", 1)
    words = network.example(2, 5)[0]
    make_form(network, (words,), "forward+backward", backend)()
    given = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    network(words, targets=words.roll(-1, 0))[0].mean().backward()
    wanted = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(given) == len(wanted) > 0
    torch.testing.assert_close(given, wanted)
