"""`compressnet bench`: how long networks take, compared honestly."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Optional

import typer

from compressnet.errors import CompressnetError, UsageError
from compressnet.files import is_stream, refuse_to_overwrite, write_bytes

from .. import console, options
from . import compare as comparing
from . import report as reporting
from . import run as running

if TYPE_CHECKING:
    from compressnet.analysis.bench import Plan

CPU_SETTINGS = ("auto", "torch")


Sides = Annotated[
    list[str],
    typer.Argument(
        metavar="A [vs B ...]",
        help="Models, layers, recipes, runs, weights files, zoo:NAME, operator:NAME, py:FILE.py:NAME.",
        autocompletion=options.complete_subject,
    ),
]
Mode = Annotated[
    str, typer.Option(help="forward, forward+backward, train-step (with Adam), stream-step; several as a,b.")
]
Backend = Annotated[
    str,
    typer.Option(
        help="eager, compile, onnxruntime, or what a network has itself (can24: strips, winograd; sru: "
        "reference, c; where `fold` applies: folded); several as a,b."
    ),
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16; several as a,b.")]
ThreadCounts = Annotated[Optional[str], typer.Option("--threads", metavar="N,all", help=options.THREADS_HELP)]
Batch = Annotated[int, typer.Option(min=1, help="Images or sequences per pass.")]
SeqLen = Annotated[Optional[int], typer.Option(min=1, help="Steps of sequences (default: 35).")]
ChannelsLast = Annotated[
    bool, typer.Option("--channels-last", help="Lay images out in memory channels last.")
]
CpuSettings = Annotated[
    str,
    typer.Option(
        metavar="auto,torch",
        help="auto: those that train uses; torch: defaults of torch and glibc; auto,torch compares the two.",
    ),
]
Rounds = Annotated[
    Optional[int],
    typer.Option(min=2, help="Passes of each network, at least (default: 10 to 200, about 2 seconds)."),
]
Processes = Annotated[int, typer.Option(min=1, help=options.PROCESSES_HELP)]
ClockName = Annotated[
    str, typer.Option(help="wall, or cpu: processor time, for machines that others use too.")
]
Memory = Annotated[
    bool, typer.Option("--memory/--no-memory", help="Measure peak memory, in a child process.")
]
Compare = Annotated[
    Optional[Path], typer.Option(metavar="OLD.json", help="Compare with what an earlier --json printed.")
]
Plot = Annotated[
    Optional[Path],
    typer.Option(metavar="OUT.png", help="Draw parameters, or the recorded metric, over time."),
]
Record = Annotated[
    Optional[str],
    typer.Option(metavar="NAME", help="Write results/NAME.json, which RESULTS.md is made from."),
]
Results = Annotated[Path, typer.Option(metavar="DIR", help="The folder of recorded results.")]


def bench(
    context: typer.Context,
    sides: Sides,
    set_: options.Overrides = None,
    mode: Mode = "forward",
    backend: Backend = "eager",
    dtype: Dtype = "float32",
    threads: ThreadCounts = None,
    batch: Batch = 1,
    input_size: options.InputSize = None,
    inputs: options.Inputs = None,
    seq_len: SeqLen = None,
    channels_last: ChannelsLast = False,
    device: options.Device = "auto",
    cpu_settings: CpuSettings = "auto",
    rounds: Rounds = None,
    processes: Processes = 3,
    clock: ClockName = "wall",
    memory: Memory = True,
    compare: Compare = None,
    plot: Plot = None,
    record: Record = None,
    results: Results = Path("results"),
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Time networks: warmed up, interleaved, in several processes, with an interval for every ratio.

    Images are 512x512 and sequences 35 steps unless you say otherwise. Gradients are those of the mean
    square of the outputs; for language models, of the mean loss.

    Example: compressnet bench can24 vs can32 --backend eager,strips --input-size 1920x1080
    """
    _check_targets(plot, record, results, force)
    old = comparing.read(compare) if compare else None
    plan = _plan(
        tuple(sides),
        options.parse_settings(set_),
        device,
        Cases(mode, backend, dtype, threads, cpu_settings),
        Sizes(batch, options.parse_size(input_size), seq_len, channels_last, tuple(inputs or ())),
    )
    _check_clock(clock, plan)
    if record is not None:
        _check_no_smoke(plan)
    if compare and old:
        comparing.check_comparable(old, plan, compare)
    how = running.How(rounds, processes, "cpu" if clock == "cpu" else "wall", memory)
    report = running.run(plan, how)
    if compare and old:
        report["compared_with"] = comparing.against(old, report, compare)
    _show(report, json)  # first: no failure to write may cost the figures
    if record is not None:
        from compressnet.results.speed import write_record

        command = options.command_line(context)
        console.note(f"recorded: {write_record(results, record, report, command, overwrite=force)}")
    if plot is not None:
        write_bytes(plot, reporting.draw(plan, report), replace=force)


