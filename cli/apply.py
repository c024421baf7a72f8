"""`compressnet apply`: use a network, or a classical operator, on files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from compressnet.errors import UsageError

from . import console, options

if TYPE_CHECKING:
    from compressnet.subject import Loaded


def apply(
    subject: Annotated[str, typer.Argument(help="A run, a weights file, zoo:NAME or operator:NAME.")],
    inputs: Annotated[
        Optional[list[Path]], typer.Argument(metavar="[INPUT]...", help="Files and folders.")
    ] = None,
    output: options.Output = None,
    set_: options.Overrides = None,
    list_options: Annotated[
        bool, typer.Option("--options", help="List the keys that --set takes here.")
    ] = False,
    max_memory: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="MB",
            help="Memory for activations; the result is the same [default: what is free].",
        ),
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Use a network on photographs.

    Example: compressnet apply zoo:rof photo.jpg -o smooth.png
    """
    from compressnet.subject import load

    loaded = load(subject)
    if list_options:
        _list_options(loaded, json)
        return
    if not inputs or output is None:
        raise UsageError("name at least one input and, with -o, the output")
    settings = options.parse_settings(set_)
    if max_memory is not None:
        settings["max_memory"] = max_memory
    from compressnet.training import device as devices

    from .writer import Writer

    writer = Writer(inputs, output, force)
    loaded.model.to(devices.choose(device))
    screen = console.Screen()
    results = loaded.apply(writer.sources, screen, **settings)
    screen.stage("applying", len(writer.sources), "files")
    written = []
    try:
        for source, artefact in results:
            target, lost = writer.write(source, artefact)
            written.append({"input": str(source), "output": str(target), "lost": lost})
            for line in lost:
                screen.note("warning", f"{target}: {line}")
            # A large photograph has shown a bar of its own.
            screen.stage("applying", len(writer.sources), "files", initial=len(written))
    finally:
        screen.close()
    _report(loaded, written, json)


def _list_options(loaded: Loaded, json: bool) -> None:
    from compressnet.signature import parameters

    known = parameters(loaded.task.options)
    rows = [(key, str(parameter.annotation), parameter.default) for key, parameter in known.items()]
    if json:
        console.print_json({key: {"type": kind, "default": default} for key, kind, default in rows})
        return
    console.print_table(
        "options of this subject (--set KEY=VALUE)", ["key", "type", "default"], rows, numeric=3
    )


def _report(loaded: Loaded, written: list[dict[str, Any]], json: bool) -> None:
    smoke = bool(loaded.architecture and loaded.architecture.smoke)
    if json:
        console.print_json({"subject": loaded.subject.text, "smoke": smoke, "files": written})
        return
    if smoke:
        console.note("these weights come from a smoke run: the pictures mean nothing")
    for row in written:
        console.print_text(row["output"])
