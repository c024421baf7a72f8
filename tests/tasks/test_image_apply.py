"""One photograph through a network: modes, memory, compiler."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressnet.data.images import Image
from compressnet.errors import CompressnetError, UsageError
from compressnet.free_memory import free_memory
from compressnet.kernels import can_layer
from compressnet.models import can_strips
from compressnet.models.can import CAN, can24
from compressnet.models.can_winograd import Winograd
from compressnet.operators.module import OperatorModule
from compressnet.reporter import Silent
from compressnet.tasks import image_apply
from compressnet.tasks.image_apply import Applier, Options, infer


@dataclass
class Notes(Silent):
    """What was reported."""

    stages: list[tuple[str, int | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    advanced: int = 0

    def stage(self, name: str, total: int | None, unit: str, initial: int = 0) -> None:
        self.stages.append((name, total))
        self.advanced = initial

    def advance(self, n: int = 1, **scalars: float) -> None:
        self.advanced += n

    def note(self, level: str, text: str) -> None:
        self.notes.append(text)


def network(depth: int = 6, width: int = 40) -> CAN:
    """Of more maps than the kernel takes: what runs in strips everywhere."""
    torch.manual_seed(0)
    net = CAN(depth, width, last_layer="identity").eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("conv.weight"):
                parameter.add_(0.05 * torch.randn_like(parameter))
            elif name.endswith("w1"):
                parameter.fill_(0.05)
    return net


def photograph(height: int = 60, width: int = 83, channels: int = 3, **fields: Any) -> Image:
    pixels = np.random.default_rng(1).random((height, width, channels), dtype=np.float32)
    return Image(pixels, **fields)


def plain(net: nn.Module, image: Image) -> np.ndarray:
    x = torch.from_numpy(image.pixels.transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        return net(x)[0].clamp(0, 1).permute(1, 2, 0).numpy()


def apply(net: nn.Module, image: Image, reporter: Silent | None = None, **options: Any) -> Image:
    return Applier(net, Options(**options), reporter or Silent())(image)


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way was taken: "whole", "winograd", "strips" or "spilled strips"."""
    taken: list[str] = []
    strips, whole, winograd = can_strips.forward_in_strips, Applier._whole, Winograd.forward

    def spy_strips(net: CAN, x: torch.Tensor, how: Any, *others: Any) -> torch.Tensor:
        taken.append("spilled strips" if how.spill else "strips")
        return strips(net, x, how, *others)

    def spy_whole(self: Applier, x: torch.Tensor) -> tuple[str, torch.Tensor]:
        taken.append("whole")
        return whole(self, x)

    def spy_winograd(self: Winograd, x: torch.Tensor, **others: Any) -> torch.Tensor:
        taken.append("winograd" if len(self.sizes) > 2 else "precise")
        return winograd(self, x, **others)

    monkeypatch.setattr(Winograd, "forward", spy_winograd)
    monkeypatch.setattr(can_strips, "forward_in_strips", spy_strips)
    monkeypatch.setattr(Applier, "_whole", spy_whole)
    return taken


def test_equals_the_plain_form(way: list[str]) -> None:
    net, image = network(), photograph()
    np.testing.assert_allclose(apply(net, image).pixels, plain(net, image), atol=1e-5)
    large = photograph(300, 400)
    np.testing.assert_allclose(apply(net, large, max_memory=1).pixels, plain(net, large), atol=1e-5)
    assert way == ["strips", "spilled strips"]


needs_kernel = pytest.mark.skipif(
    not can_layer.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)


