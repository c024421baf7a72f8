"""Failures of a training step, told with the settings that help. Only settings that the recipe would take."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from compressnet import registry
from compressnet.errors import CompressnetError, is_out_of_memory
from compressnet.run import Run
from compressnet.signature import parameters
from compressnet.training.distributed import Group, lost_process

_NO_SHARED_MEMORY = (
    "bus error",
    "shared memory",
    "no space left",
    "unable to write to file",
    "unable to mmap",
)


@contextmanager
def explained(run: Run, device: torch.device, group: Group, what: str) -> Iterator[None]:
    """Turn torch's errors of memory, of the compiler and of lost processes into one line each.

    Args:
        what: what was being done, e.g. `step 12`.

    Raises:
        CompressnetError: in their place.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise CompressnetError(out_of_memory(run, device, group.world, what)) from error
        if group.world > 1 and (lost := lost_process(error, group)):
            raise lost from error
        if run.recipe.train.compile and type(error).__module__.startswith(
            ("torch._dynamo", "torch._inductor")
        ):
            reason = str(error).strip().splitlines()[0]
            raise CompressnetError(
                "train.compile: torch cannot compile the model here (on a CPU that takes a C++ compiler, "
                f"g++ or clang++); try --set train.compile=false ({reason})"
            ) from error
        raise


def out_of_memory(run: Run, device: torch.device, world: int, what: str) -> str:
    """What to say when memory ran out: where, how much, and the `--set` lines that help."""
    train, data = run.recipe.train, run.recipe.data
    lines = []
    if train.batch % (2 * train.accumulate * world) == 0:
        lines.append(f"--set train.accumulate={2 * train.accumulate}")
    known = parameters(registry.find("data", data.name))
    if "crop" in known:
        smallest = data.arguments.get("min_side", known["min_side"].default)
        crop = data.arguments.get("crop")
        lines.append(f"--set data.crop={crop // 2 if crop else smallest}")
    if train.dtype == "float32" and not (device.type == "cpu" and train.channels_last):
        lines.append("--set train.dtype=bfloat16")
    peak = ""
    if device.type == "cuda":
        peak = f", peak {torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"
    helps = f"; what helps in a new run: {'  '.join(lines)}" if lines else ""
    micro_batch = train.batch // (train.accumulate * world)
    return (
        f"out of memory on {device} at {what} (micro-batch {micro_batch}{peak}); "
        f"the last checkpoint is kept{helps}"
    )


def worker_failure(error: Exception, workers: int, setting: str) -> str | None:
    """What to say of worker processes that failed; None: `error` is not of that kind.

    Args:
        setting: what the recipe calls their number.
    """
    text = str(error).lower()
    reason = str(error).strip().splitlines()[0] if text.strip() else type(error).__name__
    here = f"--set {setting}=0 reads in this process"
    if any(words in text for words in _NO_SHARED_MEMORY):
        return (
            f"{setting}={workers}: no room in /dev/shm, through which workers hand over batches"
            f"{_free('/dev/shm')}: {here}; or make it larger (docker run --shm-size=1g)"
        )
    if "too many open files" in text or "ancdata" in text:
        return f"{setting}={workers}: too many open files: use fewer workers, or raise `ulimit -n`; {here}"
    if isinstance(error, OSError | EOFError) or "dataloader worker" in text:
        return f"{setting}={workers}: a worker could not be started or has died ({reason}): {here}"
    return None


def _free(folder: str) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free >> 20} MB free)"
    except OSError:
        return ""


def check_finite(run: Run, step: int, loss: float, norm: float, rate: float, samples: list[str]) -> None:
    """Stop before a step that would destroy the weights.

    Raises:
        CompressnetError: loss or gradient norm is not finite; says step, rate, norm and samples.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    named = ", ".join(samples[:4]) + (f" and {len(samples) - 4} more" if len(samples) > 4 else "")
    again = f"--set init={run.folder}@last " if run.steps() else ""
    raise CompressnetError(
        f"the loss is not finite at step {step}: loss {loss}, gradient norm {norm}, lr {rate:g}, "
        f"samples {named}; the last good checkpoint is kept; "
        f"try a new run with {again}--set train.lr={rate / 3:.1e} or --set train.clip_norm=1.0"
    )
