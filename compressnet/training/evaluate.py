"""Evaluation of a model on a split: unpadded, over one process or many."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from torch import nn

from compressnet import files, finite
from compressnet.data.protocol import DataSet, Key, Split
from compressnet.data.sampler import evaluation_keys
from compressnet.errors import CompressnetError, NotFinite, UsageError
from compressnet.recipe import Eval
from compressnet.reporter import Reporter
from compressnet.tasks.protocol import Metrics, State, Task
from compressnet.training.distributed import Group
from compressnet.training.loader import loading

_NAME_BYTES = 200  # of a sample's name in that of its preview, which has more to say


def measured(
    task: Task,
    model: nn.Module,
    split: Split,
    device: torch.device,
    reporter: Reporter,
    settings: Eval | None = None,
    group: Group | None = None,
    title: str = "evaluating",
) -> Metrics:
    """The task's metrics after every sample of `split`, each once, equal on all ranks.

    Raises:
        CompressnetError: the task needs targets, and these are photographs without an operator.
        NotFinite: an output holds NaN or infinity; the message names its samples. Raised on all ranks.
    """
    check_targets(task, split)
    settings, group = settings or Eval(), group or Group()
    if split.continuous:  # the state is carried through all of it: one process, one sample at a time
        keys, size = evaluation_keys(len(split)) if group.is_main else [], 1
    else:
        keys, size = evaluation_keys(len(split), group.rank, group.world), settings.batch
    batches = [keys[start : start + size] for start in range(0, len(keys), size)]
    metrics = task.metrics()
    state: State = ()
    reporter.stage(title, len(split), "samples")
    problem = ""
    with (
        loading(split, batches, settings.workers, device, "eval.workers") as loaded,
        evaluating(model),
        torch.inference_mode(),
    ):
        for keys_of_batch, batch in zip(batches, loaded, strict=True):
            try:
                output, state = task.predict(model, move(batch, device), state)
                check_output(output)
            except NotFinite as error:
                problem = f"{_names(split, keys_of_batch)}: {error}"
                break
            metrics.update(_to_cpu(output), batch)
            reporter.advance(len(keys_of_batch))
    states, problems = zip(*group.gather((metrics.state(), problem)), strict=True)
    if any(problems):
        raise NotFinite(next(filter(None, problems)))
    metrics.merge(list(states))
    return metrics


def check_samples(task: Task, data_set: DataSet, data: str, subject: str) -> None:
    """Refuse data of another kind than a task takes.

    Args:
        data, subject: what a person calls the data set and the network.

    Raises:
        UsageError: it is.
    """
    if data_set.sample_type not in task.sample_types:
        raise UsageError(
            f"data set '{data}' gives {data_set.sample_type} samples, "
            f"'{subject}' takes {' or '.join(task.sample_types)}"
        )


def check_targets(task: Task, split: Split) -> None:
    """Refuse photographs that are their own targets where the task learns from others.

    Its figures would be those of doing nothing.

    Raises:
        CompressnetError: they are.
    """
    if task.needs_targets and not split.has_targets:
        raise CompressnetError("photographs have no targets of their own: name an operator (task.operator)")


def check_output(output: Any) -> None:
    """Refuse an output of a network that holds NaN or infinity, in whatever tensors it comes.

    Raises:
        NotFinite: it does.
    """
    if isinstance(output, torch.Tensor):
        finite.checked(output, "the network's output")
    elif isinstance(output, tuple | list):
        for part in output:
            check_output(part)


def _names(split: Split, keys: Sequence[Key]) -> str:
    names = list(dict.fromkeys(split.name(key.index) for key in keys))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def draw(
    task: Task, model: nn.Module, split: Split, indices: Iterable[int], folder: Path, prefix: str = ""
) -> Iterator[Path]:
    """Write the task's preview of samples into `folder`, one PNG or TXT each; yields the files.

    Raises:
        CompressnetError: the disk is full or read-only.
    """
    for index in indices:
        with evaluating(model), torch.inference_mode():
            pictures = list(task.preview(model, [split[Key(0, index, index)]]))
        for name, picture in pictures:
            plain = name.replace("/", "_")
            if (short := files.cut_name(plain, _NAME_BYTES)) != plain:
                plain = f"{short}-{index}"
            path = folder / f"{prefix}{plain}"
            if isinstance(picture, str):
                path = path.with_name(f"{path.name}-{index}.txt")
                files.write_bytes(path, picture.encode())
                yield path
            else:
                yield write_picture(path.with_name(f"{path.name}.png"), picture)


def write_picture(path: Path, picture: PILImage.Image) -> Path:
    """Write a PNG; returns its path."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())
    return path


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; back as it was afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def move(batch: Any, device: torch.device, channels_last: bool = False) -> Any:
    """The batch (a NamedTuple) with its tensors on `device`; images in channels-last memory if asked."""

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(entry) for entry in value]
        if not isinstance(value, torch.Tensor):
            return value
        value = value.to(device, non_blocking=True)
        return value.to(memory_format=torch.channels_last) if channels_last and value.ndim == 4 else value

    return type(batch)(*map(moved, batch))


def _to_cpu(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.cpu()
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*map(_to_cpu, output))
    if isinstance(output, tuple | list):
        return type(output)(map(_to_cpu, output))
    return output