@needs_kernel
def test_the_kernel_is_taken_where_memory_allows(way: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = network(width=24), photograph(300, 400)
    expected = plain(net, image)
    for options, backend in (
        ({}, "winograd"),
        ({"arithmetic": "precise"}, "winograd_precise"),
        ({"max_memory": 100}, "winograd"),
        ({"max_memory": 5}, "strips"),
        ({"max_memory": 100, "arithmetic": "precise"}, "winograd_precise"),
    ):
        made = apply(net, image, **options)
        np.testing.assert_allclose(made.pixels, expected, atol=2e-5)
        assert (made.backend, made.as_json()) == (backend, {"backend": backend})
    assert apply(net, image, dtype="bfloat16").backend == "strips"
    monkeypatch.setattr(image_apply, "free_memory", lambda device: 10 << 20)
    assert apply(net, image).backend == "strips"
    with can_layer.reference():
        assert apply(net, image).backend == "strips"
    assert way[:4] == ["winograd", "precise", "winograd", "spilled strips"]


def test_precise_bfloat16_is_a_contradiction() -> None:
    with pytest.raises(UsageError, match="arithmetic=precise, dtype=bfloat16: choose one"):
        apply(network(), photograph(), dtype="bfloat16", arithmetic="precise")


def test_short_memory_leads_to_a_file(way: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = network(), photograph(300, 400)
    monkeypatch.setattr(image_apply, "free_memory", lambda device: 3 << 20)
    np.testing.assert_allclose(apply(net, image).pixels, plain(net, image), atol=1e-5)
    monkeypatch.setattr(image_apply, "free_memory", lambda device: None)
    apply(net, image)
    assert way == ["spilled strips", "strips"]


def test_too_little_memory_is_one_clear_line() -> None:
    with pytest.raises(CompressnetError, match="needs at least 4 MB, not 1$"):
        apply(can24(), photograph(2, 3000), max_memory=1)


def test_gray_in_gray_out_and_what_the_file_holds_stays() -> None:
    net = network()
    image = photograph(channels=1, bits=16, alpha=np.full((60, 83), 0.5, np.float32), icc=b"profile")
    result = apply(net, image)
    assert result.pixels.shape == (60, 83, 1)
    assert (result.bits, result.icc) == (16, b"profile")
    assert result.alpha is image.alpha
    coloured = plain(net, Image(image.pixels.repeat(3, axis=2)))
    three = apply(net, Image(image.pixels.repeat(3, axis=2))).pixels
    np.testing.assert_allclose(three, coloured, atol=1e-5)
    assert 0 <= result.pixels.min() <= result.pixels.max() <= 1


def test_a_photograph_that_came_in_is_not_changed() -> None:
    image = photograph()
    before = image.pixels.copy()
    apply(network(), image)
    np.testing.assert_array_equal(image.pixels, before)


def test_bfloat16_is_near_and_leaves_the_model_alone() -> None:
    net, image = network(), photograph()
    near = apply(net, image, dtype="bfloat16").pixels
    error = np.abs(near - plain(net, image))
    assert near.dtype == np.float32
    assert 0 < error.max() < 0.1
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_classical_operators_run_as_they_are(dtype: Any, way: list[str]) -> None:
    image = photograph()
    operator = OperatorModule("rof:weight=0.1")
    reporter = Notes()
    result = apply(operator, image, reporter, dtype=dtype, max_memory=1)
    assert reporter.notes == ["max_memory: this model cannot work in strips; it takes what it needs"]
    np.testing.assert_allclose(result.pixels, operator.operator(image.pixels), atol=1e-6)
    assert way == ["whole"]


def test_rewritten_networks_run_in_the_plain_form(way: list[str]) -> None:
    net, image = network(), photograph()
    net.blocks[1].conv = nn.Sequential(nn.Conv2d(40, 4, 1), nn.Conv2d(4, 40, 1))
    np.testing.assert_allclose(apply(net, image).pixels, plain(net, image), atol=1e-6)
    assert np.isfinite(apply(net, image, dtype="bfloat16").pixels).all()
    assert way == ["whole", "whole"]


def test_long_photographs_report_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Notes()
    apply(network(), photograph(), quiet)
    assert not quiet.stages
    monkeypatch.setattr(image_apply, "_QUIET_SECONDS", -1.0)
    shown = Notes()
    apply(network(), photograph(), shown)
    assert shown.stages == [("photograph", 60 * 6)]
    assert shown.advanced == 60 * 6


def test_compiling_that_does_not_fit_is_said(way: list[str]) -> None:
    reporter = Notes()
    apply(network(), photograph(300, 400), reporter, compile=True, max_memory=1)
    assert way == ["spilled strips"]
    assert "in strips, not compiled" in reporter.notes[0]


def test_compiling_without_a_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(model: nn.Module) -> Any:
        def call(x: torch.Tensor) -> torch.Tensor:
            raise torch._dynamo.exc.TorchDynamoException("No working C++ compiler found\n\nSet TORCH_LOGS")

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(CompressnetError, match=r"takes a C\+\+ compiler.*No working C\+\+ compiler found$"):
        apply(network(), photograph(), compile=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_equals_the_plain_form(way: list[str]) -> None:
    net, image = network(), photograph()
    np.testing.assert_allclose(apply(net, image, compile=True).pixels, plain(net, image), atol=1e-5)
    assert way == ["whole"]


def test_free_memory_is_the_least_of_machine_and_group(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert free_memory(cpu, tmp_path) is None
    for name, text in {
        "proc/meminfo": "MemTotal: 900 kB\nMemAvailable:   500 kB\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/memory.current": "1000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(cpu, tmp_path) == 500 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("3000\n")
    assert free_memory(cpu, tmp_path) == 2000
    assert (free_memory(cpu) or 1) > 0


def test_infer_takes_strips_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(), torch.rand(1, 3, 20, 30)
    torch.testing.assert_close(infer(net, x), net(x).detach(), rtol=0, atol=1e-5)
    monkeypatch.setattr(net, "forward", None)  # not needed
    assert not infer(net, x).requires_grad
    other = nn.Conv2d(3, 3, 1)
    assert torch.equal(infer(other, x), other(x))
    assert not infer(other, x).requires_grad
