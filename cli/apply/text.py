"""`compressnet apply` on text: language models go on with it or measure it, classifiers label its lines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet.errors import CompressnetError, UsageError
from compressnet.files import is_stream, refuse_to_overwrite, write_bytes

from .. import console

if TYPE_CHECKING:
    from compressnet.subject import Loaded


def reads_text(loaded: Loaded) -> bool:
    """Whether this is a subject for texts or rows of numbers, not for images."""
    return bool({"text", "sentence", "sequence"}.intersection(loaded.task.sample_types))


def check(
    loaded: Loaded, prompt: str | None, inputs: list[Path] | None, output: Path | None, force: bool
) -> dict[str, str]:
    """Refuse what cannot be done, before anything is computed; returns the prompt as a setting."""
    from compressnet.signature import parameters

    if "prompt" in parameters(loaded.task.options):
        _check_prompt(prompt, inputs, output)
    elif prompt is not None:
        raise UsageError(f"--prompt: {loaded.subject.text} writes no text")
    elif not inputs:
        raise UsageError("name at least one text file")
    elif output is not None and "sentence" not in loaded.task.sample_types:
        raise UsageError("-o is for texts and labels; figures are printed, see --json")
    if output is not None and os.path.isdir(output):
        raise UsageError(f"{output} is a folder: name a file in it")
    if output is not None:
        refuse_to_overwrite(output, force)
    return {} if prompt is None else {"prompt": prompt}


def _check_prompt(prompt: str | None, inputs: list[Path] | None, output: Path | None) -> None:
    if prompt is None and not inputs:
        raise UsageError("give --prompt TEXT to go on with, or text files to measure the perplexity of")
    if prompt == "":
        raise UsageError("--prompt: it is empty; give the text at least one symbol to begin with")
    if output is not None and prompt is None:
        raise UsageError("-o is for the text of a --prompt; perplexities are printed, see --json")


def run(
    loaded: Loaded, inputs: list[Path], settings: Mapping[str, Any], output: Path | None, json: bool
) -> None:
    """Write, measure or label, and show it.

    Raises:
        CompressnetError: a file that cannot be used, after all others were.
    """
    from compressnet.tasks.artefacts import Labels, Text

    texts: list[str] = []
    measured: list[dict[str, Any]] = []
    failed: list[tuple[Path, CompressnetError]] = []
    done: list[Path] = []
    for source, artefact in _results(loaded, inputs, settings):
        if isinstance(artefact, CompressnetError):
            failed.append((source, artefact))
        elif isinstance(artefact, Text):
            texts.append(artefact.text)
            done.append(source)
        elif isinstance(artefact, Labels):
            lines = [line._asdict() for line in artefact.lines]
            measured.append({"input": str(source), "lines": lines})
            done.append(source)
        else:
            measured.append({"input": str(source), **artefact.values})
    if output is not None and (texts or measured):
        try:
            write_bytes(output, _as_file(texts, measured))
        except CompressnetError as error:
            failed += [(source, error) for source in done]
            output = None  # on the screen, then: what was computed is not lost
    _show(loaded, texts, measured, output, json, failed)
    if failed:
        raise CompressnetError(*dict.fromkeys(str(error) for _, error in failed))


def _as_file(texts: list[str], measured: list[dict[str, Any]]) -> bytes:
    text = "".join(f"{row}\n" for row in [*texts, *_labelled(measured)])
    return text.encode(errors="surrogateescape")  # a name that is no text, as it is


def _results(loaded: Loaded, inputs: list[Path], settings: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    screen = console.Screen()
    try:
        yield from loaded.apply(inputs, screen, on_error="yield", **settings)
    finally:
        screen.close()


def _show(
    loaded: Loaded,
    texts: list[str],
    measured: list[dict[str, Any]],
    output: Path | None,
    json: bool,
    failed: list[tuple[Path, CompressnetError]],
) -> None:
    smoke = bool(loaded.architecture and loaded.architecture.smoke)
    if json:
        lost = [{"input": str(source), "error": str(error)} for source, error in failed]
        document = {"texts": texts, "files": measured, "failed": lost}
        console.print_json({"subject": loaded.subject.text, "smoke": smoke, **document})
        return
    if smoke:
        console.note("these weights come from a smoke run: text and figures mean nothing")
    labelled = bool(measured) and "lines" in measured[0]
    if output is None:
        for text in texts:
            console.print_text(text)
        for entry in measured if labelled else ():
            lines = [(line["text"], line["label"], line["probability"]) for line in entry["lines"]]
            console.print_table(entry["input"], ["text", "label", "probability"], lines, numeric=2)
    elif not is_stream(output) and (texts or labelled):
        console.print_path(output)
    if measured and not labelled:
        columns = list(measured[0])
        rows = [[row[column] for column in columns] for row in measured]
        console.print_table(loaded.subject.text, [column.replace("_", " ") for column in columns], rows)


def _labelled(measured: list[dict[str, Any]]) -> list[str]:
    """What `-o` gets of labelled files: a heading and a row a line, columns parted by tabs."""
    rows = [{"input": entry["input"], **line} for entry in measured for line in entry.get("lines", ())]
    table = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
    return ["\t".join(map(str, row)) for row in table]
