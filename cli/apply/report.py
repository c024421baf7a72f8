"""What `apply` shows when all is done."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet.files import is_stream
from compressnet.source import STDIN, Source

from .. import console, streams

if TYPE_CHECKING:
    from compressnet.tasks.artefacts import Artefact

    from .writer import Writer

Results = Sequence[tuple[Source, "Artefact"]]


def print_document(
    subject: str,
    smoke: bool,
    options: dict[str, Any],
    writer: Writer,
    entries: list[dict[str, Any]],
    texts: list[str],
) -> None:
    """The JSON document."""
    console.print_json(
        {
            "subject": subject,
            "smoke": smoke,
            "options": options,
            "texts": texts,
            "files": entries,
            "skipped": [str(path) for path in writer.skipped],
            "failed": [{"input": source.name, "error": str(error)} for source, error in writer.failed],
        }
    )


def joined(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was told of stdin piece by piece as one entry, its lists one behind the other."""
    found = [entry for entry in entries if entry["input"] != STDIN]
    pieces = [entry for entry in entries if entry["input"] == STDIN]
    for piece in pieces[1:]:
        for key, value in piece.items():
            if isinstance(value, list):
                pieces[0][key] = pieces[0][key] + value
    return found + pieces[:1]


def show(
    subject: str,
    smoke: bool,
    writer: Writer,
    entries: Sequence[Mapping[str, Any]],
    left: Results,
    output: Path | None,
) -> None:
    """Texts and tables, then the names of the files that were written."""
    if smoke:
        console.note("these weights come from a smoke run: what they make means nothing")
    if writer.skipped:
        many = len(writer.skipped) > 1
        words = "results exist and were left as they are" if many else "result exists and was left as it is"
        console.note(f"{len(writer.skipped)} {words}")
    _print(subject, left)
    if output is not None and not left and not is_stream(output):
        for path in dict.fromkeys(entry["output"] for entry in entries):
            console.print_path(path)


def show_live(artefact: Artefact) -> None:
    """The rows of one result as lines of cells with tabs between them, as a file has them."""
    for row in artefact.rows() or ():
        cells = (
            f"{cell:.3f}".rstrip("0").rstrip(".") if isinstance(cell, float) else str(cell)
            for cell in row.values()
        )
        console.print_text("\t".join(cells))
    with streams.guarded("stdout"):  # a pipe would keep it back until there are 8 KiB
        sys.stdout.flush()


def _print(subject: str, results: Results) -> None:
    """One table where every input has one row, else a table for each."""
    tables = [(source.name, artefact.rows()) for source, artefact in results]
    for (_, artefact), (_, rows) in zip(results, tables, strict=True):
        if rows is None:
            console.print_text(artefact.as_json()["text"])
    found = [(name, rows) for name, rows in tables if rows is not None]
    if all(len(rows) == 1 for _, rows in found):
        _print_rows(subject, [{"input": name, **row} for name, rows in found for row in rows])
        return
    for name, rows in found:
        _print_rows(name, rows)
        if not rows:
            console.print_text(f"{console.shown(name)}: nothing")


def _print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    words = [column for column in columns if any(isinstance(row.get(column), str) for row in rows)]
    columns = [*words, *(column for column in columns if column not in words)]
    if rows:
        cells = [[row.get(column) for column in columns] for row in rows]
        names = [column.replace("_", " ") for column in columns]
        console.print_table(title, names, cells, numeric=len(words))
