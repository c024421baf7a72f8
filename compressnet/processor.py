"""The processor of this machine, and what was measured of it once: kept as JSON in `<cache>/cpu/`."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from compressnet import files
from compressnet.errors import CompressnetError
from compressnet.places import cache_dir

_CPUINFO = Path("/proc/cpuinfo")
_LARGEST = 100_000  # bytes of what is kept


def cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def identity() -> dict[str, str]:
    """What tells one processor from another: its model, and what it can do."""
    facts = cpuinfo()
    if not facts:
        return {"cpu": f"{platform.system()} {platform.processor() or platform.machine()}"}
    model = [facts[name] for name in ("model name", "CPU implementer", "CPU part") if name in facts]
    flags = facts.get("flags") or facts.get("Features") or ""
    return {
        "cpu": " ".join([platform.machine(), *model]),
        "flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
    }


def measured_once(
    key: Mapping[str, str], names: Collection[str], measure: Callable[[], Mapping[str, float]]
) -> dict[str, float]:
    """What `measure` says of this processor: as it is in the cache, else anew, which is then kept there.

    Args:
        key: what it depends on besides the processor.
        names: of the figures, all of them finite and not below 0.
    """
    full = {**identity(), **key}
    name = hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_dir() / "cpu" / f"{name}.json"
    if (known := _read(path, full, names)) is not None:
        return known
    found = dict(measure())
    if path.exists() and not path.is_file():
        return found  # a pipe would wait for a reader
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"key": full, "probe": found})
    except (OSError, CompressnetError):
        return found  # no place to keep it: the next process measures again
    return found


def _read(path: Path, key: Mapping[str, str], names: Collection[str]) -> dict[str, float] | None:
    """Figures of the cache; None where there are none, or none that can be believed."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:  # a pipe would be waited for
            return None
        stored = json.loads(path.read_text(encoding="utf-8"))
        values = {name: stored["probe"][name] for name in names}
        known = stored["key"] == key and all(
            isinstance(value, float) and 0 <= value < math.inf for value in values.values()
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return values if known else None
