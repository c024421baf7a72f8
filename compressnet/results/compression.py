"""Recorded compressions, and the section of RESULTS.md that is made from them.

compress --record NAME -> results/NAME.json (compress.json, and how to repeat it) -> "Compression"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compressnet.results.records import markdown, record_path, store, symbolic, without_places

KIND = "compression"
_HEAD = (
    "record",
    "network",
    "methods",
    "parameters",
    "MACs",
    "milliseconds",
    "times as fast [95 %]",
    "metric on validation data",
    "on test data",
)
_INTRODUCTION = """\
## Compression

Trained networks made smaller by `compress`, without training unless it says so. Milliseconds are medians of
interleaved passes of both networks, as `apply` runs them; an interval that holds 1 shows no difference. The
metric is that of the network it was made of, then of each stage: converted, with batch norms re-estimated,
fine-tuned; on test data once, of the parent and of what became of it."""


def is_compression(record: Mapping[str, Any]) -> bool:
    """Whether a record is for this section."""
    return record.get("kind") == KIND


def write_record(
    folder: Path, name: str, report: Mapping[str, Any], command: str, *, overwrite: bool = False
) -> Path:
    """Write a compression with everything that it depends on.

    Args:
        report: what compress.json says.
        command: the command line, in which data roots become symbols.
    """
    from compressnet.analysis.machine import facts
    from compressnet.training.train import commit, versions

    path = record_path(folder, name, overwrite=overwrite)
    kept = {key: value for key, value in report.items() if key != "edits"}
    calibration = {key: value for key, value in kept["calibration"].items() if key != "ids"}
    record = {
        "name": name,
        "kind": KIND,
        **kept,
        "calibration": calibration,
        "command": symbolic(command),
        "machine": facts().as_dict(),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    store(path, without_places(record), overwrite=overwrite)
    return path


def sections(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A heading, a table and the commands; none without records."""
    mine = [record for record in records if is_compression(record)]
    if not mine:
        return []
    how = [
        f"- {record['name']}: `{record['command']}`, commit {record['commit']}, {record['device']}; "
        f"{_calibration(record)}{_effort(record)}"
        for record in mine
    ]
    return [_INTRODUCTION, table(mine), "### How it was done\n\n" + "\n".join(how)]


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """A row a record."""
    return markdown(_HEAD, [_row(record) for record in records])


def _row(record: Mapping[str, Any]) -> list[str]:
    timings = {row["name"]: row for row in (record["timing"] or {}).get("timings", ())}
    milliseconds, ratio = "-", "-"
    if timings:
        before, after = (timings[when]["median"] * 1e3 for when in ("before", "after"))
        milliseconds = f"{before:.3g} > {after:.3g}"
        spread = timings["after"]["ratio"]
        ratio = f"{spread['value']:.2f}x [{spread['low']:.2f}, {spread['high']:.2f}]"
    stages = [f"{stage} {value:.4f}" for stage, value in record["validation"].items()]
    copy = (record["calibration"].get("data") or {}).get("copy")
    metric = f"{record['metric']}: {', '.join(stages)}" if stages else "-"
    test = record.get("test")
    return [
        f"[{record['name']}](results/{record['name']}.json)",
        record["subject"],
        ", ".join(f"`{method}`" for method in record["methods"]),
        f"{record['before']['parameters']:,} > {record['after']['parameters']:,}",
        f"{record['before']['macs']:,} > {record['after']['macs']:,}",
        milliseconds,
        ratio,
        f"{metric} ({copy})" if copy else metric,
        f"{test['parent']:.4f} > {test['compressed']:.4f}" if test else "-",
    ]


def _effort(record: Mapping[str, Any]) -> str:
    """What it took, timing included, fine-tuning not."""
    seconds, peak = record.get("seconds"), record.get("peak_bytes")
    memory = f", {peak / 1e9:.2g} GB at most" if peak else ""
    return "" if seconds is None else f"; {seconds:.0f} s{memory}"


def _calibration(record: Mapping[str, Any]) -> str:
    found = record["calibration"]
    if found.get("data_free"):
        return "without data"
    data = found.get("data") or {}
    copy = f" ({data['copy']})" if data.get("copy") else ""
    return f"calibrated on {found['samples']:,} training samples of {data.get('name', '-')}{copy}"
