"""The measuring of `compressnet bench`: processes, one after the other, that time groups of cases."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from compressnet.errors import UsageError

from .. import console
from . import report as reporting
from .worker import Worker

if TYPE_CHECKING:
    from compressnet.analysis.bench import Facts, Plan
    from compressnet.analysis.rounds import Effort
    from compressnet.analysis.timing import Clock, Comparison
    from compressnet.training.cpu_settings import Settings


@dataclass(frozen=True)
class How:
    """How to measure.

    Attributes:
        rounds: passes of each case in all; None: as long as is usual.
        processes: measure in so many, one after the other; 1: in this one.
        memory: measure peak memory too.
    """

    rounds: int | None
    processes: int
    clock: Clock
    memory: bool


class Measuring(Protocol):
    """What can time cases, by their numbers in the plan: `analysis.bench.Session`, or `Children`."""

    def facts(self, number: int) -> Facts: ...

    def compare(self, names: Mapping[int, str], effort: Effort, clock: Clock) -> Comparison: ...


class Children:
    """Times cases in a child process for each kind of CPU settings: they are process-wide."""

    def __init__(self, plan: Plan, workers: Mapping[str, Worker]) -> None:
        self.plan, self.workers = plan, workers

    def facts(self, number: int) -> Facts:
        return self._of(number).facts(number)

    def compare(self, names: Mapping[int, str], effort: Effort, clock: Clock) -> Comparison:
        from compressnet.analysis.timing import interleave

        if len(self.workers) == 1:
            return next(iter(self.workers.values())).compare(names, effort, clock)
        samplers = {name: self._of(number).sampler(number) for number, name in names.items()}
        return interleave(samplers, effort, clock)

    def _of(self, number: int) -> Worker:
        return self.workers[self.plan.cases[number].cpu]


@contextmanager
def _sigterm_ends_in_order() -> Iterator[None]:
    """So that no child measures on for nobody."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_sigterm_ends_in_order()
def run(plan: Plan, how: How) -> dict[str, Any]:
    """Measure a plan: the document that `--json` prints.

    Raises:
        UsageError: a case that its side cannot run.
        CompressnetError: files are missing, a measuring process died, no compiler.
    """
    from compressnet.analysis import machine
    from compressnet.analysis.rounds import Effort
    from compressnet.analysis.timing import pooled

    settings = _cpu_settings(plan)
    effort = Effort(rounds=how.rounds).shared(how.processes)
    groups = {tuple(numbers): reporting.names(plan, numbers) for numbers in _groups(plan)}
    timed: dict[tuple[int, ...], list[Comparison]] = {numbers: [] for numbers in groups}
    screen = console.Screen()
    peaks: dict[int, int | None] = {}
    try:
        screen.stage("timing", how.processes * len(groups), "groups")
        for process in range(how.processes):
            with _session(plan, settings, how) as session:
                if process == 0:
                    facts = {number: session.facts(number) for number in range(len(plan.cases))}
                    _check_sizes(plan, {fact.unit for fact in facts.values()})
                for numbers, names in groups.items():
                    timed[numbers].append(session.compare(names, effort, how.clock))
                    screen.advance(1)
        if how.memory:
            peaks = _peaks(plan, screen)
    finally:
        screen.close()
    compared = [reporting.Compared(n, names, pooled(timed[n])) for n, names in groups.items()]
    return reporting.document(
        plan,
        machine.facts(plan.device),
        cpu={name: settings[name].as_dict() for name in _used(plan)},
        probe=_matmul_probe(plan),
        processes=how.processes,
        facts=facts,
        peaks=peaks,
        compared=compared,
    )


@contextmanager
def _session(plan: Plan, settings: Mapping[str, Settings], how: How) -> Iterator[Measuring]:
    from compressnet.analysis.bench import Session
    from compressnet.training import cpu_settings

    used = _used(plan)
    if how.processes == 1 and len(used) == 1:
        cpu_settings.apply(settings[used[0]])
        yield Session(plan)
        return
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(plan, settings[name].as_dict())) for name in used}
        yield Children(plan, workers)


def _used(plan: Plan) -> list[str]:
    """The kinds of CPU settings that occur."""
    return list(dict.fromkeys(case.cpu for case in plan.cases))


def _cpu_settings(plan: Plan) -> dict[str, Settings]:
    """What `auto` and `torch` mean here; where a GPU computes, the CPU stays as it is.

    A run or recipe that asks for exact products has them, and with it what it is compared with.
    """
    from compressnet.training import cpu_settings

    if plan.device != "cpu":
        return dict.fromkeys(("auto", "torch"), cpu_settings.TORCH)
    wishes = {side.cpu_matmul for side in plan.sides()}
    wanted = next((wish for wish in ("exact", "fast") if wish in wishes), "auto")
    return {"auto": cpu_settings.decide(wanted), "torch": cpu_settings.TORCH}  # type: ignore[arg-type]


def _matmul_probe(plan: Plan) -> dict[str, float] | None:
    """What the choice of float32 products on this CPU rests on, where there is a choice."""
    from compressnet.training import cpu_settings

    if plan.device != "cpu" or not cpu_settings.can_choose():
        return None
    return asdict(cpu_settings.measured())


def _peaks(plan: Plan, screen: console.Screen) -> dict[int, int | None]:
    """Peak memory of each case in bytes; CPU settings are left out, threads hardly change what it needs."""
    from compressnet.analysis.memory import CHILD_ENVIRONMENT

    alike: dict[Any, list[int]] = {}
    for number, case in enumerate(plan.cases):
        alike.setdefault((case.side, case.mode, case.backend, case.dtype), []).append(number)
    peaks: dict[int, int | None] = {}
    screen.stage("peak memory", len(alike), "cases")
    with Worker(plan, None, CHILD_ENVIRONMENT) as worker:
        for numbers in alike.values():
            peak = worker.peak(numbers[-1])
            peaks |= dict.fromkeys(numbers, peak)
            screen.advance(1)
    return peaks


def _groups(plan: Plan) -> Iterator[list[int]]:
    """Numbers of the cases that are compared with each other: same threads, same mode."""
    keyed = groupby(range(len(plan.cases)), key=lambda n: (plan.cases[n].threads, plan.cases[n].mode))
    for _, numbers in keyed:
        yield list(numbers)


def _check_sizes(plan: Plan, units: set[str]) -> None:
    """Sides that take different things cannot be compared; a size that is meant for no side is a mistake."""
    if len(units) > 1:
        kinds = " and ".join(f"{unit}s" for unit in sorted(units))
        raise UsageError(f"bench compares sides that take the same; these take {kinds}")
    number = plan.image_size[0] if plan.image_size and len(set(plan.image_size)) == 1 else None
    if units == {"megapixel"} and plan.seq_len not in (None, number):
        raise UsageError("--seq-len: no side takes sequences; images are as large as --input-size says")
    if units != {"megapixel"} and plan.image_size and number != plan.seq_len:
        raise UsageError("--input-size WxH: no side takes images; sequences are as long as --seq-len says")
    if plan.seq_len and all(case.mode == "stream-step" for case in plan.cases):
        raise UsageError("--seq-len: a stream step is one step long")
