"""How much memory may still be taken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_ROOT = Path("/")
# (limit, what is used) of the group of processes that this one is in: version 2, version 1
_GROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


SAFE_SHARE = 0.7  # of the free memory: others grow, and an allocation is not refused but kills


def free_memory(device: torch.device | None = None, root: Path = _ROOT) -> int | None:
    """Bytes that are free, or None where the system does not tell.

    Args:
        device: whose memory; None: the machine's.
        root: where /proc and /sys are. In a container the limit of its control group counts as well.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    found = [_available(root), *(_below_limit(root / limit, root / used) for limit, used in _GROUPS)]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _available(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(kilobytes[0]) if kilobytes else None


def _below_limit(limit: Path, used: Path) -> int | None:
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no such group, or its limit is the word "max"
        return None
