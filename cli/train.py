"""`compressnet train`: from a recipe to a run."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from compressnet.errors import CompressnetError, UsageError

from . import console, options

if TYPE_CHECKING:
    from compressnet.recipe import Recipe
    from compressnet.run import Run
    from compressnet.training.distributed import Group
    from compressnet.training.train import Outcome


def train(
    recipe: Annotated[
        Optional[str], typer.Argument(metavar="[RECIPE]", help="A recipe file, or the name of a shipped one.")
    ] = None,
    set_: options.Overrides = None,
    resume: Annotated[
        Optional[str],
        typer.Option(
            metavar="RUN|auto",
            help="Continue a run (RUN@step-<n>: from there); auto: the newest unfinished one, if any.",
        ),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Train a few steps on built-in samples, to see that it runs.")
    ] = False,
    output: options.Output = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = "auto",
    threads: options.Threads = None,
    data_root: options.DataRoot = None,
    cache: options.CacheDir = None,
    json: options.Json = False,
) -> None:
    """Train a recipe. On several GPUs: torchrun --nproc-per-node N -m compressnet_cli train RECIPE.

    Example: compressnet train fip_sample --set train.steps=500
    """
    if recipe is None and (resume is None or resume == "auto"):
        raise UsageError("name a recipe to start or, with --resume RUN, a run to continue")
    from compressnet.training import device as devices
    from compressnet.training.distributed import group, local_rank

    chosen = devices.choose(device, local_rank())
    with group(chosen) as processes:
        absent = _absent(output.parent if output else runs)
        opened = _open_everywhere(processes, recipe, set_ or [], resume, smoke, output, runs)
        trained = opened.facts.get("total_steps", 0)
        finished = opened.facts["status"] == "done" and _wanted_steps(opened) <= trained
        if finished and opened.start is None:
            _report_finished(opened, json)
            return
        options.look_where(opened)
        processes.resume = f"train --resume {opened.folder}"
        _apply_threads(opened, threads)
        if device == "auto":
            console.note(f"device: {devices.name(chosen)}")
        if opened.recipe.is_smoke:
            console.note("smoke run: a few steps on built-in samples; its weights are marked, and of no use")
        console.note(f"run: {opened.folder}")
        if opened.start is not None:
            console.note(f"going on from {opened.start}: later checkpoints are replaced as they are reached")
        try:
            outcome = _train_locked(opened, processes, chosen)
        finally:
            _remove_empty(absent)  # a run that was never begun leaves nothing, `runs` included
        _report(opened, outcome, json)


def _absent(folder: Path) -> list[Path]:
    """It and what it lies in, as far as they are not there; the innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _open_everywhere(
    processes: Group,
    recipe: str | None,
    overrides: list[str],
    resume: str | None,
    smoke: bool,
    folder: Path | None,
    runs: Path,
) -> Run:
    """Create or open the run on rank 0; every rank opens the same one, or fails with the same error."""
    from compressnet.run import Run

    answer: Run | CompressnetError | None = None
    if processes.is_main:
        try:
            answer = _open(recipe, overrides, resume, smoke, folder, runs)
        except CompressnetError as error:
            answer = error
    failure = answer if isinstance(answer, CompressnetError) else None
    place = (str(answer.folder), answer.start) if isinstance(answer, Run) else None
    place, failed = processes.from_main((place, failure is not None))
    if failure is not None:
        raise failure
    if failed or place is None:
        raise SystemExit(1)  # rank 0 tells why
    return answer if isinstance(answer, Run) else Run.open(Path(place[0]), place[1])


def _open(
    recipe: str | None, overrides: list[str], resume: str | None, smoke: bool, folder: Path | None, runs: Path
) -> Run:
    from compressnet.run import Run, find_unfinished

    if resume is not None and resume != "auto":
        if folder:
            raise UsageError("--resume continues the run where it is: leave -o away")
        opened = Run.open(*_run_and_start(resume))
        opened.check_trains()
        if recipe is None:
            opened.change(overrides)
        else:
            opened.require(_load(recipe, overrides, smoke))
        return opened
    assert recipe is not None
    loaded = _load(recipe, overrides, smoke)
    if resume == "auto" and (unfinished := find_unfinished(runs, loaded, folder)):
        return unfinished
    return Run.create(loaded, runs, folder)