def _show(report: Mapping[str, Any], json: bool) -> None:
    if json:
        console.print_json(report)
    else:
        reporting.show(report)
        if "compared_with" in report:
            comparing.show(report["compared_with"])
    for text in report["warnings"]:
        console.note(f"warning: {text}")


class Cases(NamedTuple):
    """What is measured of every side: lists as they were typed."""

    mode: str
    backend: str
    dtype: str
    threads: str | None
    cpu_settings: str


class Sizes(NamedTuple):
    """Inputs of a pass."""

    batch: int
    input_size: int | tuple[int, int] | None
    seq_len: int | None
    channels_last: bool
    inputs: tuple[str, ...]


def _plan(words: tuple[str, ...], settings: dict[str, Any], device: str, cases: Cases, sizes: Sizes) -> Plan:
    """What was typed as a plan; the order of cases is that of the tables."""
    from compressnet.analysis.bench import Case, Plan
    from compressnet.side import read_sides
    from compressnet.training import device as devices

    sides = read_sides(words, settings, sizes.inputs)
    for side in sides:
        options.note_assumed(side.text, side.assumed())
    chosen = devices.choose(device)
    dimensions = (
        _thread_counts(cases.threads, chosen.type),
        _list("--mode", cases.mode),
        range(len(sides)),
        _list("--backend", cases.backend),
        _list("--dtype", cases.dtype),
        _choices("--cpu-settings", cases.cpu_settings, CPU_SETTINGS),
    )
    rows = tuple(
        Case(side=s, mode=m, backend=b, dtype=d, threads=t, cpu=c)
        for t, m, s, b, d, c in product(*dimensions)
    )
    size = sizes.input_size
    return Plan(
        words,
        rows,
        settings,
        batch=sizes.batch,
        image_size=(size, size) if isinstance(size, int) else size,
        seq_len=sizes.seq_len or (size if isinstance(size, int) else None),
        channels_last=sizes.channels_last,
        device=str(chosen),
        inputs=sizes.inputs,
    )


def _check_clock(clock: str, plan: Plan) -> None:
    if clock not in ("wall", "cpu"):
        raise UsageError(f"--clock {clock}: choose from wall, cpu")
    if clock == "cpu" and (len({case.cpu for case in plan.cases}) > 1 or plan.device != "cpu"):
        raise UsageError("--clock cpu: it is the time of one process, on the CPU")


def _check_targets(plot: Path | None, record: str | None, results: Path, force: bool) -> None:
    """What would fail after the work fails before it."""
    if plot is not None:
        _check_picture(plot, force)
    if record is not None:
        from compressnet.results.records import record_path

        record_path(results, record, overwrite=force)


def _check_no_smoke(plan: Plan) -> None:
    for side in plan.sides():
        if side.is_stored and side.architecture().smoke:
            raise CompressnetError(f"{side.text} is a smoke run: nothing of it is recorded")


def _check_picture(path: Path, force: bool) -> None:
    if path.suffix.lower() != ".png" and not is_stream(path):
        raise UsageError(f"--plot {path}: a picture ends in .png")
    refuse_to_overwrite(path, force)
    if importlib.util.find_spec("matplotlib") is None:
        raise CompressnetError("--plot: pictures are drawn with matplotlib, which is not installed")
    if not path.absolute().parent.is_dir():
        raise CompressnetError(f"--plot {path}: there is no folder {path.parent}")


def _thread_counts(typed: str | None, kind: str) -> list[int]:
    """`1,all` as numbers; on a GPU one is enough, for it makes no difference there."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if typed is None:
        typed = "1,all" if kind == "cpu" else "all"
    counts = []
    for word in _list("--threads", typed):
        if word != "all" and not (word.isdecimal() and int(word) > 0):
            raise UsageError(f"--threads {word}: write a number or all, as in --threads 1,all")
        counts.append(there if word == "all" else int(word))
    return list(dict.fromkeys(counts))


def _list(flag: str, typed: str) -> list[str]:
    """`a,b` as a list without repetitions."""
    words = [word.strip() for word in typed.split(",")]
    if not all(words):
        raise UsageError(f"{flag} {typed}: write a list as a,b")
    return list(dict.fromkeys(words))


def _choices(flag: str, typed: str, known: Sequence[str]) -> list[str]:
    words = _list(flag, typed)
    for word in words:
        if word not in known:
            raise UsageError(f"{flag} {word}: choose from {', '.join(known)}")
    return words
