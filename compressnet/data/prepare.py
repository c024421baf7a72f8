"""Computes all the operator targets of a split before they are needed, by several processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from compressnet.data.cache import Cache
from compressnet.data.photographs import Targets
from compressnet.errors import CompressnetError
from compressnet.reporter import Reporter
from compressnet.subject import make_operator

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def compute_missing(
    targets: Targets, wanted: Sequence[tuple[Path, int]], processes: int, reporter: Reporter
) -> int:
    """Fill the cache with the pairs of `wanted`: photographs, each with a short side.

    Whatever is there already is skipped, so an interrupted call goes on where it was. Workers compute one
    photograph at one size at a time, on one thread each.

    Args:
        processes: how many at once.

    Returns:
        how many pairs were computed.

    Raises:
        CompressnetError: a photograph cannot be read, the cache cannot be written, a worker was killed.
    """
    jobs = [(path, side) for path, side in wanted if not targets.has(path, side)]
    if not jobs:
        return 0
    processes = min(processes, len(jobs))
    reporter.stage("operator targets", len(jobs), "targets")
    if processes == 1:
        for path, side in jobs:
            targets.get(path, side)
            reporter.advance(1)
    else:
        _in_processes(targets, jobs, processes, reporter)
    return len(jobs)


def _in_processes(targets: Targets, jobs: list[tuple[Path, int]], processes: int, reporter: Reporter) -> None:
    context = multiprocessing.get_context("spawn")  # a fork after torch has started threads may hang
    with ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(targets.operator_text, targets.cache.folder)) as pool:
        try:
            with _one_thread_each():
                pending: list[Future[None]] = [pool.submit(_work, path, side) for path, side in jobs]
            for done in as_completed(pending):
                done.result()
                reporter.advance(1)
        except BrokenProcessPool:
            raise CompressnetError(
                "a worker that computes operator targets was killed (out of memory?); "
                "what is finished is kept: start again with fewer processes"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
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


_targets: Targets  # a worker's own, set when it starts


def _start_worker(operator_text: str, cache_folder: Path) -> None:
    global _targets
    _targets = Targets(operator_text, make_operator(operator_text), Cache(cache_folder))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that is killed outright leaves its pool waiting for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _work(path: Path, side: int) -> None:
    _targets.get(path, side)
