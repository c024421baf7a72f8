"""Workers that fail, and processes that die: one line each."""

from __future__ import annotations

import copy
import errno
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from compressnet.data.protocol import Key
from compressnet.errors import CompressnetError, RecipeError
from compressnet.training import distributed
from compressnet.training.advice import worker_failure
from compressnet.training.distributed import Group, lost_process
from compressnet.training.loader import loading


class Batch(NamedTuple):
    values: Tensor


class Numbers:
    """A split: sample n is n, `size` times; the sample `bad` cannot be read, `deadly` ends its process."""

    def __init__(self, size: int = 1, bad: int = -1, deadly: int = -1) -> None:
        self.size, self.bad, self.deadly = size, bad, deadly

    def __getitem__(self, key: Key) -> Tensor:
        if key.index == self.bad:
            raise CompressnetError(f"{key.index}.png: damaged", "and so on")
        if key.index == self.deadly:
            os._exit(3)
        return torch.full((self.size,), float(key.index))

    def collate(self, samples: list[Tensor]) -> Batch:
        return Batch(torch.stack(samples))


KEYS = [[Key(0, n, n), Key(0, n + 1, n + 1)] for n in range(0, 8, 2)]


def read(split: Numbers, workers: int) -> Iterator[list[float]]:
    with loading(split, KEYS, workers, torch.device("cpu"), "train.workers") as batches:  # type: ignore[arg-type]
        for batch in batches:
            yield batch.values[:, 0].tolist()


def test_batches_come_in_order_and_errors_as_they_are() -> None:
    for workers in (0, 1):
        assert list(read(Numbers(), workers)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
        with pytest.raises(CompressnetError) as told:
            list(read(Numbers(bad=5), workers))
        assert told.value.problems == ["5.png: damaged", "and so on"]
    with pytest.raises(
        CompressnetError, match=r"train\.workers=1: a worker .* has died .*--set train\.workers=0"
    ):
        list(read(Numbers(deadly=4), 1))
    assert multiprocessing.active_children() == []


def test_an_end_in_the_middle_leaves_no_worker() -> None:
    def stop_at_once() -> None:
        with loading(Numbers(), KEYS, 1, torch.device("cpu"), "x") as batches:  # type: ignore[arg-type]
            next(batches)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_at_once()
    assert multiprocessing.active_children() == []


SCRIPT = """
import torch
from tests.training.test_loader import Numbers, read
if __name__ == "__main__":
    print(list(read(Numbers(size=100_000), 0)))
    try:
        list(read(Numbers(size=100_000), 1))
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("filled", [False, True])
def test_a_full_shared_memory_is_one_line_and_no_hang(tmp_path: Path, filled: bool) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    fill = "dd if=/dev/zero of=/dev/shm/fill 2>/dev/null;" if filled else ""
    mounted = f"mount -t tmpfs -o size=200k tmpfs /dev/shm || exit 77; {fill} exec {sys.executable} script.py"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = ["unshare", "-m", "bash", "-c", mounted]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode in (1, 77) and "unshare" in done.stderr + "unshare" * (done.returncode == 77):
        pytest.skip("mounting needs root")
    first, second = done.stdout.splitlines()
    assert first.startswith("[[0.0, 1.0]")
    assert second.startswith("CompressnetError train.workers=1: no room in /dev/shm")
    assert "--set train.workers=0" in second


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. out of shared memory"),
            "/dev/shm",
        ),
        (RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)"), "/dev/shm"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "/dev/shm"),
        (RuntimeError("unable to open shared memory object </torch_1> in read-write mode"), "/dev/shm"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
        (
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. \nmore"),
            "killed by signal: Killed. )",
        ),
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "could not be started"),
    ],
)
def test_what_is_said_of_workers(error: Exception, words: str) -> None:
    line = worker_failure(error, 4, "eval.workers")
    assert line is not None
    assert line.startswith("eval.workers=4: ")
    assert words in line
    assert "--set eval.workers=0" in line
    assert worker_failure(RuntimeError("shapes do not fit"), 4, "eval.workers") is None


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234", "another process"),
        ("[Rank 1] NCCL watchdog: ncclRemoteError: remote process exited; rank 3 is gone", "another process"),
        ("Rank 3 failed: Connection reset by peer", "process 3"),
    ],
)
def test_what_is_said_when_another_process_dies(monkeypatch: pytest.MonkeyPatch, text: str, who: str) -> None:
    ignored: list[object] = []
    monkeypatch.setattr(distributed.signal, "signal", lambda *words: ignored.append(words))
    processes = Group(1, 4)
    processes.resume = "train --resume runs/x-1"
    assert lost_process(RuntimeError("shapes do not fit"), processes) is None
    assert not ignored
    lost = lost_process(RuntimeError(text), processes)
    assert lost is not None
    assert str(lost).startswith(f"process 1 of 4: {who} of this training has died")
    assert str(lost).endswith("torchrun --nproc-per-node 4 ... train --resume runs/x-1")
    assert len(ignored) == 1  # torchrun's SIGTERM waits for the line


def test_errors_travel_between_processes() -> None:
    for error in (CompressnetError("a", "b"), RecipeError(["a", "b"])):
        there: CompressnetError = copy.copy(error)  # by `__reduce__`, as a queue does it
        assert there.problems == ["a", "b"]
        assert str(there) == "a\nb"
