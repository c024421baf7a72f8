from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from compressnet import processor
from compressnet.analysis import machine
from compressnet.analysis.machine import Machine, facts, remarks, same
from compressnet.errors import CompressnetError

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu sse avx2 avx512f avx512_bf16 amx_bf16 amx_int8 hypervisor

processor\t: 1
model name\t: another one
flags\t\t: sse
"""
ARM = """processor\t: 0
Features\t: fp asimd evtstrm aes bf16 i8mm sve
CPU implementer\t: 0x41
CPU part\t: 0xd4f
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system that tells nothing, to be filled with files; four processors, two of a core each."""
    for name, path in (
        ("_CPUS", "cpu"),
        ("_QUOTA", "cpu.max"),
        ("_DRIVER", "driver"),
    ):
        monkeypatch.setattr(machine, name, tmp_path / path)
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_of_this_machine() -> None:
    here = facts()
    assert here.architecture == platform.machine()
    assert here.torch == torch.__version__
    assert 1 <= here.logical <= (os.cpu_count() or 1)
    assert here.gpu is None
    assert Machine.from_dict(json.loads(json.dumps(here.as_dict(), allow_nan=False))) == here
    assert same(here, here) == remarks(here, here) == []


def test_reads_what_linux_tells(system: Path) -> None:
    put(system / "cpuinfo", XEON)
    put(system / "cpu.max", "150000 100000\n")
    for number, siblings in enumerate(("0-1", "0-1", "2-3", "2-3")):
        put(system / f"cpu/cpu{number}/topology/thread_siblings_list", siblings + "\n")
    put(system / "cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    found = facts()
    assert found.processor == "Intel(R) Xeon(R) Platinum 8481C"
    assert found.flags == ("amx_bf16", "amx_int8", "avx2", "avx512_bf16", "avx512f")
    assert (found.physical, found.logical, found.quota, found.governor) == (2, 4, 1.5, "powersave")
    assert found.name == f"Intel(R) Xeon(R) Platinum 8481C, {found.capability}"


def test_counts_only_processors_it_may_use(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3}, raising=False)
    for number, siblings in enumerate(("0-1", "0-1", "2-3", "2-3")):
        put(system / f"cpu/cpu{number}/topology/thread_siblings_list", siblings)
    assert (facts().physical, facts().logical) == (1, 2)


def test_reads_arm(system: Path) -> None:
    put(system / "cpuinfo", ARM)
    put(system / "cpu.max", "max 100000\n")
    found = facts()
    assert found.processor == "implementer 0x41 part 0xd4f"
    assert found.flags == ("asimd", "bf16", "i8mm", "sve")
    assert found.quota is None


def test_where_the_system_tells_nothing(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not Linux: no /proc, no affinity, no sysconf."""
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sysconf", raising=False)
    found = facts()
    unknown = (found.processor, found.flags, found.physical, found.quota, found.governor, found.memory)
    assert unknown == (None,) * 6
    assert found.logical == os.cpu_count()
    assert found.name.startswith(platform.machine())


def test_reads_versions_from_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "- oneAPI Math Kernel Library Version 2024.2-Product Build 2\n- Intel(R) MKL-DNN v3.7.1 (G)\n"
    monkeypatch.setattr(torch.__config__, "show", lambda: text + "Build settings: BLAS_INFO=mkl, X=1")
    assert (facts().onednn, facts().blas) == ("3.7.1", "mkl 2024.2-Product")
    monkeypatch.setattr(torch.__config__, "show", lambda: "Build settings: BLAS_INFO=open, X=1")
    assert (facts().onednn, facts().blas) == (None, "open")


def test_reads_the_gpu(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, total_memory=8 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    put(
        system / "driver",
        "NVRM version: UNIX Open Kernel Module for x86_64  570.86.15  Release\n",
    )
    found = facts("cuda:0")
    assert (found.gpu, found.gpu_capability, found.gpu_memory) == ("NVIDIA H100", "9.0", 8 << 30)
    assert found.driver == "570.86.15"
    assert found.name == "NVIDIA H100"
    assert same(found, facts("cpu"))[0] == "gpu: NVIDIA H100 against none"


def test_no_such_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: torch.device) -> None:
        raise AssertionError("Torch not compiled\nwith CUDA enabled")

    monkeypatch.setattr(torch.cuda, "get_device_properties", missing)
    with pytest.raises(CompressnetError, match=r"^cuda:3: Torch not compiled$"):
        facts("cuda:3")


def test_says_why_timings_cannot_be_compared() -> None:
    here = replace(facts(), processor="A", logical=4, flags=("avx2",), quota=None, governor="powersave")
    there = replace(
        here, processor="B", logical=8, flags=("avx2", "avx512f"), quota=1.5, torch="2.0", memory=1
    )
    assert same(here, there) == [
        "processor: A against B",
        "flags: avx2 against avx2 avx512f",
        "logical: 4 against 8",
        "quota: none against 1.5",
    ]
    assert remarks(here, there) == [
        f"memory: {here.memory} against 1",
        f"torch: {torch.__version__} against 2.0",
    ]


def test_what_is_unknown_is_no_difference() -> None:
    here = facts()
    assert same(here, replace(here, processor=None, flags=None, physical=None)) == []
    assert remarks(replace(here, governor="powersave"), replace(here, governor=None)) == [
        "governor: powersave against unknown"
    ]


def test_reads_files_of_other_versions() -> None:
    data = facts().as_dict()
    del data["quota"]
    assert Machine.from_dict({**data, "colour": "blue"}) == replace(facts(), quota=None)


@pytest.mark.parametrize("broken", [{}, None, [], {"architecture": "x86_64", "torch": "2.6"}])
def test_refuses_what_is_no_machine(broken: object) -> None:
    with pytest.raises(CompressnetError, match="not the facts of a machine: lacks"):
        Machine.from_dict(broken)  # type: ignore[arg-type]
