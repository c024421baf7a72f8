"""Training of the recipe that was asked for, in the time that is left but a minute; it is DIR/training."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path

from benchmarks.cuda_checks import program
from benchmarks.cuda_checks.cases import Case, Cases, Failed, Finding, Settings

_LEFT, _PATIENCE, _LEAST = 60.0, 50.0, 15.0  # seconds: left at the end, of them to save in; worth beginning


def cases(settings: Settings, seconds: float) -> Cases:
    until = time.monotonic() + seconds - _LEFT
    return Cases([Case(str(settings.train), partial(_train, settings, until), seconds + 60)])


def _train(settings: Settings, until: float) -> Finding:
    left = until - time.monotonic()
    if settings.train is None:
        raise Failed("name a recipe with --train")
    if left < _LEAST:
        raise Failed(f"{left + _LEFT:.0f} s are left: too little to train and save; give more --minutes")
    folder = Path(settings.out) / "training"
    words: tuple[object, ...] = ("train", settings.train, "-o", folder)
    if settings.checkpoint:
        shutil.copytree(settings.checkpoint, folder, symlinks=True)
        words = ("train", "--resume", folder)
    before = last_step(folder)
    code = program.stopped(*words, "--device", settings.device, after=left, patience=_PATIENCE)
    step = last_step(folder)
    if step <= before and code == 0:
        raise Failed(f"the run was finished at step {step}: nothing was left to train")
    if step <= before:
        raise Failed(f"no checkpoint after step {before} was written")
    ended = "finished" if code == 0 else "stopped and saved"
    return Finding(f"step {step}", f"{ended}, from step {before}; {_figures(folder)}")


def last_step(folder: Path) -> int:
    """The step of a run's last checkpoint; 0: it has none."""
    pointer = folder / "checkpoints/last"
    return int(pointer.read_text().strip().rpartition("-")[2]) if pointer.is_file() else 0


def _figures(folder: Path) -> str:
    """The last line of the log that tells of training."""
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [event for event in events if event.get("event") == "train"]
    values = {key: value for key, value in (trained or [{}])[-1].items() if isinstance(value, float)}
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())
