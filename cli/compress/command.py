"""`compressnet compress`: a trained network made smaller, in closed form, with an honest report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from compressnet.errors import CompressnetError, UsageError

from .. import console, options
from . import report as reporting

if TYPE_CHECKING:
    from compressnet.compression.job import Job
    from compressnet.recipe import Recipe

Methods = Annotated[
    Optional[list[str]],
    typer.Option(
        "--method",
        metavar="NAME:KEY=VALUE,...",
        help="What to do: svd, tucker, channel_out, ... with ratio, rank or energy (default: ratio=0.5). "
        "Repeatable: one after the other.",
    ),
]
Only = Annotated[
    Optional[list[str]],
    typer.Option("--only", metavar="GLOB", help="Change these layers alone, by their paths. Repeatable."),
]
Skip = Annotated[
    Optional[list[str]],
    typer.Option("--skip", metavar="GLOB", help="Leave these layers as they are. Repeatable."),
]
Samples = Annotated[
    int,
    typer.Option("--calibration", min=1, metavar="N", help="Samples of the training data to calibrate on."),
]
DataFree = Annotated[
    bool,
    typer.Option(
        "--data-free",
        help="Look at the weights alone: no data is read, nothing is measured; only --finetune reads it.",
    ),
]
Finetune = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        metavar="STEPS",
        help="Train the result: by its parent's recipe at a tenth of the rate (cosine), distilled from the "
        "parent. --set changes that recipe.",
    ),
]
RecipeName = Annotated[
    Optional[str],
    typer.Option("--recipe", metavar="RECIPE", help="Fine-tune a file or zoo:NAME by this recipe."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; nothing is timed, nothing is written.")
]
Batch = Annotated[int, typer.Option(min=1, help="Images or sequences per pass.")]
SeqLen = Annotated[Optional[int], typer.Option(min=1, help="Steps of sequences (default: 35).")]
ClockName = Annotated[
    str, typer.Option(help="wall, or cpu: processor time, for machines that others use too.")
]
Record = Annotated[
    Optional[str],
    typer.Option(metavar="NAME", help="Write results/NAME.json, which RESULTS.md is made from."),
]
Results = Annotated[Path, typer.Option(metavar="DIR", help="The folder of recorded results.")]


def compress(
    subject: Annotated[
        str,
        typer.Argument(
            help="A run, a weights file, zoo:NAME; of py:FILE.py:NAME the report alone.",
            autocompletion=options.complete_subject,
        ),
    ],
    method: Methods = None,
    only: Only = None,
    skip: Skip = None,
    output: options.Output = None,
    data: options.OtherData = None,
    calibration: Samples = 2048,
    data_free: DataFree = False,
    finetune: Finetune = None,
    recipe: RecipeName = None,
    set_: options.Overrides = None,
    dry_run: DryRun = False,
    batch: Batch = 1,
    input_size: options.InputSize = None,
    inputs: options.Inputs = None,
    seq_len: SeqLen = None,
    clock: ClockName = "wall",
    record: Record = None,
    results: Results = Path("results"),
    runs: options.Runs = Path("runs"),
    device: options.Device = "auto",
    threads: options.Threads = None,
    data_root: options.DataRoot = None,
    cache: options.CacheDir = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Make a trained network smaller: factors in the place of layers, folded norms; --finetune trains it on.

    What is made of a run is a run beside it, which every command opens; of a weights file another
    (-o NAME.safetensors). Factors are chosen on training data, such that the outputs of each layer change
    least; batch norms are re-estimated. Every layer is timed before and after; slower ones are called slower.

    Example: compressnet compress runs/cls_sample-1 --method fold --method tucker:ratio=0.5
    """
    from compressnet import registry
    from compressnet.compression.job import Job
    from compressnet.results.records import record_path

    if not method:
        raise UsageError(f"name a method, --method NAME: {', '.join(sorted(registry.TRANSFORMS))}")
    if finetune is None and (recipe or set_):
        raise UsageError(f"{'--recipe' if recipe else '--set'} is for --finetune STEPS: add it")
    if clock not in ("wall", "cpu"):
        raise UsageError(f"--clock {clock}: choose from wall, cpu")
    if record:
        record_path(results, record, overwrite=force)  # refuses before the work, not after it
    screen = console.Screen()
    try:
        job = Job.open(
            subject,
            tuple(method),
            only=tuple(only or ()),
            skip=tuple(skip or ()),
            data=data,
            samples=calibration,
            data_free=data_free,
            inputs=tuple(inputs or ()),
            device=device,
            base=_recipe(recipe),
            finetune=finetune or 0,
            overrides=tuple(set_ or ()),
            reporter=screen,
        )
        _check_target(job, output, record, dry_run=dry_run, force=force)
        size = options.parse_size(input_size)
        if size is not None and seq_len is not None:
            raise UsageError("--input-size and --seq-len: a network takes one of them")
        done = job.go(batch, seq_len if size is None else size, clock, is_dry=dry_run)
        command = ["compressnet", *sys.argv[1:]]
        place = (
            None if dry_run or not job.is_stored else job.write(done, output, runs, command, replace=force)
        )
        if place is not None and job.plan is not None:
            done = job.finetune(done, place, command)
        if place is not None and record:
            done = job.test(done, place)
    finally:
        screen.close()
    reporting.show(job, done, place, json)
    if record:
        from compressnet.results.compression import write_record

        path = write_record(results, record, done.as_dict(), shlex.join(command), overwrite=force)
        console.note(f"recorded: {path}")


def _check_target(job: Job, output: Path | None, record: str | None, *, dry_run: bool, force: bool) -> None:
    """Refuse what cannot be written before the work, not after it."""
    from compressnet import files
    from compressnet.compression import stored

    if dry_run:
        if output is not None or record or job.plan is not None:
            raise UsageError("--dry-run writes nothing: leave out -o, --record and --finetune")
        return
    if not job.is_stored:
        if output is not None:
            raise UsageError(
                f"{job.text}: a weights file describes networks of this project only: in Python, "
                "compressnet.compress(module, inputs, methods) returns the smaller one"
            )
        return
    if record and job.is_smoke:
        raise CompressnetError(f"{job.text} is a smoke run: its figures mean nothing and are not recorded")
    if output is None:
        if job.recipe is None:
            raise UsageError(f"{job.text}: there is no recipe for a run: name a file, -o NAME.safetensors")
    elif output.suffix == ".safetensors":
        if job.plan is not None:
            raise UsageError(f"-o {output}: --finetune makes a run: name its folder")
        for path in (output, stored.report_of(output)):
            files.refuse_to_overwrite(path, force)
    elif job.recipe is None:
        raise UsageError(f"{output}: name the weights file to write NAME.safetensors")
    elif output.exists():
        raise CompressnetError(f"{output} exists: choose another -o")


def _recipe(text: str | None) -> Recipe | None:
    """The recipe that `--recipe` names."""
    from compressnet.recipe import Recipe
    from compressnet.subject import parse

    if text is None:
        return None
    subject = parse(text, ("recipe",))
    if subject.kind != "recipe" or subject.path is None:
        raise UsageError(f"--recipe {text}: it is of kind {subject.kind}, no recipe")
    return Recipe.load(subject.path)
