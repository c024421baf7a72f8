"""Batches of a split, read by this process or by workers: how these are started and ended, how they fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from compressnet.data.protocol import Key, Split
from compressnet.errors import CompressnetError
from compressnet.processes import ignore_signals, signals_held
from compressnet.recipe import Recipe
from compressnet.reporter import Reporter
from compressnet.training.advice import worker_failure


@contextmanager
def loading(
    split: Split, batches: Iterable[list[Key]], workers: int, device: torch.device, setting: str
) -> Iterator[Iterator[Any]]:
    """Yield the batches of keys as the split collates them, in their order. When it ends, no worker is left.

    Args:
        workers: processes that read ahead; 0: none but this one.
        setting: what the recipe calls their number, for messages.

    Raises:
        CompressnetError: a sample cannot be read, or a worker died.
    """
    others = set(multiprocessing.active_children())
    stream = _stream(split, batches, workers, device, setting)
    try:
        yield stream
    except BaseException as error:
        _kill(set(multiprocessing.active_children()) - others)
        if workers and isinstance(error, RuntimeError) and (line := worker_failure(error, workers, setting)):
            raise CompressnetError(line) from error
        raise
    finally:
        stream.close()
        _kill(set(multiprocessing.active_children()) - others)  # torch waits 5 s for each, and leaves it then


def warn_of_many_workers(recipe: Recipe, reporter: Reporter) -> None:
    """Say where a recipe asks for more workers than there are processors."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for setting, workers in (("train.workers", recipe.train.workers), ("eval.workers", recipe.eval.workers)):
        if workers > processors:
            reporter.note(
                "warning",
                f"{setting}={workers}, and this process may use {processors} processors: fewer are faster",
            )


def _stream(
    split: Split, batches: Iterable[list[Key]], workers: int, device: torch.device, setting: str
) -> Generator[Any, None, None]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # see warn_of_many_workers
            iterator = iter(_loader(split, batches, workers, device))
        for batch in iterator:
            if isinstance(batch, CompressnetError):
                raise batch
            yield batch
    except (OSError, EOFError) as error:  # semaphores lie in /dev/shm as well; a batch of a worker that died
        if not workers:
            raise
        raise CompressnetError(worker_failure(error, workers, setting) or str(error)) from error


def _loader(
    split: Split, batches: Iterable[list[Key]], workers: int, device: torch.device
) -> DataLoader[Any]:
    """Its private generator keeps it off the global random state."""
    return DataLoader(
        _Batches(split),  # type: ignore[arg-type]  # indexed by lists of keys
        sampler=batches,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        generator=torch.Generator(),
        pin_memory=device.type == "cuda",
        worker_init_fn=_begin if workers else None,
        multiprocessing_context=_Context() if workers else None,
    )


class _Batches:
    """A split, indexed by lists of keys.

    What a worker cannot read is handed over as its error: raised, it would arrive as a traceback. And tensors
    are put into shared memory here, where its lack is an error: later it would be a batch that never comes.
    """

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, keys: list[Key]) -> Any:
        if get_worker_info() is None:
            return self.split.collate([self.split[key] for key in keys])
        try:
            batch = self.split.collate([self.split[key] for key in keys])
        except CompressnetError as error:
            return error
        for value in batch:
            if isinstance(value, torch.Tensor):
                value.share_memory_()
        return batch


def _as_it_is(batch: Any) -> Any:
    return batch


class _Process(SpawnProcess):
    def start(self) -> None:
        with signals_held():
            super().start()


class _Context(SpawnContext):
    Process = _Process


def _begin(worker: int) -> None:
    """Batch systems and Ctrl-C signal the whole group: the parent decides, its workers live to the end."""
    ignore_signals(signal.SIGINT, signal.SIGTERM)


def _kill(workers: set[BaseProcess]) -> None:
    """End workers at once: one that starts or reads would let us wait. They write nothing but whole files."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None  # torch would call it a failure
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
    if main:
        signal.signal(signal.SIGCHLD, before)
