"""Computes operator targets before they are needed, by several processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from compressnet.data.cache import Cache
from compressnet.data.targets import Targets
from compressnet.errors import CompressnetError
from compressnet.processes import ignore_signals, signals_held
from compressnet.reporter import Reporter

Job = tuple[Path, list[int]]  # a photograph and the short sides at which its targets are wanted
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def prepare_targets(targets: Targets, jobs: list[Job], processes: int, reporter: Reporter) -> int:
    """Fill the cache. What is there already is skipped, so an interrupted call goes on where it was.

    Args:
        processes: how many photographs at once, each on one thread.

    Returns:
        how many targets were computed.

    Raises:
        CompressnetError: a photograph cannot be read, the cache cannot be written, a worker was killed.
    """
    missing = []
    for path, sides in jobs:
        if wanted := [side for side in sides if not targets.has(path, side)]:
            missing.append((path, wanted))
    total = sum(len(sides) for _, sides in missing)
    if not missing:
        return 0
    reporter.stage("operator targets", total, "targets")
    if min(processes, len(missing)) == 1:
        for path, sides in missing:
            targets.fill(path, sides)
            reporter.advance(len(sides))
    else:
        _in_processes(targets, missing, min(processes, len(missing)), reporter)
    return total


def _in_processes(targets: Targets, jobs: list[Job], processes: int, reporter: Reporter) -> None:
    context = multiprocessing.get_context("spawn")  # a fork after torch has started threads may hang
    others = set(multiprocessing.active_children())
    arguments = (targets.operator_text, targets.cache.folder)
    with ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=arguments) as pool:
        try:
            with _one_thread_each(), signals_held():
                pending: dict[Future[None], int] = {
                    pool.submit(_work, path, sides): len(sides) for path, sides in jobs
                }
            for done in as_completed(pending):
                done.result()
                reporter.advance(pending[done])
        except BrokenProcessPool:
            raise CompressnetError(
                "a process that computes operator targets was killed (out of memory?): "
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


def _start_worker(operator_text: str | None, folder: Path) -> None:
    global _targets
    ignore_signals(signal.SIGINT)  # Ctrl-C reaches the whole group; the parent decides
    _targets = Targets(operator_text, Cache(folder))
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that is killed outright would leave its pool waiting for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _work(path: Path, sides: list[int]) -> None:
    _targets.fill(path, sides)
