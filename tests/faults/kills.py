"""kill -9 at random times; each run is resumed until it is done, and must end with the uninterrupted weights.

python -m tests.faults.kills [COUNT] [FIRST]            COUNT kills; FIRST is the seed of their times

Half of the kills are aimed: they come as soon as a half-written checkpoint (`.step-*.tmp`) is seen.
"""

from __future__ import annotations

import functools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from .common import PROGRAM, QUIET, Tally, arguments, must, run, unclear, work

When = Literal["at start", "at random", "in a write"]
TIMES: tuple[When, ...] = ("at start", "at random", "in a write", "in a write")
ATTEMPTS = 5  # the last one of a run is left in peace
PATIENCE = 120.0
JOBS = {
    "sequence": ["lstm_1997_tasks", "--set", "train.steps=400", "--set", "train.checkpoint_every=3",
                 "--set", "train.evaluate_every=100",
                 "--set", "data.val_count=50", "--set", "data.steps=20"],
    "text": ["lm_sample", "--set", "train.steps=60", "--set", "train.checkpoint_every=1", "--set",
             "train.evaluate_every=20",
             "--set", "model.hidden_size=64"],
    "image": ["fip_sample", "--set", "train.steps=40", "--set", "train.checkpoint_every=1", "--set",
              "train.evaluate_every=7",
              "--set", "data.crop=64", "--set", "data.max_side=310", "--set", "data.sizes=1"],
}  # fmt: skip


@functools.cache
def reference(name: str) -> str:
    """The digest of the weights of a job that nobody interrupts."""
    done = must(run("train", *JOBS[name], "-o", f"whole-{name}", "--threads", "1", "--json", env=QUIET))
    digest: str = json.loads(done.stdout)["digest"]
    return digest


class Training:
    """A training, and what kills it."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.folder, self._log = folder, work() / "kill.log"
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "train", *words, "--threads", "1"], cwd=work(), stdout=log, stderr=log, env=QUIET
            )

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait for it; what it said."""
        code = self._process.wait()
        return subprocess.CompletedProcess([], code, "", self._log.read_text(errors="backslashreplace"))

    def kill(self, when: When, rng: random.Random) -> bool:
        """Wait for the moment and kill it; False: it ended before."""
        begun, before, trains = time.monotonic(), self._logged(), 0.0
        delay, skip = rng.uniform(1, 6) if when == "at start" else rng.uniform(0, 4), rng.randrange(20)
        while (now := time.monotonic()) < begun + PATIENCE:
            if self._process.poll() is not None:
                return False
            if not trains and self._logged() > before:
                trains = now
            if now > (begun if when == "at start" else trains or now) + delay and when != "in a write":
                break
            if when == "in a write" and trains and self.half_written():
                if not skip:
                    time.sleep(rng.random() * 0.003)
                    break
                skip -= 1
            time.sleep(0.0005 if when == "in a write" else 0.01)
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        return True

    def half_written(self) -> bool:
        """Whether a checkpoint is being written, or was when it was killed."""
        return any((self.folder / "checkpoints").glob(".step-*.tmp"))

    def _logged(self) -> int:
        metrics = self.folder / "metrics.jsonl"
        return metrics.stat().st_size if metrics.exists() else 0


class Kills:
    """The campaign: `count` kills, counted in `tally`."""

    def __init__(self, count: int, seed: int) -> None:
        self.tally, self.left, self.torn = Tally("kills"), count, 0
        self._random = random.Random(seed)

    def job(self, name: str, folder: Path) -> None:
        """A run that is killed up to four times, then left to end."""
        words = [*JOBS[name], "-o", folder.name]
        for attempt in range(ATTEMPTS):
            training = Training(["--resume", folder.name] if folder.exists() else words, folder)
            is_last = attempt == ATTEMPTS - 1 or not self.left
            when = self._random.choice(TIMES)
            if is_last or not training.kill(when, self._random):
                self._check_end(name, folder, training.end())
                return
            self.left -= 1
            self.tally.held(f"killed {when}")
            self.torn += training.half_written()
            if folder.exists() and not (folder / "run.json").exists():
                self.tally.failed("killed while the run was made: neither new nor resumable", folder.name)
                return
            if not self.left % 10:
                self._check_list()

    def _check_end(self, name: str, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
        why = unclear(done) or ("" if done.returncode == 0 else "not done")
        if not self.tally.check(not why, f"{name}: a resume failed", f"{why} {done.stderr[-300:]}"):
            return
        digest = json.loads((folder / "run.json").read_text())["digest"]
        self.tally.check(digest == reference(name), f"{name}: other weights than uninterrupted", folder.name)
        left = [path.name for path in folder.rglob(".*.tmp")]
        self.tally.check(not left, "temporary files left after the end", str(left))

    def _check_list(self) -> None:
        shown = run("runs", "ls", "--runs", ".", "--json")
        good = shown.returncode == 0 and "damaged" not in shown.stdout
        self.tally.check(good, "runs ls", shown.stdout[-300:] + shown.stderr[-300:])


def main() -> int:
    """The campaign; its exit code."""
    given = arguments(32)
    kills, round_ = Kills(given.cases, given.first), 0
    while kills.left:
        name = list(JOBS)[round_ % len(JOBS)]
        reference(name)
        kills.job(name, work() / f"cut-{round_}-{name}")
        round_ += 1
    print(f"{given.cases} kills of {round_} runs, {kills.torn} of them inside a checkpoint's write")
    return kills.tally.finish()


if __name__ == "__main__":
    sys.exit(main())
