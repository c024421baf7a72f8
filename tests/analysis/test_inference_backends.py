"""`--backend folded` and `onnxruntime`: the same results, of a copy that the first call makes."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.analysis.bench import Case, Plan, prepare
from compressnet.analysis.forms import backends_of, has_backend, make_form
from compressnet.errors import CompressnetError, UsageError
from compressnet.export import backend as in_onnx
from compressnet.layers import folded
from compressnet.layers.sru import SRU
from compressnet.models import can_winograd
from compressnet.models.can import CAN, can24

pytestmark = pytest.mark.usefixtures("one_torchlib")


class Normed(nn.Module):
    """A stream of vectors (T, B, 3): a linear layer, batch normalisation over all, and a running sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.norm.running_mean.fill_(1.0)  # type: ignore[union-attr]

    def foldable(self) -> list[list[str]]:
        return [["layer", "norm"]]

    def example(self, batch: int = 1, size: int = 5) -> tuple[Tensor]:
        if not isinstance(size, int):
            raise ValueError("takes steps")
        return (torch.rand(size, batch, 3),)

    def init_state(self, batch: int, device: Any = None, dtype: Any = None) -> dict[str, Tensor]:
        return {"sum": torch.zeros(batch, 4, device=device, dtype=dtype)}

    def step(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.norm(self.layer(x).flatten(0, 1)).unflatten(0, x.shape[:2]).cumsum(0) + state["sum"]
        return y, {"sum": y[-1]}

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.step(x, self.init_state(x.shape[1], x.device, x.dtype))


def norm_can() -> nn.Module:
    network = CAN(4, 6, norm="bn", kernels="mixed")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network


@pytest.mark.parametrize("backend", ["folded", "onnxruntime"])
def test_the_same_images(backend: str) -> None:
    torch.manual_seed(0)
    network, x = norm_can(), torch.rand(1, 3, 20, 12)
    wanted = make_form(network, (x,))()
    form = make_form(network, (x,), backend=backend)
    in_c = ("winograd", "winograd_precise") if can_winograd.serves(network) else ()
    assert backends_of(network) == ("eager", "compile", "strips", *in_c, "folded", "apply", "onnxruntime")
    for _ in range(2):
        torch.testing.assert_close(form(), wanted, atol=1e-5, rtol=0)
    for mode in ("forward+backward", "train-step"):
        with pytest.raises(UsageError, match="CAN has it for --mode forward only, not for"):
            make_form(network, (x,), mode, backend)


@pytest.mark.parametrize("backend", ["folded", "onnxruntime"])
def test_the_same_streams_with_their_state(backend: str) -> None:
    torch.manual_seed(0)
    module = Normed()
    inputs = (torch.rand(1, 3, 3),)
    forms = [make_form(module, inputs, "stream-step", which, batch=3) for which in ("eager", backend)]
    for _ in range(3):
        wanted, got = (form() for form in forms)
        torch.testing.assert_close(got, wanted)
    with pytest.raises(UsageError, match="has it for --mode forward and stream-step only, not for train"):
        make_form(module, inputs, "train-step", backend)


def test_a_pass_of_what_streams_in_onnxruntime_is_its_outputs() -> None:
    layer, x = SRU(3, 4), torch.rand(5, 2, 3)
    wanted: Any = make_form(layer, (x,))()
    torch.testing.assert_close(make_form(layer, (x,), backend="onnxruntime")(), wanted[0])


def test_the_copy_is_made_in_the_first_call_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []
    firsts = []
    for room, name in ((folded, "folding"), (in_onnx, "checked_file")):
        original = getattr(room, name)

        def counted(*given: Any, _original: Any = original, _name: str = name, **more: Any) -> Any:
            made.append((_name, torch.get_num_threads()))
            return _original(*given, **more)

        monkeypatch.setattr(room, name, counted)
    before = torch.get_num_threads()
    try:
        for backend, words in (
            ("folded", "can24:norm=bn"),
            ("onnxruntime", "linear:in_features=2,out_features=3"),
        ):
            case = Case(0, backend=backend, threads=2)
            form = prepare(Plan((words,), (case,), image_size=(8, 8)), case).form
            torch.set_num_threads(1)
            seen = len(made)
            form()
            form()
            assert len(made) == seen + 1
            firsts.append(made[seen])
    finally:
        torch.set_num_threads(before)
    assert firsts == [("folding", 2), ("checked_file", 2)]


def test_onnxruntime_has_torchs_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen = []
    original = onnxruntime.InferenceSession

    def session(file: bytes, options: Any, **more: Any) -> Any:
        seen.append((options.intra_op_num_threads, options.inter_op_num_threads))
        return original(file, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    layer = nn.Linear(3, 4)
    make_form(layer, (torch.rand(2, 3),), backend="onnxruntime")()
    assert set(seen) == {(torch.get_num_threads(), 1)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_onnxruntime_is_float32_on_the_cpu(dtype: str) -> None:
    said = "--backend onnxruntime: it computes float32 on the CPU only"
    with pytest.raises(UsageError, match=said):
        make_form(nn.Linear(3, 4), (torch.rand(2, 3),), backend="onnxruntime", dtype=dtype)()
    meta = torch.device("meta")
    with pytest.raises(UsageError, match=said):
        make_form(nn.Linear(3, 4, device=meta), (torch.rand(2, 3, device=meta),), backend="onnxruntime")()


def test_folded_is_of_any_type() -> None:
    network, x = norm_can(), torch.rand(1, 3, 20, 12)
    wide = make_form(network, (x,))()
    half: Any = make_form(network, (x,), backend="folded", dtype="bfloat16")()
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wide, atol=0.1, rtol=0)


def test_onnxruntime_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    form = make_form(nn.Linear(3, 4), (torch.rand(2, 3),), backend="onnxruntime")
    with pytest.raises(CompressnetError, match="--backend onnxruntime needs onnxruntime: pip .*extra"):
        form()


class Bent(Normed):
    """Its `foldable` leaves something out."""

    def step(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.norm(self.layer(x)[0].relu()), state


def test_what_changes_the_outputs_is_refused() -> None:
    form = make_form(Bent(), (torch.rand(1, 3, 3),), "stream-step", "folded", batch=3)
    with pytest.raises(UsageError, match="--backend folded: its outputs differ by"):
        form()


def test_where_there_is_nothing_of_the_kind() -> None:
    with pytest.raises(UsageError, match=r"--backend folded: CAN has eager, compile, strips, .*onnxruntime$"):
        make_form(can24(), (torch.rand(1, 3, 9, 9),), backend="folded")
    assert not has_backend(nn.ReLU(), "onnxruntime")
    assert not has_backend(can24(), "nothing")


def test_asking_needs_no_runtime_and_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(folded, "folding", None)
    monkeypatch.setattr(in_onnx, "checked_file", None)
    assert backends_of(norm_can().eval())[-3:] == ("folded", "apply", "onnxruntime")
