"""What `compress` shows: a row for every layer, the whole below it, and the metric at every stage."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .. import console

if TYPE_CHECKING:
    from compressnet.compression.job import Done, Job
    from compressnet.compression.report import Report, Row

_HEAD = ["layer", "size", "parameters", "MACs", "ms", "times as fast [95 %]", "error"]


def show(job: Job, done: Done, place: Path | None, json: bool) -> None:
    """Print it, as tables or as JSON."""
    from compressnet.analysis.timing import warnings

    found = done.report
    if json:
        console.print_json({"output": None if place is None else str(place), **done.as_dict()})
        return
    mark = " (smoke run: figures mean nothing)" if job.is_smoke else ""
    shapes = " + ".join("x".join(map(str, shape)) for shape in found.inputs)
    rows = [_row(row) for row in found.rows]
    rows.append(_whole(found))
    title = f"{job.text}, {', '.join(done.facts['methods'])}, input {shapes}{mark}"
    head = _HEAD
    if found.timing is None:  # a dry run
        timed = [_HEAD.index("ms"), _HEAD.index("times as fast [95 %]")]
        head, *rows = (
            [cell for place, cell in enumerate(row) if place not in timed] for row in (_HEAD, *rows)
        )
    console.print_table(title, head, rows, numeric=2)
    if found.timing is not None and {*found.ways.values()} != {"eager"}:
        ways = ", ".join(f"{when} {way}" for when, way in found.ways.items())
        console.print_text(f"the network as apply runs it ({ways}), layers by themselves in torch")
    _show_onnxruntime(found)
    _show_kept(found)
    if done.figures:
        stages = ", ".join(f"{stage} {value:.4f}" for stage, value in done.figures.items())
        console.print_text(f"{done.metric.replace('_', ' ')} on validation data: {stages}")
    if done.facts.get("finetuned", {}).get("best") == "step-0":
        console.note("fine-tuning has not made it better on validation data: best is step 0")
    if done.test:
        both = ", ".join(f"{name} {value:.4f}" for name, value in done.test.items())
        console.print_text(f"on test data: {both}")
    if found.timing is not None and (doubts := warnings(found.timing)):
        hint = "; --clock cpu counts processor time" if found.timing.clock == "wall" else ""
        console.note("; ".join(doubts) + hint)
    for line in found.warnings:
        console.note(f"warning: {line}")
    if found.timing is not None and not done.figures:
        console.note("warning: what was lost was not measured, as there was no validation data: evaluate it")
    if place is not None:
        console.print_text(f"{place}: {found.after.parameters:,} parameters, {found.after.bytes:,} bytes")


def _row(row: Row) -> list[str]:
    return [
        row.path,
        row.size,
        _both(row.before.parameters, row.after.parameters),
        _both(row.before.macs, row.after.macs),
        _times(row),
        row.verdict,
        "-" if row.error is None else f"{row.error:.3f}",
    ]


def _whole(found: Report) -> list[str]:
    return [
        "network",
        "",
        _both(found.before.parameters, found.after.parameters),
        _both(found.before.macs, found.after.macs),
        _times(found),
        found.verdict,
        "",
    ]


def _both(before: int, after: int) -> str:
    return f"{console.short(before)} > {console.short(after)}"


def _times(what: Row | Report) -> str:
    if what.timing is None:
        return "-"
    before, after = (1e3 * what.timing[when].median for when in ("before", "after"))
    return f"{before:.3g} > {after:.3g}"


def _show_onnxruntime(found: Report) -> None:
    timings = {} if found.timing is None else {timing.name: timing for timing in found.timing.timings}
    both = [1e3 * t.median for name, t in timings.items() if name.endswith("ONNX Runtime")]
    if len(both) == 2:
        console.print_text(f"in ONNX Runtime: {both[0]:.3g} > {both[1]:.3g} ms")


def _show_kept(found: Report) -> None:
    reasons = Counter(one.reason for one in found.kept)
    for reason, count in reasons.items():
        paths = [one.path for one in found.kept if one.reason == reason]
        more = f" and {count - 3} more" if count > 3 else ""
        console.print_text(f"kept: {', '.join(paths[:3])}{more}: {reason}")
