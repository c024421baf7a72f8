"""The CPU settings: when the fast matmul is taken, what is remembered, and that nothing happens unasked."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from compressnet import processor, registry
from compressnet.errors import CompressnetError, UsageError
from compressnet.recipe import Recipe
from compressnet.reporter import Silent
from compressnet.run import Run
from compressnet.training import cpu_settings
from compressnet.training.cpu_settings import TORCH, Probe, Settings, apply, choice, current, decide
from compressnet.training.distributed import Group
from compressnet.training.train import train
from tests.conftest import ROOT
from tests.training import toy

CPU = torch.device("cpu")
FAST = Settings("fast", True)


class Libc:
    """A C library that only takes notes."""

    def __init__(self, answer: int = 1) -> None:
        self.answer = answer
        self.calls: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return self.answer


class Machine:
    """A CPU on which a product takes one second; the fast way `seconds`, at a relative error of `error`."""

    def __init__(self, patch: pytest.MonkeyPatch, error: float, seconds: float) -> None:
        self.error, self.seconds = error, seconds
        self.now, self.products = 0.0, 0
        self.switch = SimpleNamespace(fp32_precision="none")
        patch.setattr(cpu_settings, "_switch", lambda: self.switch)
        patch.setattr(cpu_settings, "_product", self.product)
        patch.setattr(cpu_settings, "_SHAPE", (64, 512, 96))  # it is not this CPU that is measured
        patch.setattr(cpu_settings, "_clock", lambda: self.now)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        fast = self.switch.fp32_precision == "bf16"
        self.products += 1
        self.now += self.seconds if fast else 1.0
        return (a.double() @ b.double() * (1 + self.error * fast)).float()


@pytest.fixture(autouse=True)
def libc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Libc]:
    """No test touches the malloc of this process, nor leaves the switch as it should not be."""
    fake = Libc()
    monkeypatch.setattr(cpu_settings, "_glibc", lambda: fake)
    monkeypatch.setattr(cpu_settings, "_tuned", False)
    monkeypatch.setenv("COMPRESSNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(cpu_settings.VARIABLE, raising=False)
    switch = cpu_settings._switch()
    before = switch.fp32_precision if switch is not None else None
    yield fake
    if switch is not None:
        switch.fp32_precision = before


def cached(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "cpu").glob("*"))


# --- the decision ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "speedup", "expected"),
    [
        (1.0e-6, 2.24, "fast"),
        (4.9e-6, 1.21, "fast"),
        (5.0e-6, 2.24, "exact"),
        (1.0e-6, 1.2, "exact"),
        (2.0e-3, 8.0, "exact"),  # bfloat16 proper, as on a CPU with AMX
        (float("nan"), 2.0, "exact"),
    ],
)
def test_the_rule(error: float, speedup: float, expected: str) -> None:
    assert choice(Probe(4e-7, error, speedup)) == expected


@pytest.mark.parametrize(
    ("error", "seconds", "expected"),
    [(1e-6, 0.5, "fast"), (1e-3, 0.1, "exact"), (1e-6, 0.9, "exact"), (1e-6, 2.0, "exact")],
    ids=["fast and accurate", "inexact", "hardly faster", "slower"],
)
def test_what_is_decided_on_a_cpu_seen_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: float, seconds: float, expected: str
) -> None:
    machine = Machine(monkeypatch, error, seconds)
    assert decide() == Settings("fast" if expected == "fast" else "exact", malloc=True)
    assert machine.switch.fp32_precision == "none"
    (path,) = cached(tmp_path)
    found = json.loads(path.read_text())["probe"]
    assert found["speedup"] == pytest.approx(1 / seconds)
    assert found["error_fast"] == pytest.approx(error, rel=0.05, abs=1e-7)


def test_a_product_in_bfloat16_is_seen_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 0, 0.1)

    def product(a: Tensor, b: Tensor) -> Tensor:
        exact = machine.switch.fp32_precision == "none"
        return a @ b if exact else a.bfloat16().float() @ b.bfloat16().float()

    monkeypatch.setattr(cpu_settings, "_product", product)
    monkeypatch.setattr(cpu_settings, "_clock", iter(range(1000)).__next__)
    probed = cpu_settings.probe()
    # 8 significant bits: each of the 512 products errs by at most 2^-8 and the errors are of both signs.
    assert 2.0**-12 < probed.error_fast < 2.0**-8
    assert probed.error_exact < 1e-6
    assert choice(replace(probed, speedup=8.0)) == "exact"


@pytest.mark.skipif(cpu_settings._switch() is None, reason="this torch has no such switch")
def test_the_real_probe_leaves_the_switch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    probed = cpu_settings.probe()
    assert 1e-8 < probed.error_exact < 2e-6
    assert probed.speedup > 0
    assert current() == TORCH
    assert torch.equal(torch.get_rng_state(), state)

    def fail(a: Tensor, b: Tensor) -> Tensor:
        if current().matmul == "fast":
            raise RuntimeError("no primitive")
        return a @ b

    monkeypatch.setattr(cpu_settings, "_product", fail)
    with pytest.raises(RuntimeError, match="no primitive"):
        cpu_settings.probe()
    assert current() == TORCH


def test_exact_and_fast_ask_no_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, 1.0, 9.0)
    assert decide("exact") == Settings("exact", True)
    assert decide("fast") == FAST
    assert machine.products == 0
    assert not cached(tmp_path)


def test_a_torch_without_the_switch_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_settings.torch.backends, "mkldnn", SimpleNamespace(is_available=lambda: True))
    assert cpu_settings._switch() is None
    assert decide() == decide("fast") == Settings("exact", True)
    apply(TORCH)
    with pytest.raises(CompressnetError, match="matmul fast: torch .* has no"):
        apply(FAST)
    assert current() == TORCH
    monkeypatch.setattr(cpu_settings.torch.backends, "mkldnn", SimpleNamespace(is_available=lambda: False))
    assert decide("fast").matmul == "exact"


# --- the cache ---------------------------------------------------------------------------------------------


def test_a_cpu_is_probed_once_for_each_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, 1e-6, 0.5)
    first = decide()
    seen = machine.products
    machine.seconds = 5.0  # by now it would be decided otherwise
    assert decide() == first == FAST
    assert machine.products == seen > 0
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert decide().matmul == "exact"
    monkeypatch.setattr(processor, "identity", lambda: {"cpu": "another"})
    machine.seconds = 0.5
    assert decide() == FAST
    assert len(cached(tmp_path)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: "\udcff",
        lambda text: text.replace("speedup", "speed"),
        lambda text: text.replace('"speedup": ', '"speedup": "fast", "x": '),
        lambda text: text.replace('"torch": "', '"torch": "0'),
        lambda text: json.dumps({"probe": json.loads(text)["probe"]}),
    ],
    ids=["empty", "torn", "a list", "not UTF-8", "a value missing", "a text", "another torch's", "no key"],
)
def test_a_damaged_cache_is_probed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: Any
) -> None:
    machine = Machine(monkeypatch, 1e-6, 0.5)
    decide()
    seen = machine.products
    (path,) = cached(tmp_path)
    whole = path.read_text()
    path.write_bytes(damage(whole).encode(errors="surrogateescape"))
    assert decide() == FAST
    assert machine.products == 2 * seen
    assert path.read_text() == whole


def test_a_cache_that_cannot_be_kept_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, 1e-6, 0.5)
    (tmp_path / "cache").write_text("in the way")
    assert decide() == FAST
    (tmp_path / "cache").unlink()
    decide()
    (path,) = cached(tmp_path)
    path.unlink()
    path.mkdir()  # can be neither read nor replaced
    seen = machine.products
    assert decide() == FAST
    assert machine.products > seen


# --- what is applied ---------------------------------------------------------------------------------------


def test_malloc_is_tuned_once_and_for_good(libc: Libc) -> None:
    apply(Settings("exact", True))
    assert libc.calls == [(-4, 0), (-1, 2147483647), (-2, 268435456)]
    apply(Settings("exact", True))
    assert len(libc.calls) == 3
    apply(TORCH)
    assert current() == Settings("exact", True)


def test_a_malloc_that_refuses_is_not_called_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_settings, "_glibc", lambda: Libc(answer=0))
    apply(Settings("exact", True))
    assert not current().malloc


def test_off_glibc_malloc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_settings, "_glibc", lambda: None)
    assert not decide("exact").malloc
    apply(Settings("exact", True))
    assert current() == TORCH


@pytest.mark.parametrize("answer", ["", None, "musl 1.2", ValueError, OSError, AttributeError])
def test_only_glibc_is_taken_for_glibc(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.undo()

    def confstr(name: str) -> Any:
        if isinstance(answer, type):
            raise answer
        return answer

    def load(name: object) -> None:
        raise AssertionError("the C library was loaded")

    monkeypatch.setattr(os, "confstr", confstr)
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert cpu_settings._glibc() is None


@pytest.mark.skipif(cpu_settings._switch() is None, reason="this torch has no such switch")
def test_the_matmul_switch_goes_both_ways() -> None:
    mkldnn: Any = torch.backends.mkldnn
    before = mkldnn.matmul.fp32_precision
    apply(Settings("fast", False))
    assert mkldnn.matmul.fp32_precision == "bf16"
    assert current() == Settings("fast", False)
    apply(TORCH)
    assert mkldnn.matmul.fp32_precision == before
    assert torch.get_float32_matmul_precision() == "highest"  # raises while the switch is set


def test_the_variable_leaves_everything_as_it_is(monkeypatch: pytest.MonkeyPatch, libc: Libc) -> None:
    machine = Machine(monkeypatch, 1e-6, 0.1)
    monkeypatch.setenv("COMPRESSNET_CPU_SETTINGS", "off")
    assert decide() == decide("fast") == decide("exact") == TORCH
    assert cpu_settings.set_up(CPU, "fast") == TORCH
    assert machine.products == 0
    assert machine.switch.fp32_precision == "none"
    assert libc.calls == []
    for value in ("", "auto"):
        monkeypatch.setenv("COMPRESSNET_CPU_SETTINGS", value)
        assert decide() == FAST
    monkeypatch.setenv("COMPRESSNET_CPU_SETTINGS", "no")
    with pytest.raises(UsageError, match="COMPRESSNET_CPU_SETTINGS=no: write off"):
        decide()


def test_set_up_decides_and_applies_on_a_cpu_only(monkeypatch: pytest.MonkeyPatch, libc: Libc) -> None:
    machine = Machine(monkeypatch, 1e-6, 0.5)
    assert cpu_settings.set_up(torch.device("cuda", 0)) == TORCH
    assert machine.products == 0
    assert cpu_settings.set_up(CPU, malloc=False) == Settings("fast", False)
    assert libc.calls == []
    assert cpu_settings.set_up(CPU, "exact") == Settings("exact", True)
    assert len(libc.calls) == 3


def test_settings_as_people_and_as_files_have_them() -> None:
    assert FAST.text == "matmul fast, malloc tuned"
    assert TORCH.text == "matmul exact, malloc default"
    for settings in (FAST, TORCH, Settings("fast", False)):
        assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


@pytest.mark.parametrize(
    "values",
    [
        None,
        "fast",
        [],
        {},
        {"matmul": "fast"},
        {"matmul": "quick", "malloc": True},
        {"matmul": "fast", "malloc": 1},
        {"matmul": ["fast"], "malloc": True},
    ],
)
def test_damaged_settings_are_told(values: Any) -> None:
    with pytest.raises(CompressnetError, match="damaged CPU settings"):
        Settings.from_dict(values)


IMPORTS = """
import sys
loaded = []
sys.addaudithook(lambda event, args: loaded.append(args[1]) if event == "ctypes.dlsym" else None)
import torch
switch = getattr(torch.backends.mkldnn, "matmul", None)
before = getattr(switch, "fp32_precision", None)
import compressnet, compressnet.training
from compressnet.training import cpu_settings, evaluate, train
assert getattr(switch, "fp32_precision", None) == before
assert "mallopt" not in loaded
assert cpu_settings.current() == cpu_settings.TORCH
if cpu_settings._glibc() is not None:
    cpu_settings.apply(cpu_settings.Settings("exact", True))
    assert "mallopt" in loaded
    assert cpu_settings.current().malloc
