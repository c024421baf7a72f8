"""`compressnet data`: look at data before training on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from compressnet.errors import CompressnetError, UsageError

from . import console, options

if TYPE_CHECKING:
    from compressnet.data.audio_class import Spoken
    from compressnet.data.protocol import DataSet
    from compressnet.recipe import Component

app = typer.Typer(
    help="Check data sets; compute targets ahead; get the built-in samples; mix long recordings of words.",
    no_args_is_help=True,
)


@app.command("check")
def check(
    source: Annotated[
        str,
        typer.Argument(metavar="RECIPE|NAME:KEY=VALUE,...", help="A recipe, or a data set with arguments."),
    ],
    set_: options.Overrides = None,
    data_root: options.DataRoot = None,
    headers: Annotated[
        bool, typer.Option("--headers", help="Read headers only: quick, but truncated files go unnoticed.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Check the data of a recipe: counts, missing pairs, unreadable files, all listed.

    Pictures are decoded as training will decode them, on all processors.

    Example: compressnet data check photo_folder:root=photos
    """
    from compressnet.data.protocol import NoSuchSplit

    component = _component(source, set_ or [])
    data_set = component.build()
    screen = console.Screen()
    try:
        problems = data_set.check(headers, screen)
    finally:
        screen.close()
    counts: dict[str, int | str] = {}
    for split in ("train", "val", "test") if not problems else ():
        try:
            counts[split] = _count(data_set, split)
        except (NoSuchSplit, CompressnetError) as error:
            counts[split] = f"none: {error}"
    if json:
        console.print_json({"data": component.to_dict(), "splits": counts, "problems": problems})
        if problems:
            raise typer.Exit(1)
        return
    if problems:
        raise CompressnetError(*problems)
    cells = {split: "none" if isinstance(count, str) else count for split, count in counts.items()}
    console.print_table(component.name, ["split", "samples"], cells.items())
    for split, count in counts.items():
        if isinstance(count, str):
            console.note(f"{split}: {count}")


@app.command("samples")
def samples(output: options.Output = None, force: options.Force = False, json: options.Json = False) -> None:
    """List the built-in photographs with their rights, or copy them with -o.

    Example: compressnet data samples -o photos
    """
    from compressnet import files
    from compressnet.data import sample

    from .apply.writer import make_folder

    photographs = sample.photographs("train") + sample.photographs("test")
    targets = [output / photograph.path.name for photograph in photographs] if output is not None else []
    for target in targets:
        files.refuse_to_overwrite(target, force)
    if output is not None:
        make_folder(output)
    for photograph, target in zip(photographs, targets, strict=False):
        files.write_bytes(target, photograph.path.read_bytes(), replace=force)
    written = [str(target) for target in targets]
    if json:
        console.print_json({"credits": sample.credits(), "files": written})
        return
    for line in written or sample.credits():
        console.print_path(line)


@app.command("targets")
def targets(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe of an image operator.")],
    set_: options.Overrides = None,
    data_root: options.DataRoot = None,
    cache: options.CacheDir = None,
    test: Annotated[bool, typer.Option("--test", help="Those of the test split too.")] = False,
    processes: Annotated[
        Optional[int], typer.Option("--processes", min=1, help=options.PROCESSES_HELP)
    ] = None,
    shard: options.ShardText = None,
    json: options.Json = False,
) -> None:
    """Compute the targets of an image operator before training, into the cache.

    All that any run of the recipe can draw. What is there already is skipped, so an interrupted call goes on.

    Example: compressnet data targets fip_photos --data-root ~/pictures --shard 1/4
    """
    from compressnet.data.photographs import PhotographSplit
    from compressnet.data.prepare import processors
    from compressnet.data.protocol import NoSuchSplit

    data_set, assets, seed = _photographs(recipe, set_ or [])
    mine = options.parse_shard(shard)
    counts: dict[str, dict[str, int]] = {}
    screen = console.Screen()
    try:
        for name in ["train", "val", *(["test"] if test else [])]:
            try:
                opened = data_set.open(name, assets, seed)
            except NoSuchSplit as error:
                if name == "test":
                    raise UsageError(f"--test: {error}") from error
                continue
            if not isinstance(opened, PhotographSplit) or not opened.has_targets:
                raise UsageError(f"{recipe}: its data has no targets that an operator makes")
            all_of_it = sorted(opened.every_target().items(), key=lambda item: item[0].name)
            wanted = dict(options.share(all_of_it, mine))
            total = sum(len(targets) for targets in wanted.values())
            computed = opened.fill(wanted, processes or processors(), screen)
            counts[name] = {"photographs": len(wanted), "targets": total, "computed": computed}
    finally:
        screen.close()
    if json:
        console.print_json({"recipe": recipe, "shard": list(mine), "splits": counts})
        return
    rows = [(name, *numbers.values()) for name, numbers in counts.items()]
    console.print_table(recipe, ["split", "photographs", "targets", "computed now"], rows)


