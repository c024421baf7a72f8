"""Calibration data of a task: samples of the training split, as training would have them.

data set, task -> keys of N samples (a permutation of the seed; of continuous text N windows in columns)
               -> Calibration: task.loss of each batch, in evaluation, without gradients
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import nn

from compressnet import signature
from compressnet.compression.network import Calibration, Call
from compressnet.data.prepare import processors
from compressnet.data.protocol import Key, Split
from compressnet.data.sampler import column_batches, permutation
from compressnet.errors import CompressnetError, UsageError
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.tasks.protocol import State, Task
from compressnet.training.evaluate import check_targets, move

SAMPLES = 2048
_COLUMNS = 20  # of continuous text, side by side
_TASK_OF = {  # what a network of no task is run by: these call it with nothing but pictures
    "class_image": "image_classification",
    "image_pair": "image_translation",
    "photograph": "image_translation",
}


def calibration_of(
    task: Task,
    component: Component,
    split: Split,
    device: torch.device,
    seed: int,
    samples: int = SAMPLES,
    batch: int = 32,
    reporter: Reporter | None = None,
    *,
    has_loss: bool = True,
) -> Calibration:
    """Samples of a training split for a task's network.

    Args:
        component: what the data set is called, for the report.
        split: of training, opened with the assets of the weights.
        seed: which samples.
        samples: how many, where there are so many; of continuous text windows.
        batch: samples of a call; whole pictures of their own sizes go one by one.
        has_loss: run what training runs; False: `task.outputs`, without targets.

    Raises:
        CompressnetError: the split has no targets, which the task's loss needs.
    """
    if has_loss:
        check_targets(task, split)
    run = task.loss if has_loss else task.outputs
    batches = list(_keys(split, seed, samples, batch))
    keys = [key for keys in batches for key in keys]
    if split.derives and reporter is not None:
        split.prepare(keys, processors(), reporter)

    def calls() -> Iterator[Call]:
        state: State = ()

        def call(module: nn.Module, keys: list[Key]) -> None:
            nonlocal state
            loaded = split.collate([split[key] for key in keys])
            state = run(module, move(loaded, device), state).state

        for keys in batches:
            yield lambda module, keys=keys: call(module, keys)  # type: ignore[misc]

    about: dict[str, Any] = {
        "data": {"name": component.name, **split.facts()},
        "split": "train",
        "samples": len(keys),
        "seed": seed,
        "ids": [key.index for key in keys],
    }
    return Calibration(calls, about)


def calibration_of_own(
    component: Component, device: torch.device, samples: int = SAMPLES, reporter: Reporter | None = None
) -> Calibration:
    """Pictures of a training split for a network that has no task: its input is a batch of them.

    Classified ones are normalised with their own mean and deviation, all others lie in 0 to 1.

    Raises:
        UsageError: the data set has no pictures.
        CompressnetError: files are missing or damaged.
    """
    data_set = component.build()
    name = _TASK_OF.get(data_set.sample_type)
    if name is None:
        raise UsageError(
            f"data set '{component.name}' gives {data_set.sample_type} samples: a network of your own is "
            "run on pictures; in Python, compressnet.compress takes any inputs"
        )
    task: Task = signature.build("task", name, {})
    assets, _ = task.prepare(data_set.open("train", {}, 0))
    task.use(assets)
    split = data_set.open("train", assets, 0)
    return calibration_of(task, component, split, device, 0, samples, reporter=reporter, has_loss=False)


def _keys(split: Split, seed: int, samples: int, batch: int) -> Iterator[list[Key]]:
    """Batches of keys."""
    if split.continuous:
        columns = min(_COLUMNS, len(split))
        yield from islice(column_batches(len(split), columns), max(1, min(samples, len(split)) // columns))
        return
    chosen = permutation(seed, 0, len(split))[:samples]
    keys = [Key(0, int(index), draw) for draw, index in enumerate(chosen)]
    size = batch if _is_stackable(split, keys) else 1
    yield from (keys[begin : begin + size] for begin in range(0, len(keys), size))


def _is_stackable(split: Split, keys: list[Key]) -> bool:
    """Whether samples fit into one batch: pictures of one size do, sentences are padded."""
    try:
        split.collate([split[key] for key in keys[:4]])
    except CompressnetError:
        return False
    return True