"""


def test_importing_the_library_sets_nothing() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, cwd=ROOT, timeout=120)


KEEPS = """
import torch
from compressnet.training import cpu_settings
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
for malloc in (False, True):
    cpu_settings.apply(cpu_settings.Settings("exact", malloc))
    before = resident()
    block = torch.ones(64 << 18)  # 64 MB
    del block
    print((resident() - before) >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_tuned_malloc_keeps_what_is_freed() -> None:
    command = [sys.executable, "-c", KEEPS]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True, timeout=120)
    default, tuned = map(int, done.stdout.split())
    assert default < 16
    assert tuned > 48


# --- runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A new run of the toy problem."""
    monkeypatch.setitem(registry.TASKS, "toy", "tests.training.toy:ToyTask")
    monkeypatch.setitem(registry.MODELS, "toy", "tests.training.toy:make_model")
    monkeypatch.setitem(registry.DATASETS, "toy", "tests.training.toy:ToyData")
    return Run.create(Recipe.parse(toy.RECIPE, "toy.yaml", ["train.steps=4"]), folder=tmp_path / "run")


class Two(Group):
    """Rank 0 of two processes; the other one decided `other`."""

    def __init__(self, other: Settings) -> None:
        super().__init__(0, 2)
        self.other = other

    def from_main(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other]