def _run_and_start(text: str) -> tuple[Path, str | None]:
    """`RUN` or `RUN@step-<n>`: the folder, and the checkpoint to resume from."""
    folder, at, start = text.rpartition("@")
    if not at or Path(text).exists():
        return Path(text), None
    if start in ("last", "best"):
        from compressnet.run import Run

        start = Run.open(Path(folder)).checkpoint(start).name
    return Path(folder), start


def _load(text: str, overrides: list[str], smoke: bool) -> Recipe:
    from compressnet.recipe import Recipe
    from compressnet.subject import parse

    subject = parse(text, ("recipe",))
    if subject.kind != "recipe" or subject.path is None:
        raise UsageError(f"'{text}' is of kind {subject.kind}: train takes a recipe (or --resume RUN)")
    return Recipe.load(subject.path, overrides, smoke=smoke)


def _wanted_steps(opened: Run) -> int:
    return opened.recipe.train.steps or int(opened.facts.get("total_steps", 0))


def _apply_threads(opened: Run, threads: int | None) -> None:
    """A resumed run sums in the order it began with, unless told otherwise."""
    import torch

    wanted = threads or opened.facts.get("threads")
    if wanted:
        torch.set_num_threads(int(wanted))


def _apply_cpu_settings(opened: Run, processes: Group, device: Any) -> None:
    """A resumed run computes as it began, whatever would be decided by now."""
    from compressnet.training import cpu_settings

    cpu_settings.apply(cpu_settings.of_run(opened, processes, device))


def _train_locked(opened: Run, processes: Group, device: Any) -> Outcome:
    from contextlib import nullcontext

    from compressnet.training.train import train as train_run

    screen = console.Screen()
    command = (
        ["compressnet", *sys.argv[1:]] if "RANK" not in os.environ else ["torchrun", "...", *sys.argv[1:]]
    )
    with opened.lock(screen) if processes.is_main else nullcontext():
        try:
            _apply_cpu_settings(opened, processes, device)
            return train_run(opened, device=device, reporter=screen, group=processes, command=command)
        finally:
            screen.close()
            if processes.is_main:
                opened.discard_if_never_started()


def _report_finished(opened: Run, json: bool) -> None:
    facts = opened.facts
    if json:
        console.print_json({"run": str(opened.folder), "already_finished": True, **facts})
    else:
        console.print_text(f"{opened.folder} is finished ({facts.get('step', 'all')} steps); nothing to do")


def _split(opened: Run) -> str:
    """What `eval` needs to be told where the data set has no test split."""
    from compressnet.data.protocol import NoSuchSplit

    data_set = opened.recipe.data.build()
    try:
        data_set.open(data_set.test_split, {}, opened.recipe.seed)
    except NoSuchSplit:
        return " --split val"
    except CompressnetError:  # `eval` will say it
        pass
    return ""


def _report(opened: Run, outcome: Outcome, json: bool) -> None:
    facts = opened.facts
    result = {
        "run": str(outcome.run),
        "smoke": opened.recipe.is_smoke,
        "steps": outcome.step,
        "seconds": round(outcome.seconds, 1),
        "best": outcome.best,
        "digest": outcome.digest,
        "ranks": outcome.ranks,
    }
    if json:
        console.print_json(result)
        return
    mark = " (smoke run)" if opened.recipe.is_smoke else ""
    rows = [("steps", outcome.step), ("training time", f"{outcome.seconds:.0f} s on {facts['device']}")]
    if outcome.best is not None:
        rows.append((f"best {outcome.metric.replace('_', ' ')} on validation data", outcome.best))
    several = len(outcome.ranks) > 1
    rows += [
        (f"digest, rank {rank}" if several else "digest", digest[:16])
        for rank, digest in enumerate(outcome.ranks)
    ]
    console.print_table(f"{outcome.run}{mark}", ["trained", ""], rows)
    console.print_text(f"evaluate: compressnet eval {outcome.run}{_split(opened)}")
