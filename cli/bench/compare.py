"""An earlier `compressnet bench --json` beside a new one: only of the same machine, case by case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet.errors import CompressnetError, named
from compressnet.results.speed import milliseconds, ratio_text

from .. import console
from .report import FORMAT

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
    from compressnet import json_file
    from compressnet.results.forms import Report

    try:
        report: dict[str, Any] = json_file.read(path)
    except CompressnetError as error:
        raise CompressnetError(f"--compare {error}") from error
    if not isinstance(report, dict) or not {"format", "machine", "rows", "cpu_settings"} <= report.keys():
        raise CompressnetError(f"--compare {path}: not a file that `compressnet bench --json` wrote")
    if report["format"] != FORMAT:
        has = named(report["format"])
        raise CompressnetError(f"--compare {path}: format {has}, this reads format {FORMAT}")
    json_file.check(Report, report, f"--compare {path}")
    _machine(report, path)
    return report


def _machine(report: Mapping[str, Any], path: Path) -> Machine:
    from compressnet.analysis.machine import Machine

    try:
        return Machine.from_dict(report["machine"])
    except CompressnetError as error:
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
