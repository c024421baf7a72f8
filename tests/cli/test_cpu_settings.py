"""The CPU settings as commands use them: what each applies, what a run remembers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet import registry
from compressnet.training import cpu_settings
from tests.cli.conftest import Cli, save
from tests.training import toy

Verdict = Callable[[str], None]


@pytest.fixture
def mallopt(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The calls of a malloc that is not this process's."""
    calls: list[tuple[int, int]] = []

    class Libc:
        def mallopt(self, parameter: int, value: int) -> int:
            calls.append((parameter, value))
            return 1

    monkeypatch.setattr(cpu_settings, "_glibc", Libc)
    return calls


@pytest.fixture
def verdict(place: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """Write into the file of a cache of its own what a probe found here; no probe is made after that."""
    if cpu_settings._switch() is None:
        pytest.skip("this torch has no such switch")
    monkeypatch.setenv("COMPRESSNET_CACHE", str(place / "cache"))
    cpu_settings.measured()

    def no_probe() -> cpu_settings.Probe:
        raise AssertionError("probed although the cache holds a probe")

    monkeypatch.setattr(cpu_settings, "probe", no_probe)
    (path,) = (place / "cache" / "cpu").iterdir()
    key = json.loads(path.read_text())["key"]

    def write(choice: str) -> None:
        figures = {"error_exact": 4e-7, "error_fast": 1e-6, "speedup": {"fast": 2.0, "exact": 1.0}[choice]}
        path.write_text(json.dumps({"key": key, "probe": figures}))

    return write


class Wide(nn.Module):
    """A model for the toy problem with products so large that the two ways sum in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh())
        self.last = nn.Linear(512, 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.last(self.body(x)), h


@pytest.fixture
def recipe(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training whose weights tell which way was taken, wide.yaml."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(16, 512, generator=generator), torch.randn(512, 512, generator=generator)
    exact = a @ b
    cpu_settings.apply(cpu_settings.Settings("fast", False))
    alike = torch.equal(a @ b, exact)
    cpu_settings.apply(cpu_settings.TORCH)
    if alike:
        pytest.skip("this CPU computes both ways alike")
    monkeypatch.setitem(registry.TASKS, "toy", "tests.training.toy:ToyTask")
    monkeypatch.setitem(registry.MODELS, "wide", "tests.cli.test_cpu_settings:Wide")
    monkeypatch.setitem(registry.DATASETS, "toy", "tests.training.toy:ToyData")
    path = place / "wide.yaml"
    path.write_text(toy.RECIPE.replace("model: {name: toy}", "model: {name: wide}"))
    return path


def facts(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(run) / "run.json").read_text())
    return found


def test_a_resumed_run_computes_as_it_began_whatever_the_cache_says(
    cli: Cli, verdict: Verdict, recipe: Path
) -> None:
    whole = {}
    for way in ("fast", "exact"):
        verdict(way)
        cli("train", recipe, "--device", "cpu", "-o", way)
        assert facts(way)["cpu"] == {"matmul": way, "malloc": False, "kernels": False}
        whole[way] = facts(way)["digest"]
    assert whole["fast"] != whole["exact"]
    for way, other in (("fast", "exact"), ("exact", "fast")):
        verdict(way)
        cli("train", recipe, "--device", "cpu", "-o", f"{way}-2", "--set", "train.steps=4")
        verdict(other)
        done = cli("train", "--device", "cpu", "--resume", f"{way}-2", "--set", "train.steps=12")
        assert ("CPU settings: matmul fast" in done.stderr) == (way == "fast")
        assert facts(f"{way}-2")["cpu"]["matmul"] == way
        assert facts(f"{way}-2")["digest"] == whole[way]


def test_a_run_without_a_record_goes_on_with_torchs_defaults(
    cli: Cli, verdict: Verdict, recipe: Path
) -> None:
    verdict("exact")
    cli("train", recipe, "--device", "cpu", "-o", "whole")
    cli("train", recipe, "--device", "cpu", "-o", "old", "--set", "train.steps=4")
    old = facts("old")
    del old["cpu"]
    Path("old/run.json").write_text(json.dumps(old))
    verdict("fast")
    cli("train", "--device", "cpu", "--resume", "old", "--set", "train.steps=12")
    assert facts("old")["digest"] == facts("whole")["digest"]
    assert facts("old")["cpu"] == {"matmul": "exact", "malloc": False, "kernels": False}


def test_the_recipe_decides_where_it_says_how(cli: Cli, verdict: Verdict, recipe: Path) -> None:
    small = ["--device", "cpu", "--set", "train.steps=1"]
    verdict("fast")
    cli("train", recipe, *small, "-o", "exact", "--set", "train.cpu_matmul=exact")
    verdict("exact")
    done = cli("train", recipe, *small, "-o", "fast", "--set", "train.cpu_matmul=fast")
    assert "CPU settings: matmul fast, malloc default" in done.stderr
    assert [facts(run)["cpu"]["matmul"] for run in ("exact", "fast")] == ["exact", "fast"]
    words = ["train", recipe, *small, "-o", "x", "--set", "train.cpu_matmul=medium"]
    assert "train.cpu_matmul" in cli(*words, code=2).error
    changed = cli("train", "--resume", "fast", "--set", "train.cpu_matmul=exact", code=2).error
    assert "begun with train.cpu_matmul=fast, not exact" in changed


def test_evaluating_takes_the_runs_way(cli: Cli, place: Path, verdict: Verdict, smoke_run: Path) -> None:
    save(place / "photos" / "a.png", (48, 40))
    shutil.copytree(smoke_run, place / "run")
    text = (place / "run" / "recipe.yaml").read_text()
    assert "cpu_matmul: auto" in text
    seen = []
    for way, probed in (("auto", "fast"), ("auto", "exact"), ("exact", "fast"), ("fast", "exact")):
        (place / "run" / "recipe.yaml").write_text(text.replace("cpu_matmul: auto", f"cpu_matmul: {way}"))
        verdict(probed)
        cli("eval", "run", "--device", "cpu", "--json", "--data", "photo_folder:root=photos,test_root=photos")
        seen.append(cpu_settings.current().matmul)
    assert seen == ["fast", "exact", "exact", "fast"]


def test_malloc_is_tuned_where_no_memory_is_planned(
    cli: Cli, photo: Path, smoke_run: Path, mallopt: list[tuple[int, int]]
) -> None:
    on_cpu = ["--device", "cpu", "--force", "-o"]
    cli("apply", smoke_run, photo, *on_cpu, "a.png")
    cli("apply", smoke_run, photo, *on_cpu, "a.png", "--max-memory", "100")
    assert mallopt == []
    cli("apply", "operator:l0", photo, *on_cpu, "a.png")
    assert len(mallopt) == 3
    assert cpu_settings.current().malloc


@pytest.mark.parametrize("command", ["train fip_sample --smoke -o run", "eval run"])
def test_training_and_evaluating_tune_malloc(
    cli: Cli, place: Path, smoke_run: Path, mallopt: list[tuple[int, int]], command: str
) -> None:
    if command.startswith("eval"):
        shutil.copytree(smoke_run, place / "run")
    cli(*command.split(), "--device", "cpu")
    assert mallopt == [(-4, 0), (-1, 2**31 - 1), (-2, 2**28)]
    if command.startswith("train"):
        assert facts("run")["cpu"]["malloc"] is True


def test_off_leaves_all_as_it_is(
    cli: Cli,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    verdict: Verdict,
    mallopt: list[tuple[int, int]],
) -> None:
    verdict("fast")
    monkeypatch.setenv("COMPRESSNET_CPU_SETTINGS", "off")
    cli("train", "lm_sample", "--smoke", "-o", "run", "--device", "cpu")
    assert facts("run")["cpu"] == {**cpu_settings.TORCH.as_dict(), "kernels": False}
    cli("eval", "run", "--device", "cpu")
    cli("apply", "operator:l0", photo, "-o", "a.png", "--device", "cpu")
    assert mallopt == []
    assert cpu_settings.current() == cpu_settings.TORCH


def test_bad_values_are_told_in_a_line_and_leave_nothing_behind(
    cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch, smoke_run: Path
) -> None:
    monkeypatch.setenv("COMPRESSNET_CPU_SETTINGS", "on")
    told = "COMPRESSNET_CPU_SETTINGS=on: write off"
    assert told in cli("train", "fip_sample", "--smoke", "-o", "run", "--device", "cpu", code=2).error
    assert told in cli("eval", smoke_run, "--device", "cpu", code=2).error
    assert told in cli("apply", "operator:l0", photo, "-o", "a.png", "--device", "cpu", code=2).error
    assert list(photo.parent.iterdir()) == [photo]
    monkeypatch.delenv("COMPRESSNET_CPU_SETTINGS")
    shutil.copytree(smoke_run, "run")
    Path("run/run.json").write_text(json.dumps({**facts("run"), "cpu": {"matmul": "fastest"}}))
    words = ["train", "--resume", "run", "--set", "train.steps=9", "--device", "cpu"]
    assert "run.json: damaged: 'cpu.malloc' is missing" in cli(*words, code=1).error
