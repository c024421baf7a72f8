"""`--backend reference` and `c`: the same results in every mode, and nothing but what they are called."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compressnet.analysis.forms import MODES, backends_of, make_form
from compressnet.errors import UsageError
from compressnet.kernels import lstm, lstm_1997, sru
from compressnet.layers.backends import in_c, in_torch
from compressnet.layers.lstm import LSTM, lstmp
from compressnet.layers.lstm_1997 import LSTM1997
from compressnet.layers.sru import SRU

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "SRU": lambda: SRU(6, 9, num_layers=2),
    "SRU of version 1": lambda: SRU(6, 6, version=1, activation="tanh"),
    "LSTM": lambda: LSTM(6, 9),
    "LSTMP": lambda: lstmp(6, 9, proj_size=4, output_size=3),
    "LSTM_1997": lambda: LSTM1997(6, 2, 3, 4),
    "within another module": lambda: nn.Sequential(nn.Linear(6, 6), SRU(6, 9)),
}
built = pytest.mark.skipif(
    not all(kernel.available() for kernel in (lstm, lstm_1997, sru)),
    reason="the kernels were not built here",
)


class Seen(TorchDispatchMode):
    """The operations of this project that reach torch's dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "compressnet":
            self.names.add(function._schema.name)
        return function(*args, **(kwargs or {}))


def fresh(name: str) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[name]()


def results(name: str, mode: str, backend: str) -> list[Tensor]:
    """Outputs, or the gradients of all parameters, of the third call: a stream has a state by then."""
    module = fresh(name)
    inputs = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(1))
    form = make_form(module, (inputs,), mode, backend)
    form()
    form()
    output = form()
    if mode in ("forward+backward", "train-step"):
        return [p.grad for p in module.parameters() if p.grad is not None]
    parts = output if isinstance(output, tuple) else (output,)
    return [t for part in parts for t in (part if isinstance(part, tuple) else (part,)) if t is not None]


@built
@pytest.mark.parametrize("backend", ["reference", "c"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_the_same_results_in_every_mode(name: str, mode: str, backend: str) -> None:
    if mode == "stream-step" and not hasattr(fresh(name), "step"):
        pytest.skip("it does not stream")
    expected, got = results(name, mode, "eager"), results(name, mode, backend)
    assert len(expected) == len(got) > 0
    for a, b in zip(expected, got, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(b, a, atol=1e-5 * max(1.0, float(a.abs().max())), rtol=0)


@built
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_each_is_what_it_is_called(name: str, mode: str) -> None:
    if mode == "stream-step" and not hasattr(fresh(name), "step"):
        pytest.skip("it does not stream")
    forward, backward = {
        "LSTM_1997": ("lstm_1997_walk", None),
        "LSTM": ("lstm_forward", "lstm_backward"),
        "LSTMP": ("lstm_forward", "lstm_backward"),
    }.get(name, ("sru_forward", "sru_backward"))
    inputs, seen = (torch.randn(5, 3, 6),), {}
    for backend in ("reference", "c"):
        form = make_form(fresh(name), inputs, mode, backend)
        for call in ("first", "second"):
            with Seen() as operations:
                form()
            seen[backend, call] = operations.names
    expected = {f"compressnet::{forward}"}
    if backward and mode in ("forward+backward", "train-step"):
        expected.add(f"compressnet::{backward}")
    for call in ("first", "second"):
        assert seen["reference", call] == set()
        assert seen["c", call] == expected
    assert lstm.available()  # as before
    assert sru.available()


@built
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_c_is_never_half_precision(mode: str, dtype: str) -> None:
    form = make_form(fresh("SRU"), (torch.randn(5, 3, 6),), mode, "c", dtype)
    with pytest.raises(UsageError, match="the C kernel computes float32 on the CPU only"):
        form()
    make_form(fresh("SRU"), (torch.randn(5, 3, 6),), mode, "reference", "bfloat16")()


@built
def test_c_is_never_on_another_device() -> None:
    form = make_form(fresh("LSTM").to("meta"), (torch.randn(5, 3, 6, device="meta"),), "forward", "c")
    with pytest.raises(UsageError, match="on the CPU only"):
        form()


@pytest.mark.parametrize(("name", "kernel"), [("SRU", sru), ("LSTM", lstm), ("LSTM_1997", lstm_1997)])
def test_c_that_was_not_built_says_so(name: str, kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel._kernel, "is_built", False)
    module, inputs = fresh(name), (torch.randn(5, 3, 6),)
    assert backends_of(module) == ("eager", "compile", "reference", "c", "onnxruntime")
    with pytest.raises(UsageError, match=f"the C kernel '{name.lower()}' was not built: reinstall"):
        make_form(module, inputs, "forward", "c")()
    make_form(module, inputs, "forward", "reference")()


@built
def test_c_refuses_a_layer_that_its_kernel_does_not_compute() -> None:
    form = make_form(LSTM(6, 9, layer_norm=True), (torch.randn(5, 3, 6),), "forward", "c")
    with pytest.raises(UsageError, match="the C kernel 'lstm' has not all switches of this layer"):
        form()


def test_they_share_parameters_and_stream_where_the_module_does() -> None:
    for make in (in_torch, in_c):
        module = fresh("SRU")
        run = make(module)
        assert run is not None
        assert {id(p) for p in run.parameters()} == {id(p) for p in module.parameters()}
        assert hasattr(run, "step")
        assert hasattr(run, "init_state")
        whole = make(fresh("within another module"))
        assert whole is not None
        assert not hasattr(whole, "step")
        assert make(nn.LSTM(3, 4)) is None


def test_the_switch_is_put_back_after_an_error() -> None:
    run = in_torch(fresh("SRU"))
    assert run is not None
    before = sru.available()
    with pytest.raises(ValueError, match="SRU"):
        run(torch.zeros(5, 3, 7))
    assert sru.available() == before
