"""Work on many photographs before training needs them: operator targets, and whether each can be decoded."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressnet.data.cache import Cache
from compressnet.data.images import read_image
from compressnet.data.targets import Targets
from compressnet.errors import CompressnetError
from compressnet.processes import ignore_signals, signals_held
from compressnet.reporter import Reporter

# An operator (None: the photograph alone), a photograph, and the short sides at which its targets are wanted.
Job = tuple[str | None, Path, list[int]]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_FEW = 16  # files that are decoded before other processes would have started


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_targets(targets: Targets, jobs: Sequence[Job], processes: int, reporter: Reporter) -> int:
    """Fill the cache. What is there already is skipped, so an interrupted call goes on where it was.

    Args:
        targets: of any operator, in the cache.
        processes: how many photographs at once, each on one thread.

    Returns:
        how many targets were computed.

    Raises:
        BadFiles: a photograph cannot be read.
        CompressnetError: the cache cannot be written, a worker was killed.
    """
    missing: list[Job] = []
    for operator, path, sides in jobs:
        if wanted := [side for side in sides if not targets.by(operator).has(path, side)]:
            missing.append((operator, path, wanted))
    total = sum(len(sides) for _, _, sides in missing)
    if not missing:
        return 0
    alone = all(operator is None for operator, _, _ in missing)
    reporter.stage("photographs" if alone else "operator targets", total, "sizes" if alone else "targets")
    if min(processes, len(missing)) == 1:
        for operator, path, sides in missing:
            targets.by(operator).fill(path, sides)
            reporter.advance(len(sides))
    else:
        doing = "decodes photographs" if alone else "computes operator targets"
        setup = (_targets_in_worker, (targets.cache.folder,))
        for place, _ in _in_processes(_fill, missing, min(processes, len(missing)), doing, setup):
            reporter.advance(len(missing[place][2]))
    return total


def undecodable(paths: Sequence[Path], reporter: Reporter, processes: int | None = None) -> list[str]:
    """One line for each file that cannot be decoded as training will decode it, in the order of `paths`.

    Args:
        processes: how many files at once (default: one a processor).
    """
    if not paths:
        return []
    reporter.stage("decoding", len(paths), "files")
    found = each(_problem, [(path,) for path in paths], processes, reporter, "decodes pictures")
    return [problem for problem in found if problem is not None]


def each(
    work: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    processes: int | None,
    reporter: Reporter,
    doing: str,
) -> list[Any]:
    """What `work`, a function of a module, makes of each job, in their order.

    Args:
        processes: how many jobs at once (default: one a processor).
        reporter: in a stage of as many units as there are jobs.
        doing: for the message when a process is killed, as in "decodes pictures".
    """
    processes = min(processes or processors(), 1 + (len(jobs) - 1) // _FEW)
    found: list[Any] = [None] * len(jobs)
    if processes <= 1:
        for place, job in enumerate(jobs):
            found[place] = work(*job)
            reporter.advance()
    else:
        for place, result in _in_processes(work, jobs, processes, doing):
            found[place] = result
            reporter.advance()
    return found


def _problem(path: Path) -> str | None:
    try:
        read_image(path, srgb=True)
    except CompressnetError as error:
        return str(error)
    return None


def _in_processes(
    work: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    processes: int,
    doing: str,
    setup: tuple[Callable[..., None], tuple[Any, ...]] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (position, result) of each job as it is done, by new processes of one thread each.

    Args:
        doing: what they do, for the message when one is killed.
        setup: called in each process first, with its arguments.
    """
    context = multiprocessing.get_context("spawn")  # a fork after torch has started threads may hang
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(setup,)) as pool:
        try:
            with _one_thread_each(), signals_held():
                pending: dict[Future[Any], int] = {
                    pool.submit(work, *job): place for place, job in enumerate(jobs)
                }
            for done in as_completed(pending):
                yield pending[done], done.result()
        except BrokenProcessPool:
            raise CompressnetError(
                f"a process that {doing} was killed (out of memory?): "
                "what is finished is kept, so start again, on fewer processors if need be (taskset -c 0)"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()  # a large photograph may take a minute, and nothing half-written is lost
            raise


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers inherit the environment when they start, and libraries read it once, at import."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_targets: Targets  # a worker's own, made when it starts


def _start_worker(setup: tuple[Callable[..., None], tuple[Any, ...]] | None) -> None:
    ignore_signals(signal.SIGINT)  # Ctrl-C reaches the whole group; the parent decides
    if setup is not None:
        setup[0](*setup[1])
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _targets_in_worker(folder: Path) -> None:
    global _targets
    _targets = Targets(None, Cache(folder))


def _die_with_parent() -> None:
    """A parent that is killed outright would leave its pool waiting for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _fill(operator: str | None, path: Path, sides: list[int]) -> None:
    _targets.by(operator).fill(path, sides)
