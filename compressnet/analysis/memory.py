"""Peak memory of one pass: what it takes above the weights and inputs that were there before.

On the CPU it is the peak of the process's resident memory, so a process of its own must do the measuring,
started with `CHILD_ENVIRONMENT`: freed blocks then go back to the system at once, and what earlier passes
left in the heap cannot hide what this one needs.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import torch

# A fixed threshold also stops glibc from raising it by itself.
CHILD_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(form: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call of `form` takes at its peak, the second time; None where the system does not tell.

    The first call is not counted: what libraries set up once, kernels that are compiled then.
    """
    form()
    gc.collect()
    if device.type == "cuda":
        return _cuda_peak(form, device)
    try:
        _RESET.write_text("5")  # the peak starts anew
        before = _resident("VmRSS")
        form()
        return max(0, _resident("VmHWM") - before)
    except OSError:  # not Linux
        return None


def peak_of_process() -> int | None:
    """Resident bytes that this process had at most, torch itself included; None: the system does not tell."""
    try:
        return _resident("VmHWM")
    except OSError:  # not Linux
        return None


def _cuda_peak(form: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    form()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def _resident(name: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