def test_all_processes_of_a_training_agree(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    Machine(monkeypatch, 1e-6, 0.5)
    assert cpu_settings.of_run(run, Two(FAST), CPU) == FAST
    assert cpu_settings.of_run(run, Two(Settings("fast", False)), CPU) == FAST
    assert cpu_settings.of_run(run, Two(Settings("exact", True)), CPU) == Settings("exact", True)
    assert cpu_settings.of_run(run, Group(), torch.device("cuda", 0)) == TORCH


def test_a_run_that_was_begun_keeps_its_settings(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    Machine(monkeypatch, 1e-6, 0.5)
    for settings in (Settings("exact", False), Settings("fast", False), FAST):
        run.update(cpu=settings.as_dict())
        assert cpu_settings.of_run(run, Two(TORCH), CPU) == settings
    monkeypatch.setenv("COMPRESSNET_CPU_SETTINGS", "off")
    with pytest.raises(UsageError, match="begun with matmul fast .* unset COMPRESSNET_CPU_SETTINGS"):
        cpu_settings.of_run(run, Group(), CPU)
    run.update(cpu={"matmul": "exact", "malloc": True})
    assert cpu_settings.of_run(run, Group(), CPU) == TORCH
    run.update(cpu={"matmul": "exact"})
    with pytest.raises(CompressnetError, match="run.json: damaged: 'cpu.malloc' is missing"):
        cpu_settings.of_run(run, Group(), CPU)


def test_a_run_without_a_record_was_begun_with_torchs_defaults(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    train(run, device=CPU)
    assert run.facts["cpu"] == {"matmul": "exact", "malloc": False, "kernels": False}
    facts = run.facts
    del facts["cpu"]
    (run.folder / "run.json").write_text(json.dumps(facts))
    Machine(monkeypatch, 1e-6, 0.5)
    assert cpu_settings.of_run(run, Group(), CPU) == TORCH


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, level: str, text: str) -> None:
        self.told.append(f"{level}: {text}")


def test_a_program_that_resumes_otherwise_is_warned(run: Run) -> None:
    train(run, device=CPU)
    run.change(["train.steps=8"])
    quiet, warned = Notes(), Notes()
    train(run, device=CPU, reporter=quiet)
    assert not any("matmul" in text for text in quiet.told)
    run.update(cpu=FAST.as_dict())
    run.change(["train.steps=9"])
    train(run, device=CPU, reporter=warned)
    assert any("begun with matmul fast, this process has exact" in text for text in warned.told)
    assert run.facts["cpu"] == FAST.as_dict()
