"""An earlier `compressnet bench --json` beside a new one: only of the same machine, case by case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet.errors import CompressnetError
from compressnet.speed import milliseconds, ratio_text

from . import console
from .bench_report import FORMAT

if TYPE_CHECKING:
    from compressnet.analysis.bench import Plan
    from compressnet.analysis.machine import Machine

_KEY = (
    "side",
    "occurrence",
    "mode",
    "backend",
    "dtype",
    "threads",
    "cpu",
    "batch",
    "inputs",
    "channels_last",
    "clock",
)


def read(path: Path) -> dict[str, Any]:
    """An earlier `--json`.

    Raises:
        CompressnetError: missing, or not what bench wrote.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompressnetError(f"--compare {path}: cannot be read: {error}") from error
    wanted = {"format", "machine", "rows", "cpu_settings"}
    if not isinstance(report, dict) or not wanted <= report.keys() or not isinstance(report["rows"], list):
        raise CompressnetError(f"--compare {path}: not a file that `compressnet bench --json` wrote")
    if report["format"] != FORMAT:
        raise CompressnetError(f"--compare {path}: format {report['format']!r}, this reads format {FORMAT}")
    for number, row in enumerate(report["rows"], 1):
        if not _is_whole(row):
            raise CompressnetError(f"--compare {path}: damaged: row {number} lacks figures")
    _machine(report, path)
    return report


def _is_whole(row: Any) -> bool:
    if not isinstance(row, dict) or not {*_KEY, "seconds", "median_ms"} <= row.keys():
        return False
    seconds = row["seconds"]
    if not isinstance(seconds, list) or len(seconds) < 2:
        return False
    return all(type(value) in (int, float) and value > 0 for value in [row["median_ms"], *seconds])


def _machine(report: Mapping[str, Any], path: Path) -> Machine:
    from compressnet.analysis.machine import Machine

    try:
        return Machine.from_dict(report["machine"])
    except (CompressnetError, TypeError, ValueError) as error:
        raise CompressnetError(f"--compare {path}: damaged: {error}") from error


def check_comparable(old: Mapping[str, Any], plan: Plan, path: Path) -> None:
    """Refuse, before the work, timings of another machine.

    Raises:
        CompressnetError: what differs.
    """
    from compressnet.analysis.machine import facts, same

    different = same(_machine(old, path), facts(plan.device))
    if different:
        raise CompressnetError(f"--compare {path}: measured on another machine: {'; '.join(different)}")


def against(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """How the new rows differ from those of an earlier measurement, and what else does."""
    from compressnet.analysis.machine import Machine, remarks
    from compressnet.analysis.ratio import unpaired_ratio

    earlier = {_key(row): row for row in old["rows"]}
    rows = []
    for row in new["rows"]:
        if (before := earlier.get(_key(row))) is None:
            continue
        ratio = unpaired_ratio(before["seconds"], row["seconds"])
        value = {"value": ratio.value, "low": ratio.low, "high": ratio.high}
        shared = {key: row[key] for key in ("name", "mode", "threads", "median_ms")}
        rows.append({**shared, "old_median_ms": before["median_ms"], "ratio": value})
    notes = remarks(_machine(old, path), Machine.from_dict(new["machine"]))
    for name, settings in new["cpu_settings"].items():
        before = old["cpu_settings"].get(name, settings)
        if before != settings:
            notes.append(f"CPU settings {name}: {before} against {settings}")
    if not rows:
        notes.append("all: it has none of these rows (sides, sizes, modes, threads must agree)")
    return {"file": str(path), "remarks": notes, "rows": rows}


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps([row[key] for key in _KEY])


def show(compared: Mapping[str, Any]) -> None:
    """Then and now, a row each."""
    cells = [
        [
            f"{row['name']}, {row['mode']}, threads: {row['threads']}",
            milliseconds(row["old_median_ms"]),
            milliseconds(row["median_ms"]),
            ratio_text(row["ratio"]),
        ]
        for row in compared["rows"]
    ]
    columns = ["", "then ms", "now ms", "times as fast [95 %]"]
    if cells:
        console.print_table(f"against {compared['file']}", columns, cells)
    for line in compared["remarks"]:
        console.print_text(f"{compared['file']} differs: {line}")
