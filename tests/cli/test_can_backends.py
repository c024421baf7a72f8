"""A CAN as the commands run it: the fastest form, which it was, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from compressnet.kernels import can_layer
from tests.cli.conftest import Cli

needs_kernel = pytest.mark.skipif(
    not can_layer.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)
BENCH = ("--input-size", "16", "--rounds", "2", "--processes", "1")


@pytest.fixture
def photograph(tmp_path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "photograph.png")
    return str(tmp_path / "photograph.png")


def _applied(cli: Cli, photograph: str, *words: str) -> tuple[str, np.ndarray]:
    told = cli(
        "apply", "zoo:rof", photograph, "-o", "made.png", "--force", "--json", "--device", "cpu", *words
    )
    (entry,) = json.loads(told.stdout)["files"]
    with Pillow.open("made.png") as picture:
        return entry["backend"], np.asarray(picture).astype(int)


@needs_kernel
def test_apply_tells_how_it_ran(cli: Cli, photograph: str) -> None:
    backend, fast = _applied(cli, photograph)
    assert backend == "winograd"
    for words, other in (
        (("--set", "arithmetic=precise"), "winograd_precise"),
        (("--max-memory", "1"), "strips"),
        (("--threads", "7"), "winograd"),
    ):
        backend, made = _applied(cli, photograph, *words)
        assert backend == other
        assert np.abs(made - fast).max() <= 1
    with can_layer.reference():
        assert _applied(cli, photograph)[0] == "strips"


@needs_kernel
def test_eval_in_both_arithmetics(cli: Cli) -> None:
    words = ("eval", "zoo:rof", "--data", "sample", "--device", "cpu", "--json")
    fast, precise = (
        json.loads(cli(*words, "--set", f"arithmetic={kind}").stdout)["metrics"]["psnr"]
        for kind in ("fast", "precise")
    )
    assert fast == pytest.approx(precise, abs=0.01)


def test_what_is_unknown_is_one_line(cli: Cli, photograph: str) -> None:
    for words in (
        ("apply", "zoo:rof", photograph, "-o", "made.png"),
        ("eval", "zoo:rof", "--data", "sample"),
    ):
        told = cli(*words, "--set", "arithmetic=quick", code=2).stderr
        assert "'arithmetic' should be 'fast' or 'precise' (got 'quick')" in told
    told = cli("apply", "zoo:rof", photograph, "-o", "made.png", "--set", "arithmetic=precise", "--set",
               "dtype=bfloat16", code=2).stderr  # fmt: skip
    assert "arithmetic=precise, dtype=bfloat16: choose one" in told
    assert not Path("made.png").exists()


@needs_kernel
def test_bench_refuses_what_the_kernel_does_not_serve(cli: Cli) -> None:
    for words, message in (
        (
            ("can24", "--dtype", "bfloat16"),
            "--backend winograd: images in float32 on the CPU only, not torch.bfloat16",
        ),
        (("can24", "--mode", "train-step"), "can24 has it for --mode forward only"),
        (("resnet20",), "--backend winograd: resnet20 has eager, compile"),
    ):
        told = cli("bench", *words, "--backend", "winograd", *BENCH, "--device", "cpu", code=2).stderr
        assert message in told
        assert "Traceback" not in told


def test_bench_without_the_kernel(cli: Cli) -> None:
    with can_layer.reference():
        told = cli("bench", "can24", "--backend", "winograd", *BENCH, "--device", "cpu", code=2).stderr
    assert "--backend winograd: can24 has eager, compile, strips, " in told
