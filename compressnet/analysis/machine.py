"""What a timing was measured on, and whether another timing may be set beside it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from compressnet import json_file
from compressnet.errors import CompressnetError
from compressnet.processor import cpuinfo

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_DRIVER = Path("/proc/driver/nvidia/version")

# What kernels of torch, oneDNN and this project choose by; as Linux spells it (asimd is NEON).
_FLAGS = (
    *("avx", "fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "svebf16", "svei8mm", "sme"),
)

# Of two machines that differ here, neither's timing says anything about the other's.
_DECISIVE = (
    *("gpu", "gpu_capability", "processor", "architecture", "capability", "flags"),
    *("physical", "logical", "quota"),
)
_NONE_TELLS = ("gpu", "quota")


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Machine:
    """Facts of a machine; None where the system does not tell.

    Attributes:
        processor: model.
        capability: the instruction set that torch's own CPU kernels use, such as "AVX512".
        flags: instruction sets that matter here, as Linux spells them, sorted.
        physical: cores on which this process may run.
        logical: processors (threads of cores) on which it may run.
        quota: processors' worth of time that its control group may use, such as 1.5; None: unlimited.
        governor: of the clock rate.
        memory: bytes.
        gpu: name; it and what follows only for a GPU.
        gpu_capability: compute capability, such as "9.0".
        gpu_memory: bytes.
        cuda: version that torch was built for.
        blas: library of CPU matrix products, with its version where torch tells.
    """

    processor: str | None
    architecture: str
    capability: str | None
    flags: tuple[str, ...] | None
    physical: int | None
    logical: int
    quota: float | None
    governor: str | None
    memory: int | None
    gpu: str | None
    gpu_capability: str | None
    gpu_memory: int | None
    driver: str | None
    cuda: str | None
    cudnn: str | None
    torch: str
    onednn: str | None
    blas: str | None
    system: str
    libc: str | None

    @property
    def name(self) -> str:
        """One line: what computes."""
        return self.gpu or ", ".join(filter(None, (self.processor or self.architecture, self.capability)))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "flags": None if self.flags is None else list(self.flags)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Machine:
        """From `as_dict`; facts that an older file lacks are None, and those no longer kept are left out.

        Raises:
            CompressnetError: these are no facts of a machine.
        """
        for name in ("architecture", "logical", "torch", "system"):
            if not isinstance(data, Mapping) or data.get(name) is None:
                raise CompressnetError(f"not the facts of a machine: lacks {name!r}")
        values: dict[str, Any] = {field.name: data.get(field.name) for field in fields(cls)}
        if isinstance(values["flags"], list):
            values["flags"] = tuple(values["flags"])
        return json_file.check(cls, values, "the facts of a machine")


def facts(device: str | torch.device = "cpu") -> Machine:
    """What this process runs on.

    Raises:
        CompressnetError: there is no such device.
    """
    info = cpuinfo()
    flags = info.get("flags", info.get("Features"))
    config = torch.__config__.show()
    return Machine(
        processor=_processor(info),
        architecture=platform.machine(),
        capability=torch.backends.cpu.get_cpu_capability(),
        flags=tuple(sorted(set(flags.split()) & set(_FLAGS))) if flags is not None else None,
        physical=_physical(),
        logical=len(_allowed()),
        quota=_quota(),
        governor=_text(_CPUS / f"cpu{min(_allowed())}" / "cpufreq" / "scaling_governor"),
        memory=_memory(),
        torch=torch.__version__,
        onednn=_found(r"(?:MKL-DNN|oneDNN) v([\d.]+)", config),
        blas=_blas(config),
        system=f"{platform.system()} {platform.release()}",
        libc=" ".join(platform.libc_ver()).strip() or None,
        **_gpu(torch.device(device)),
    )


def same(a: Machine, b: Machine) -> list[str]:
    """Why the timings of two machines cannot be compared, a line for each difference; empty if they can.

    What one of them does not know is no difference. To have no GPU or no quota is to know it.
    """
    return [
        line
        for name, line in _differences(a, b)
        if name in _DECISIVE and (name in _NONE_TELLS or None not in (getattr(a, name), getattr(b, name)))
    ]


def remarks(a: Machine, b: Machine) -> list[str]:
    """What else differs, a line each: often what one wants to compare, such as two versions of torch."""
    return [line for name, line in _differences(a, b) if name not in _DECISIVE]


def _differences(a: Machine, b: Machine) -> list[tuple[str, str]]:
    order = (*_DECISIVE, *(field.name for field in fields(Machine) if field.name not in _DECISIVE))
    pairs = [(name, getattr(a, name), getattr(b, name)) for name in order]
    return [(name, f"{name}: {_shown(name, x)} against {_shown(name, y)}") for name, x, y in pairs if x != y]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none" if name in _NONE_TELLS else "unknown"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _processor(info: Mapping[str, str]) -> str | None:
    if "model name" in info:
        return info["model name"]
    if "CPU part" in info:  # ARM tells numbers only
        return f"implementer {info.get('CPU implementer')} part {info['CPU part']}"
    return platform.processor() or None


def _allowed() -> set[int]:
    """Numbers of the processors on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical() -> int | None:
    siblings = [_text(_CPUS / f"cpu{number}" / "topology" / "thread_siblings_list") for number in _allowed()]
    return None if None in siblings else len(set(siblings))


def _quota() -> float | None:
    """Of control groups version 2: "max 100000", or microseconds of time in each period of so many."""
    quota, _, period = (_text(_QUOTA) or "max").partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _blas(config: str) -> str | None:
    name = _found(r"BLAS_INFO=(\w+)", config)
    version = _found(r"Math Kernel Library Version (\S+)", config) if name == "mkl" else None
    return " ".join(filter(None, (name, version))) or None


def _gpu(device: torch.device) -> dict[str, Any]:
    names = ("gpu", "gpu_capability", "gpu_memory", "driver", "cuda", "cudnn")
    if device.type != "cuda":
        other = None if device.type == "cpu" else device.type
        return {**dict.fromkeys(names), "gpu": other}
    try:
        found = torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError) as error:
        raise CompressnetError(f"{device}: {str(error).splitlines()[0]}") from error
    cudnn = torch.backends.cudnn.version()
    return {
        "gpu": found.name,
        "gpu_capability": f"{found.major}.{found.minor}",
        "gpu_memory": found.total_memory,
        "driver": _found(r"(\d+\.\d+(?:\.\d+)?)", _text(_DRIVER) or ""),
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": str(cudnn) if cudnn else None,
    }


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
