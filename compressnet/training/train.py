"""Train a run: from its start, or on from its last checkpoint."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from compressnet import weights
from compressnet.errors import CompressnetError, Interrupted
from compressnet.kernels.library import NONE_BUILT, built
from compressnet.places import data_root
from compressnet.reporter import Reporter, Silent
from compressnet.run import Run
from compressnet.subject import Loaded
from compressnet.tasks.distillation import described
from compressnet.training import checkpoint, cpu_settings
from compressnet.training import device as devices
from compressnet.training.distributed import Group, ProcessLost
from compressnet.training.job import set_up
from compressnet.training.loader import warn_of_many_workers
from compressnet.training.loop import Loop
from compressnet.training.signals import stop_on_signals
from compressnet.training.track import check_installed


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        digest: of the weights of `last`.
        best, metric: the best value of the task's metric on the validation data, if there are any; its name.
        ranks: digest of every rank's weights: all equal, or something is broken.
    """

    run: Path
    step: int
    digest: str
    best: float | None
    metric: str
    seconds: float
    ranks: list[str]


def train(
    run: Run,
    *,
    device: torch.device | None = None,
    reporter: Reporter | None = None,
    group: Group | None = None,
    command: Sequence[str] = (),
) -> Outcome:
    """Train `run`: from its start or, when it has a checkpoint, on from there, bit-equal on CPU.

    Args:
        device: default: a GPU if there is one.
        group: the processes that train together; all must make this call.
        command: the command line, for the record.

    Raises:
        Interrupted: a signal came; the run is saved.
        CompressnetError: it could not go on; the last good checkpoint is kept.
    """
    device, reporter, group = device or devices.choose("auto"), reporter or Silent(), group or Group()
    if run.recipe.train.deterministic:
        devices.make_deterministic()
    run.check_trains()
    check_installed(run.recipe.train.track)
    if group.is_main:
        warn_of_many_workers(run.recipe, reporter)
    start = run.resume_point()
    resumed = start is not None
    stored = weights.read_architecture(start / "model.safetensors") if start else None
    if start:
        checkpoint.check_world(run, start, group.world)
        _warn_of_other_settings(run, device, reporter)
    with stop_on_signals() as stop:
        job = set_up(run, group, reporter, stored)
        loop = Loop(run, job, device, group, reporter, stop)
        if resumed:
            loop.restore()
        _tell_cpu_settings(loop, device, reporter)
        status, reason = "failed", "the process ended before it could say why"
        try:
            if group.is_main:
                _record_start(run, loop, device, command, resumed)
            loop.go()
            status, reason = "done", ""
        except (Interrupted, KeyboardInterrupt) as error:
            status, reason = "interrupted", str(error)
            raise
        except BaseException as error:
            if stop and isinstance(error, ProcessLost):  # the signal ended the other one in its first step
                status, reason = "interrupted", f"{stop.name}: all ended; {run.folder} keeps what was saved"
                raise Interrupted(reason) from error
            reason = str(error) or type(error).__name__
            raise
        finally:
            loop.tracker.close()
            if group.is_main:
                run.finish(status, reason, step=loop.step, train_seconds=round(loop.seconds, 1))
    return _ended(loop)


def _ended(loop: Loop) -> Outcome:
    """Compare the weights of all ranks, and record them."""
    mine = weights.digest(weights.tensors_of(loop.published), loop.job.architecture)
    ranks = loop.group.gather(mine)
    if len(set(ranks)) > 1:
        raise CompressnetError(f"the ranks ended with different weights: {' '.join(d[:12] for d in ranks)}")
    best, metric = loop.validation.best, loop.job.task.best[0]
    if loop.group.is_main:
        loop.run.update(digest=mine, best=best)
        if loop.run.facts.get("compressed"):
            loop.run.add_stage("fine-tuned", best)
    return Outcome(loop.run.folder, loop.step, mine, best, metric, loop.seconds, ranks)


def _record_start(run: Run, loop: Loop, device: torch.device, command: Sequence[str], resumed: bool) -> None:
    """What was started, on what: into run.json, and a line of metrics.jsonl."""
    before = run.facts
    facts: dict[str, Any] = {
        "status": "running",
        "reason": "",
        "command": list(command),
        "device": devices.name(device),
        "threads": torch.get_num_threads(),
        "cpu": {**cpu_settings.current().as_dict(), "kernels": loop.in_kernels is not None},
        "world": loop.group.world,
        "versions": versions(),
        "commit": commit(),
        "data_root": str(data_root().absolute()),
        "data": loop.job.architecture.data,
        "total_steps": loop.job.total_steps,
    }
    if loop.job.parent:
        facts["parent"] = loop.job.parent
    if loop.job.teacher and run.recipe.train.distill:
        facts["teacher"] = _teacher(run, loop.job.teacher, before.get("teacher"), loop.reporter)
    if resumed or (before.get("compressed") and before.get("command") != facts["command"]):
        # The command that began the run is the one that repeats it.
        facts["command"] = before.get("command", [])
        facts["cpu"] = before.get("cpu", {**cpu_settings.TORCH.as_dict(), "kernels": False})
        facts["resumed_with"] = [*before.get("resumed_with", []), list(command)]
    run.update(**facts)
    run.log("resume" if resumed else "start", step=loop.step)


def _tell_cpu_settings(loop: Loop, device: torch.device, reporter: Reporter) -> None:
    """A line, where anything differs from torch's defaults or the recipe decides it."""
    settings, wanted = cpu_settings.current(), loop.settings
    kernels = ", trained in C kernels" if loop.in_kernels else ""
    if loop.in_kernels and wanted.compile:
        kernels += ", which train.compile would slow down"
    if wanted.cpu_kernels == "off":
        kernels = ", C kernels off"
    elif device.type == "cpu" and not built():
        kernels = f", C kernels: {NONE_BUILT}"
    asked = wanted.cpu_matmul != "auto" or bool(kernels)
    if device.type == "cpu" and (asked or settings != cpu_settings.TORCH):
        reporter.note("info", f"CPU settings: {settings.text}{kernels}")


def _teacher(run: Run, teacher: Loaded, before: dict[str, str] | None, reporter: Reporter) -> dict[str, str]:
    """What run.json says of the teacher; a run that goes on with another is no longer bit-equal."""
    assert run.recipe.train.distill is not None
    found = described(run.recipe.train.distill, teacher)
    if before and before["digest"] != found["digest"]:
        reporter.note("warning", f"the teacher {found['run']} has changed since the run began")
    return found


def _warn_of_other_settings(run: Run, device: torch.device, reporter: Reporter) -> None:
    """The command line sets the process before it comes here; a program of one's own may not know to."""
    begun_with, here = cpu_settings.stored(run), cpu_settings.current()
    if device.type == "cpu" and begun_with and begun_with.matmul != here.matmul:
        reporter.note(
            "warning",
            f"the run was begun with matmul {begun_with.matmul}, this process has {here.matmul}: "
            "its weights will differ from an uninterrupted run's (see training.cpu_settings.apply)",
        )


def versions() -> dict[str, str]:
    """Versions of what figures depend on."""
    return {
        name: version(name) for name in ("compressnet", "torch", "numpy", "pillow", "scikit-image", "scipy")
    }


def commit() -> str | None:
    """The git commit of the source tree, `+` when it has changes; None outside a checkout."""
    folder = Path(__file__).parents[2]
    try:
        if Path(_git(folder, "rev-parse", "--show-toplevel")) != folder.resolve():
            return None  # installed into a folder that some other repository holds
        head = _git(folder, "rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
