"""What this machine has: a row each, and that the parts work at all."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import torch

from benchmarks.cuda_checks import compare
from benchmarks.cuda_checks.cases import Case, Cases, Failed, Finding, Settings, Skip


def cases(settings: Settings, seconds: float) -> Cases:
    rows = [
        Case("Python", lambda: Finding(platform.python_version(), platform.platform())),
        Case("torch", lambda: Finding(torch.__version__, f"built for CUDA {torch.version.cuda}")),
        Case("Triton", _triton),
        Case("C kernels in use", _kernels),
        Case("compressnet --version", _version),
        Case(
            "processors", lambda: Finding(str(os.cpu_count()), f"C compiler: {shutil.which('cc') or 'none'}")
        ),
        Case("GPU", lambda: _gpu(settings)),
        Case("driver", lambda: _driver(settings)),
        Case("cuDNN", lambda: _cudnn(settings)),
        Case("NCCL", lambda: _nccl(settings)),
        Case("TF32 is off", lambda: _tf32(settings)),
        Case("a float32 product", lambda: _product(settings)),
    ]
    return Cases(rows)


def _only_cuda(settings: Settings) -> None:
    if settings.kind != "cuda":
        raise Skip(f"of a GPU; this is {settings.device}")


def _triton() -> Finding:
    try:
        import triton  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise Skip(f"not installed: {error}") from error
    return Finding(triton.__version__)


def _kernels() -> Finding:
    from compressnet.kernels.library import NAMES, built

    if lacking := sorted(set(NAMES) - set(built())):
        raise Failed(f"do not load: {', '.join(lacking)}")
    return Finding(str(len(built())), ", ".join(built()))


def _version() -> Finding:
    from benchmarks.cuda_checks.program import compressnet

    return Finding(message="; ".join(compressnet("--version").splitlines()))


def _gpu(settings: Settings) -> Finding:
    _only_cuda(settings)
    found = torch.cuda.get_device_properties(compare.choose(settings.device))
    text = f"{found.name}, {found.multi_processor_count} multiprocessors, sm_{found.major}{found.minor}"
    return Finding(f"{found.total_memory / 2**30:.0f} GiB", text)


def _driver(settings: Settings) -> Finding:
    _only_cuda(settings)
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.used,clocks.sm", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Skip(f"nvidia-smi: {error}") from error
    return Finding(message=done.stdout.strip())


def _cudnn(settings: Settings) -> Finding:
    _only_cuda(settings)
    if not torch.backends.cudnn.is_available():
        raise Failed("torch finds no cuDNN")
    return Finding(str(torch.backends.cudnn.version()))


def _nccl(settings: Settings) -> Finding:
    _only_cuda(settings)
    if not torch.distributed.is_nccl_available():
        raise Failed("torch was built without NCCL")
    return Finding(".".join(map(str, torch.cuda.nccl.version())))


def _tf32(settings: Settings) -> Finding:
    """As the program leaves it, once it has chosen its device."""
    _only_cuda(settings)
    compare.choose(settings.device)
    flags = {"matmul": torch.backends.cuda.matmul.allow_tf32, "cuDNN": torch.backends.cudnn.allow_tf32}
    if on := [name for name, flag in flags.items() if flag]:
        raise Failed(f"on in {' and '.join(on)}")
    return Finding(message=f"float32 products: {torch.get_float32_matmul_precision()}")


def _product(settings: Settings) -> Finding:
    device = compare.choose(settings.device)
    a, b = torch.randn(2, 512, 512)
    return compare.near(compare.difference([(a.to(device) @ b.to(device))], [a.double() @ b.double()]), 1e-5)
