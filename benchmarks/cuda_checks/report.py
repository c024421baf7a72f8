"""The results as files: results.jsonl as they come, cuda.md and cuda.json of all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cuda_checks.cases import Row

_STATES = ("ok", "failed", "skipped", "not reached")


class Results:
    """Rows, each of which is on disk before the next is known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        with (self.folder / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")

    def write(self, about: dict[str, Any]) -> None:
        """cuda.json and cuda.md of the rows so far.

        Args:
            about: how it was started.
        """
        document = {**about, "counts": dict(self.counts()), "rows": [asdict(row) for row in self.rows]}
        (self.folder / "cuda.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        (self.folder / "cuda.md").write_text(markdown(self.rows, about), encoding="utf-8")

    def counts(self) -> Counter[str]:
        """How many rows are in each state."""
        return Counter(row.state for row in self.rows)

    def summary(self) -> str:
        """`12 ok, 1 failed`."""
        counts = self.counts()
        return ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state]) or "nothing"


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """A table a section, and what failed in front of them."""
    lines = ["# Checks on CUDA", ""]
    lines += [f"- {key}: {_cell(str(value))}" for key, value in about.items()]
    if failed := [row for row in rows if row.state == "failed"]:
        lines += ["", "## Failed", "", *_table(failed, with_section=True)]
    for section in dict.fromkeys(row.section for row in rows):
        own = [row for row in rows if row.section == section]
        lines += ["", f"## {section}", "", *_table(own, with_section=False)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], *, with_section: bool) -> list[str]:
    head = ["section"] * with_section + ["case", "state", "figure", "message", "s"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        cells = [row.section] * with_section + [row.case, row.state, row.figure, row.message]
        lines.append(f"| {' | '.join(map(_cell, cells))} | {row.seconds:.1f} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
