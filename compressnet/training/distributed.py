"""The processes of one training: one or, under torchrun, several, on one machine or on many."""

from __future__ import annotations

import gc
import inspect
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from compressnet.errors import CompressnetError

T = TypeVar("T")
# gloo, nccl and the store, of a peer that is no more
_LOST = (
    "connection closed by peer",
    "connection reset by peer",
    "connection was likely closed",
    "pair closure",
    "broken pipe",
    "remote process exited",
    "remote process has terminated",
    "socket timeout",
    "ncclremoteerror",
)


class ProcessLost(CompressnetError):
    """Another process of the training has died."""


class Group:
    """All processes of the training; of size 1 where there is no torchrun.

    Attributes:
        rank: this process, from 0.
        world: how many there are.
        resume: what to type to go on, once the run is known.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world
        self.resume = "--resume RUN"

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def totals(self, values: list[float], device: torch.device) -> list[float]:
        """The elementwise sum over all processes, in one message."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def average_(self, tensor: Tensor) -> None:
        """Make a tensor the mean of all processes' tensors, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor /= self.world

    def from_main(self, value: T) -> T:
        """Rank 0's value, everywhere."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Everyone's value, by rank, everywhere."""
        if self.world == 1:
            return [value]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value)
        return box

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


def data_parallel(module: nn.Module) -> nn.Module:
    """The module with gradients averaged over all processes.

    Buffers stay each rank's own: they are made equal where it matters, before evaluating and saving.
    """
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    flag = (
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    )  # renamed in 2.13
    return DistributedDataParallel(module, **{flag: False})  # type: ignore[arg-type]


def local_rank() -> int:
    """Which process of this machine this is, as torchrun says."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def group(device: torch.device) -> Iterator[Group]:
    """The group that torchrun's environment describes: gloo on CPU, nccl on GPU."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Group()
        return
    # Targets of a large data set may take rank 0 hours to compute while the others wait.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1))
    processes = Group(dist.get_rank(), dist.get_world_size())
    try:
        yield processes
    except RuntimeError as error:
        if (lost := lost_process(error, processes)) is None:
            raise
        raise lost from error
    finally:
        # DistributedDataParallel sits in a reference cycle: it goes before the group that it speaks through.
        gc.collect()
        dist.destroy_process_group()


def lost_process(error: Exception, processes: Group) -> ProcessLost | None:
    """What to raise when another process of the training has died; None: `error` says something else.

    From here on SIGTERM is ignored: torchrun sends it to the others, and this one has to say why it ends.
    """
    text = " ".join(str(error).split())
    lost = isinstance(error, dist.DistNetworkError | dist.DistStoreError)
    if not lost and not any(words in text.lower() for words in _LOST):
        return None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    named = re.search(r"\brank (\d+)\b", text, re.IGNORECASE)
    which = f"process {named[1]}" if named and int(named[1]) != processes.rank else "another process"
    return ProcessLost(
        f"process {processes.rank} of {processes.world}: {which} of this training has died; its own lines "
        f"say why. What was saved is kept: go on with torchrun --nproc-per-node {processes.world} ... "
        f"{processes.resume}"
    )