def _photographs(recipe: str, overrides: list[str]) -> tuple[DataSet, dict[str, Any], int]:
    """The data set of a recipe, what its task stores, and its seed."""
    from compressnet.recipe import Recipe
    from compressnet.subject import parse

    subject = parse(recipe)
    if subject.kind != "recipe" or subject.path is None:
        raise UsageError(f"'{recipe}' is no recipe: name one (`compressnet recipes ls`), or its file")
    loaded = Recipe.load(subject.path, overrides)
    task, data_set = loaded.task.build(), loaded.data.build()
    if "photograph" not in task.sample_types or data_set.sample_type != "photograph":
        raise UsageError(f"{recipe}: targets are of image operators; its task is {loaded.task.name}")
    assets, _ = task.prepare(None, None, loaded.model)
    return data_set, assets, loaded.seed


@app.command("mix")
def mix(
    source: Annotated[
        str,
        typer.Argument(metavar="RECIPE|NAME:KEY=VALUE,...", help="Clips of words: a recipe, or a data set."),
    ],
    output: options.Output = None,
    minutes: Annotated[float, typer.Option(min=0.01, max=600, help="Its length.")] = 10,
    split: options.Split = None,
    gap_ms: Annotated[
        float, typer.Option("--gap-ms", min=0, max=3_600_000, help="Between two clips, on average.")
    ] = 2000,
    unknown_percent: Annotated[
        float, typer.Option("--unknown-percent", min=0, max=100, help="Of the clips are of unknown words.")
    ] = 30,
    noise_volume: Annotated[
        float, typer.Option("--noise-volume", min=0, max=1, help="Of the noise behind them, at most.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of all that is drawn.")] = 0,
    set_: options.Overrides = None,
    data_root: options.DataRoot = None,
    cache: options.CacheDir = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Mix a long recording of clips in noise, and write beside it (.txt) which word begins when.

    As TensorFlow's generate_streaming_test_wav does. Evaluate on it with --data keyword_stream:audio=OUT.

    Example: compressnet data mix speech_commands -o long.wav --minutes 10
    """
    from compressnet import files
    from compressnet.data import audio, keyword_stream

    if output is None:
        raise UsageError("name the recording with -o, as in: -o long.wav")
    audio.check_suffix(output)
    labels = output.with_suffix(".txt")
    for target in (output, labels):
        if target.is_dir() or not target.absolute().parent.is_dir():
            state = "is a folder" if target.is_dir() else f"there is no folder {target.parent}"
            raise CompressnetError(f"cannot write {target}: {state}: name another file")
        files.refuse_to_overwrite(target, force)
    clips = _clips(_component(source, set_ or []), split)
    mixed = keyword_stream.mix(clips, minutes, seed, gap_ms, unknown_percent, noise_volume)
    with (
        files.whole_file(labels, replace=force) as words,
        files.whole_file(output, replace=force) as sound,  # is there first
    ):
        words.write_text(keyword_stream.written(mixed.onsets))
        audio.write_audio(sound, mixed.samples, clips.sample_rate)
        if force:
            files.remove(labels.resolve())  # killed in between, this leaves no labels of another recording
    if json:
        seconds = len(mixed.samples) / clips.sample_rate
        console.print_json(
            {"files": [str(output), str(labels)], "seconds": seconds, "words": len(mixed.onsets)}
        )
        return
    for target in (output, labels):
        console.print_path(str(target))


def _clips(component: Component, split: str | None) -> Spoken:
    """A split of clips of words."""
    from compressnet.data.protocol import NoSuchSplit

    data_set = component.build()
    if data_set.sample_type != "audio_class":
        raise UsageError(f"data set '{component.name}' has no clips of words: speech_commands has")
    try:
        return data_set.open(split or data_set.test_split, {}, 0)
    except NoSuchSplit as error:
        raise UsageError(f"--split {split}: {error}") from None


def _component(source: str, overrides: list[str]) -> Component:
    """What a recipe, a run, or the name of a data set means; only recipes can be overridden."""
    from compressnet import registry
    from compressnet.recipe import Component, Recipe
    from compressnet.signature import split_arguments
    from compressnet.subject import names, parse

    name, _, arguments = source.partition(":")
    no_recipe = UsageError(f"--set: '{source}' is no recipe; of a data set write NAME:KEY=VALUE,...")
    if name in registry.DATASETS:
        if overrides:
            raise no_recipe
        return Component(kind="data", name=name, arguments=split_arguments(arguments))
    known = [*registry.DATASETS, *names("recipe")]
    wrong = UsageError(f"'{source}' is neither a data set nor a recipe{registry.suggestion(name, known)}")
    try:
        subject = parse(source)
    except UsageError:
        raise wrong from None
    if subject.kind == "recipe" and subject.path:
        return Recipe.load(subject.path, overrides).data
    if overrides:
        raise no_recipe
    if subject.kind == "run" and subject.path:
        from compressnet.run import Run

        return Run.open(subject.path).recipe.data
    raise wrong


def _count(data_set: object, split: str) -> int:
    photographs = getattr(data_set, "photographs", None)
    if photographs is not None:
        return len(photographs(split))
    return len(data_set.open(split, {}, 0))  # type: ignore[attr-defined]
