"""The measuring of `compressnet bench`: groups of cases, run in this process or in children."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from compressnet.errors import UsageError

from . import bench_report, console
from .bench_worker import Worker

if TYPE_CHECKING:
    from compressnet.analysis.bench import Facts, Plan, Prepared
    from compressnet.analysis.rounds import Effort
    from compressnet.analysis.timing import Clock
    from compressnet.training.cpu_settings import Settings

Sampler = Callable[[], float]


class Runner(Protocol):
    """Runs cases by their number."""

    def facts(self, number: int) -> Facts: ...

    def sampler(self, number: int) -> Sampler: ...


class Here:
    """Runs cases in this process."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self.plan, self.clock = plan, clock
        self.ready: dict[int, Prepared] = {}

    def facts(self, number: int) -> Facts:
        return self._prepared(number).facts

    def sampler(self, number: int) -> Sampler:
        from compressnet.analysis.timing import sampler

        return sampler(self._prepared(number).form, self.plan.device, self.clock)

    def _prepared(self, number: int) -> Prepared:
        from compressnet.analysis.bench import prepare

        if number not in self.ready:
            self.ready[number] = prepare(self.plan, self.plan.cases[number])
        return self.ready[number]


def run(plan: Plan, *, rounds: int | None, clock: Clock, memory: bool) -> dict[str, Any]:
    """Measure a plan: the document that `--json` prints.

    Raises:
        UsageError: a case that its side cannot run.
        CompressnetError: files are missing, a measuring process died, no compiler.
    """
    from compressnet.analysis import machine
    from compressnet.analysis.rounds import Effort
    from compressnet.analysis.timing import interleave

    settings = _cpu_settings(plan)
    effort = Effort(rounds=rounds)
    screen = console.Screen()
    groups = list(_groups(plan))
    compared: list[bench_report.Compared] = []
    try:
        with ExitStack() as stack:
            runners = _runners(plan, settings, clock, stack)
            facts = {n: runners[case.cpu].facts(n) for n, case in enumerate(plan.cases)}
            _check_sizes(plan, {fact.unit for fact in facts.values()})
            peaks = _peaks(plan, screen) if memory else {}
            for numbers in groups:
                names = bench_report.names(plan, numbers)
                samplers = {names[n]: runners[plan.cases[n].cpu].sampler(n) for n in numbers}
                screen.stage(bench_report.title(plan, numbers), _passes(effort, len(numbers)), "passes")
                timed = interleave(_shown(samplers, screen), effort, clock)
                compared.append(bench_report.Compared(numbers, names, timed))
    finally:
        screen.close()
    used = {name: settings[name].as_dict() for name in dict.fromkeys(case.cpu for case in plan.cases)}
    return bench_report.document(plan, machine.facts(plan.device), used, facts, peaks, compared)


def _runners(
    plan: Plan, settings: Mapping[str, Settings], clock: Clock, stack: ExitStack
) -> dict[str, Runner]:
    """What runs the cases of each kind of CPU settings: they are process-wide, so two need two processes."""
    from compressnet.training import cpu_settings

    used = list(dict.fromkeys(case.cpu for case in plan.cases))
    if len(used) == 1:
        cpu_settings.apply(settings[used[0]])
        return {used[0]: Here(plan, clock)}
    return {name: stack.enter_context(Worker(plan, settings[name].as_dict())) for name in used}


def _cpu_settings(plan: Plan) -> dict[str, Settings]:
    """What `auto` and `torch` mean here; where a GPU computes, the CPU stays as it is."""
    from compressnet.training import cpu_settings

    on_cpu = plan.device == "cpu"
    return {"auto": cpu_settings.decide() if on_cpu else cpu_settings.TORCH, "torch": cpu_settings.TORCH}


def _peaks(plan: Plan, screen: console.Screen) -> dict[int, int | None]:
    """Peak memory of each case in bytes; threads and CPU settings do not change what it needs."""
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
    """A size that is meant for no side is a mistake."""
    if plan.image_size and not plan.seq_len and "megapixel" not in units:
        raise UsageError("--input-size WxH: no side takes images; sequences are as long as --seq-len says")
    if plan.seq_len and not plan.image_size and units == {"megapixel"}:
        raise UsageError("--seq-len: no side takes sequences; images are as large as --input-size says")


def _passes(effort: Effort, forms: int) -> int:
    """How many passes there may be at most, warm-up included, about."""
    return forms * (effort.warmup_rounds + (effort.rounds or effort.max_rounds))


def _shown(samplers: Mapping[str, Sampler], screen: console.Screen) -> dict[str, Sampler]:
    """The samplers, each call a step of the progress bar."""

    def shown(sampler: Sampler) -> Sampler:
        def sample() -> float:
            seconds = sampler()
            screen.advance(1)
            return seconds

        return sample

    return {name: shown(sampler) for name, sampler in samplers.items()}
