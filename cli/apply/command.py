"""`compressnet apply`: use a network, or a classical operator, on files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from compressnet.errors import CompressnetError, UsageError

from .. import console, options
from . import text

if TYPE_CHECKING:
    from compressnet.subject import Loaded

    from .writer import Writer


MaxMemory = Annotated[
    Optional[int],
    typer.Option(
        min=1, metavar="MB", help="Memory for activations; the result is the same (default: what is free)."
    ),
]


def apply(
    subject: Annotated[str, typer.Argument(help="A run, a weights file, zoo:NAME or operator:NAME.")],
    inputs: Annotated[
        Optional[list[Path]], typer.Argument(metavar="[INPUT]...", help="Files and folders.")
    ] = None,
    output: options.Output = None,
    prompt: Annotated[
        Optional[str], typer.Option(metavar="TEXT", help="Of a language model: the text to go on with.")
    ] = None,
    set_: options.Overrides = None,
    list_options: Annotated[
        bool, typer.Option("--options", help="List the keys that --set takes here.")
    ] = False,
    max_memory: MaxMemory = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    force: options.Force = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave results that exist, and do the rest.")
    ] = False,
    shard: options.ShardText = None,
    json: options.Json = False,
) -> None:
    """Use a network on photographs or on text files: a language model goes on with a text or measures texts,
    a classifier says the class of each line.

    Example: compressnet apply zoo:rof photo.jpg -o smooth.png

    Example: compressnet apply runs/lm_sample-1 --prompt "the class" --set length=50
    """
    from compressnet.files import is_stdout
    from compressnet.subject import load

    loaded = load(subject)
    if list_options:
        _list_options(loaded, json)
        return
    settings, part = options.parse_settings(set_), options.parse_shard(shard)
    if text.reads_text(loaded):
        given = text.check(loaded, prompt, inputs, output, force)
        if shard is not None:
            inputs = _share_of_texts(inputs, output, part)
        _set_up(loaded, device, malloc=True)
        text.run(loaded, inputs or [], {**settings, **given}, output, json)
        return
    if prompt is not None:
        raise UsageError(f"--prompt: {loaded.subject.text} writes no text")
    if not inputs:
        raise UsageError("name at least one input: a picture, or a folder of pictures")
    if output is None:
        raise UsageError(f"name the output, as in: {_example(subject, inputs)}")
    if max_memory is not None:
        settings["max_memory"] = max_memory
    if json and is_stdout(output):
        raise UsageError(f"--json and -o {output}: both are written to stdout; choose one")
    from compressnet.analysis.forms import has_backend

    from .writer import Writer

    writer = Writer(inputs, output, force, skip_existing, part)
    # Strips are planned by what memory is free, and a tuned malloc gives none back.
    _set_up(loaded, device, malloc=max_memory is None and not has_backend(loaded.model, "strips"))
    written, failed = _apply(loaded, writer, settings)
    _report(loaded, writer, written, failed, json)
    if failed:
        raise CompressnetError(*dict.fromkeys(str(error) for _, error in failed))


def _share_of_texts(inputs: list[Path] | None, output: Path | None, part: options.Shard) -> list[Path]:
    if output is not None or not inputs:
        raise UsageError("--shard: it is for files, each of which has a result of its own")
    return list(options.share(sorted(inputs), part))


def _example(subject: str, inputs: list[Path]) -> str:
    """The command line that lacks nothing."""
    one = inputs[0]
    output = "out" if len(inputs) > 1 or one.is_dir() else f"{one.stem}_out{one.suffix}"
    return shlex.join(["compressnet", "apply", subject, *map(str, inputs[:3]), "-o", output])


def _set_up(loaded: Loaded, device: str, *, malloc: bool) -> None:
    """Choose the device and the CPU settings, and move the model there."""
    from compressnet.training import cpu_settings
    from compressnet.training import device as devices

    chosen = devices.choose(device)
    if device == "auto":
        console.note(f"device: {devices.name(chosen)}")
    wanted = loaded.run.recipe.train.cpu_matmul if loaded.run else "auto"
    cpu_settings.set_up(chosen, wanted, malloc=malloc)
    loaded.model.to(chosen)


def _apply(
    loaded: Loaded, writer: Writer, settings: dict[str, object]
) -> tuple[list[dict[str, Any]], list[tuple[Path, CompressnetError]]]:
    """Apply to every file; a bad one does not stop the others, a full disk does.

    Returns:
        what was written, and the inputs that have no result, with their errors.
    """
    from compressnet.files import WriteError

    screen = console.Screen()
    written: list[dict[str, Any]] = []
    failed = list(writer.failed)
    total = len(writer.sources)
    try:
        results = loaded.apply(writer.sources, screen, on_error="yield", **settings)
        screen.stage("applying", total, "files")
        for done, (source, artefact) in enumerate(results, 1):
            try:
                if isinstance(artefact, CompressnetError):
                    raise artefact
                target, lost = writer.write(source, artefact)
            except CompressnetError as error:
                if isinstance(error, WriteError) and error.is_of_the_disk and done < total:
                    ended = CompressnetError(f"{error}; {total - done} more inputs were not processed")
                    failed += [(left, ended) for left in writer.sources[done - 1 :]]
                    break
                failed.append((source, error))
            else:
                written.append({"input": str(source), "output": str(target), "lost": lost})
                for line in lost:
                    screen.note("warning", f"{source if writer.is_stream else target}: {line}")
            # A large photograph has shown a bar of its own.
            screen.stage("applying", total, "files", initial=done)
    finally:
        screen.close()
    return written, failed


def _list_options(loaded: Loaded, json: bool) -> None:
    from compressnet.signature import json_schema

    known, _ = json_schema(loaded.task.options)
    if json:
        console.print_json(known)
        return
    rows = [
        (key, entry.get("type", "-"), _range(entry), entry.get("default")) for key, entry in known.items()
    ]
    console.print_table(
        "options of this subject (--set KEY=VALUE)", ["key", "type", "range", "default"], rows, numeric=3
    )


def _range(schema: dict[str, Any]) -> str:
    """Of a JSON schema: what a value may be."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return " ".join(f"{word} {schema[key]}" for key, word in words.items() if key in schema)


def _report(
    loaded: Loaded,
    writer: Writer,
    written: list[dict[str, Any]],
    failed: list[tuple[Path, CompressnetError]],
    json: bool,
) -> None:
    smoke = bool(loaded.architecture and loaded.architecture.smoke)
    if json:
        files = {
            "files": written,
            "skipped": [str(path) for path in writer.skipped],
            "failed": [{"input": str(source), "error": str(error)} for source, error in failed],
        }
        console.print_json({"subject": loaded.subject.text, "smoke": smoke, **files})
        return
    if smoke:
        console.note("these weights come from a smoke run: the pictures mean nothing")
    if writer.skipped:
        console.note(f"{len(writer.skipped)} results exist and were left as they are")
    for row in written if not writer.is_stream else ():
        console.print_path(row["output"])
