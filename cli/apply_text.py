"""`compressnet apply` with language models: text that goes on, and how well files are predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet.errors import CompressnetError, UsageError
from compressnet.files import write_bytes

from . import console

if TYPE_CHECKING:
    from compressnet.subject import Loaded


def takes_prompts(loaded: Loaded) -> bool:
    """Whether this is a subject that writes text."""
    from compressnet.signature import parameters

    return "prompt" in parameters(loaded.task.options)


def check(prompt: str | None, inputs: list[Path] | None, output: Path | None, force: bool) -> dict[str, str]:
    """Refuse what cannot be done, before anything is computed; returns the prompt as a setting."""
    if prompt is None and not inputs:
        raise UsageError("give --prompt TEXT to go on with, or text files to measure the perplexity of")
    if prompt == "":
        raise UsageError("--prompt: it is empty; give the text at least one symbol to begin with")
    if output is not None and prompt is None:
        raise UsageError("-o is for the text of a --prompt; perplexities are printed, see --json")
    if output is not None and output.is_dir():
        raise UsageError(f"{output} is a folder: name a file in it")
    if output is not None and output.exists() and not force:
        raise CompressnetError(f"{output} exists: add --force to overwrite it")
    return {} if prompt is None else {"prompt": prompt}


def run(
    loaded: Loaded, inputs: list[Path], settings: Mapping[str, Any], output: Path | None, json: bool
) -> None:
    """Write, measure, and show both.

    Raises:
        CompressnetError: a file that cannot be measured, after all others were.
    """
    from compressnet.tasks.artefacts import Text

    texts: list[str] = []
    measured: list[dict[str, Any]] = []
    failed: list[str] = []
    for source, artefact in _results(loaded, inputs, settings):
        if isinstance(artefact, CompressnetError):
            failed.append(str(artefact))
        elif isinstance(artefact, Text):
            texts.append(artefact.text)
        else:
            measured.append({"input": str(source), **artefact.values})
    if output is not None:
        write_bytes(output, "".join(f"{text}\n" for text in texts).encode())
    _show(loaded, texts, measured, output, json)
    if failed:
        raise CompressnetError("\n".join(failed))


def _results(loaded: Loaded, inputs: list[Path], settings: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    screen = console.Screen()
    try:
        yield from loaded.apply(inputs, screen, on_error="yield", **settings)
    finally:
        screen.close()


def _show(
    loaded: Loaded, texts: list[str], measured: list[dict[str, Any]], output: Path | None, json: bool
) -> None:
    smoke = bool(loaded.architecture and loaded.architecture.smoke)
    if json:
        document = {"subject": loaded.subject.text, "smoke": smoke, "texts": texts, "files": measured}
        console.print_json(document)
        return
    if smoke:
        console.note("these weights come from a smoke run: text and figures mean nothing")
    for text in texts:
        console.print_text(str(output) if output else text)
    if measured:
        columns = list(measured[0])
        rows = [[row[column] for column in columns] for row in measured]
        console.print_table(loaded.subject.text, [column.replace("_", " ") for column in columns], rows)
