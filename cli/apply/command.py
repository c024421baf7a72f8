"""`compressnet apply`: use a network, or a classical operator, on files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from compressnet.errors import CompressnetError, UsageError
from compressnet.files import WriteError, is_stdout, is_stream
from compressnet.source import STDIN, Source

from .. import console, options
from . import report
from .inputs import gather
from .writer import STDOUT, Makes, Printed, Rules, Writer, make_writer

if TYPE_CHECKING:
    from compressnet.subject import Loaded

MaxMemory = Annotated[
    Optional[int],
    typer.Option(
        min=1, metavar="MB", help="Memory for activations; the result is the same (default: what is free)."
    ),
]


def apply(
    subject: Annotated[str, typer.Argument(help="A run, a weights file, zoo:NAME or operator:NAME.")],
    inputs: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[INPUT]...", help="Files, folders, or - (stdin)."),
    ] = None,
    output: options.OutputText = None,
    prompt: Annotated[
        Optional[str], typer.Option(metavar="TEXT", help="The text that a language model continues.")
    ] = None,
    set_: options.Overrides = None,
    list_options: options.ListOptions = False,
    max_memory: MaxMemory = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    force: options.Force = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Keep results that exist, and compute the rest.")
    ] = False,
    shard: options.ShardText = None,
    json: options.Json = False,
) -> None:
    """Use a network on your files: photographs and clips come back processed, a language model continues a
    text or measures texts, a classifier labels lines or pictures, a keyword spotter tells words in sound.

    OUT is a file if it has a suffix, otherwise a folder; texts and rows of all inputs share one file, and are
    printed if there is no -o. An input - is stdin, an output - is stdout.

    Example: compressnet apply zoo:rof photo.jpg -o smooth.png

    Example: cat photo.jpg | compressnet apply zoo:rof - -o - > smooth.png

    Example: compressnet apply runs/lm_sample-1 --prompt "the class" --set length=50

    Example: arecord -q -f S16_LE -r 16000 -t raw | compressnet apply zoo:words_svdf -
    """
    from compressnet.subject import load

    loaded = load(subject)
    if list_options:
        _show_options(loaded, json)
        return
    given = inputs or []
    settings = _settings(loaded, set_, prompt, max_memory)
    if "prompt" in settings:
        _check_prompt(str(settings["prompt"]), given, output, shard)
    elif not given:
        raise UsageError(_lacks_inputs(loaded))
    kinds = loaded.task.reads
    usual = loaded.task.makes(settings, kinds[0])
    if output is None and not usual.printed:
        raise UsageError(f"name the output, as in: {_example(subject, given)}")
    target = _target(output, json)
    if force and skip_existing:
        raise UsageError("--force and --skip-existing: choose one")
    rules = Rules(force, skip_existing, options.parse_shard(shard))
    found = gather(given, kinds)
    # What is piped in has no name: that of the output says what it is.
    known = {source: source if source.path else Source.of(output or STDIN) for source in found.names}
    each = {source: loaded.task.makes(settings, name.kind(kinds)) for source, name in known.items()}
    writer = make_writer(found, target, Makes(usual, each), rules)
    if isinstance(writer, Printed):
        writer.at_once = not json
    if shard is not None and not (writer.sources or writer.skipped):
        console.note(f"no input falls to shard {shard}")
    _set_up(loaded, device, max_memory)
    entries, texts = _apply(loaded, writer, settings)
    left = writer.finish()
    for entry in [*entries, *texts] if left else ():
        entry.pop("output", None)
    smoke = bool(loaded.architecture and loaded.architecture.smoke)
    if json:
        words = [entry["text"] for entry in texts]
        entries = report.joined(entries) if usual.live else entries
        entries += [{key: entry[key] for key in ("input", "output")} for entry in texts if "output" in entry]
        report.print_document(loaded.subject.text, smoke, _whole(loaded, settings), writer, entries, words)
    else:
        report.show(loaded.subject.text, smoke, writer, [*texts, *entries], left, target)
    if writer.failed:
        raise CompressnetError(*dict.fromkeys(str(error) for _, error in writer.failed))


def _whole(loaded: Loaded, settings: dict[str, Any]) -> dict[str, Any]:
    """The options that were in use, defaults included."""
    from dataclasses import asdict

    from compressnet.signature import check

    given, _ = check(loaded.task.options, settings)
    return {key.removesuffix("_"): value for key, value in asdict(loaded.task.options(**given)).items()}


def _show_options(loaded: Loaded, json: bool) -> None:
    """What `--set` takes; of an operator also its own keys, which stand in the subject."""
    from compressnet import registry
    from compressnet.signature import json_schema

    if loaded.subject.kind != "operator":
        options.show_settings("options", loaded.task.options, json)
        return
    own, _ = json_schema(registry.find("operator", loaded.subject.name))
    if json:
        console.print_json({"keys": own, "options": json_schema(loaded.task.options)[0]})
        return
    options.print_keys(options.keys_of_operator(loaded.subject.name), own)


def _settings(
    loaded: Loaded, overrides: list[str] | None, prompt: str | None, max_memory: int | None
) -> dict[str, Any]:
    """What `--set` says and what options of their own say, which may not both say it."""
    settings, flags = options.parse_settings(overrides), _of_flags(loaded, prompt, max_memory)
    _refuse_own_keys(loaded, settings)
    if twice := sorted(flags.keys() & settings.keys()):
        raise UsageError(f"--set {twice[0]}=...: --{twice[0].replace('_', '-')} says it already")
    return settings | flags


def _refuse_own_keys(loaded: Loaded, settings: Mapping[str, object]) -> None:
    """All that an operator takes is said in its subject, which is also what targets and reports name."""
    from dataclasses import replace

    from compressnet import registry
    from compressnet.signature import parameters

    subject = loaded.subject
    if subject.kind != "operator":
        return
    keys = parameters(registry.find("operator", subject.name))
    if own := {key: value for key, value in settings.items() if key in keys}:
        text = replace(subject, arguments=subject.arguments | own).text
        raise UsageError(f"--set {next(iter(own))}: it is a key of the operator: write {text}")
    if settings:
        strange, known = next(iter(settings)), ", ".join(keys)
        raise UsageError(f"--set {strange}: {subject.text} has no options beside its own keys: {known}")


def _target(output: str | None, json: bool) -> Path | None:
    """Where results go; None: they are printed."""
    target = None if output is None else STDOUT if output == STDIN else Path(output)
    if json and target is not None and is_stdout(target):
        raise UsageError(f"--json and -o {output}: both are written to stdout; choose one")
    return target


def _of_flags(loaded: Loaded, prompt: str | None, max_memory: int | None) -> dict[str, object]:
    """The flags that are options of some tasks.

    Raises:
        UsageError: not of this one.
    """
    from compressnet.signature import parameters

    known = parameters(loaded.task.options)
    flags = {"prompt": prompt, "max_memory": max_memory}
    given: dict[str, object] = {key: value for key, value in flags.items() if value is not None}
    if strange := given.keys() - known.keys():
        lacks = "writes no text" if "prompt" in strange else "has no memory limit to set"
        flag = "prompt" if "prompt" in strange else "max-memory"
        raise UsageError(f"--{flag}: {loaded.subject.text} {lacks}")
    return given


def _check_prompt(prompt: str, given: list[str], output: str | None, shard: str | None) -> None:
    if not prompt:
        raise UsageError("--prompt: it is empty; give the text at least one symbol to begin with")
    if shard is not None:
        raise UsageError("--shard: it is for files, each of which has a result of its own")
    if output is None:
        return
    if given:
        raise UsageError("-o takes the text of a --prompt or the results of files: run apply twice")
    if os.path.isdir(output):
        raise UsageError(f"{output} is a folder: name a file in it")
    if not Path(output).suffix and output != STDIN and not is_stream(Path(output)):
        raise UsageError(f"-o {output}: name the file with its suffix, as {output}.txt")


def _lacks_inputs(loaded: Loaded) -> str:
    from compressnet.signature import parameters
    from compressnet.source import PLURALS

    if "prompt" in parameters(loaded.task.options):
        return "give --prompt TEXT to continue, or text files to measure the perplexity of"
    what = " or ".join(PLURALS[kind] for kind in loaded.task.reads)
    return f"name at least one input: {what}, a folder of them, or {STDIN} for what is piped in"


def _example(subject: str, inputs: list[str]) -> str:
    """The command line that lacks nothing."""
    one = Path(inputs[0])
    output = "out" if len(inputs) > 1 or one.is_dir() else f"{one.stem}_out{one.suffix}"
    output = STDIN if inputs == [STDIN] else output
    return shlex.join(["compressnet", "apply", subject, *inputs[:3], "-o", output])


def _set_up(loaded: Loaded, device: str, max_memory: int | None) -> None:
    """Choose the device and the CPU settings, and move the model there."""
    from compressnet.registry import find
    from compressnet.training import cpu_settings
    from compressnet.training import device as devices

    chosen = devices.choose(device)
    if device == "auto":
        console.note(f"device: {devices.name(chosen)}")
    wanted = loaded.run.recipe.train.cpu_matmul if loaded.run else "auto"
    # Strips are planned by what memory is free, and a tuned malloc gives none back.
    in_strips = find("backend", "strips")(loaded.model) is not None
    cpu_settings.set_up(chosen, wanted, malloc=max_memory is None and not in_strips)
    loaded.model.to(chosen)


def _apply(
    loaded: Loaded, writer: Writer, settings: dict[str, object]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Apply to every source; a bad one does not stop the others, a full disk does.

    Returns:
        what `--json` tells of the results of files, and of the texts that were written to a prompt.
    """
    screen = console.Screen()
    entries: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    total = len(writer.sources)
    try:
        answers = loaded.answers(writer.sources, settings, screen)
        _bar(screen, total, 0)
        for done, (source, artefact) in enumerate(answers, 1):
            try:
                if isinstance(artefact, CompressnetError):
                    raise artefact
                with loaded.running():  # a clip is made while it is written
                    placed = writer.take(source, artefact)
            except CompressnetError as error:
                if isinstance(error, WriteError) and error.is_of_the_disk and done < total:
                    ended = CompressnetError(f"{error}; {total - done} more inputs were not processed")
                    writer.failed += [(left, ended) for left in writer.sources[done - 1 :]]
                    break
                writer.failed.append((source, error))
            else:
                if placed is not None:
                    entry = {"input": source.name, **artefact.as_json(), **placed}
                    if cut_short := entry.pop("cut_short", None):
                        writer.failed.append((source, cut_short))
                    (texts if _is_prompt(source) else entries).append(entry)
                    _tell_lost(source, entry, screen)
            # A large photograph has shown a bar of its own.
            _bar(screen, total, min(done, total))
    finally:
        screen.close()
    return entries, texts


def _tell_lost(source: Source, entry: dict[str, Any], screen: console.Screen) -> None:
    for line in entry.get("lost", ()):
        place = entry["output"]
        screen.note("warning", f"{source if is_stream(Path(place)) else place}: {line}")


def _is_prompt(source: Source) -> bool:
    return source.path is None and source.name != STDIN


def _bar(screen: console.Screen, total: int, done: int) -> None:
    if total > 1:
        screen.stage("applying", total, "files", initial=done)
