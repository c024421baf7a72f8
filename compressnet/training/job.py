"""From a run's recipe to what the loop needs: data, task, model, ready to train or to go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from compressnet import weights
from compressnet.data.prepare import processors
from compressnet.data.protocol import Key, NoSuchSplit, Split
from compressnet.data.sampler import column_batches, endless_batches, evaluation_keys, windows_read
from compressnet.errors import BadFiles, CompressnetError, UsageError
from compressnet.recipe import Recipe
from compressnet.reporter import Reporter
from compressnet.run import Run
from compressnet.subject import Loaded, check_sizes, read_weights
from compressnet.tasks.distillation import Distillation, open_teacher
from compressnet.tasks.protocol import Task
from compressnet.training.device import seed_everything
from compressnet.training.distributed import Group
from compressnet.training.evaluate import check_targets
from compressnet.weights import Architecture

_SAFE_CHANNELS = 8


@dataclass
class Job:
    """A training, set up.

    Attributes:
        val: the validation data, or None where the set has none.
        length: samples of an epoch.
        total_steps: of the whole training.
        micro_batch: samples of one forward pass of one process.
        parent: the run or weights that training starts from, with its digest.
        teacher: the network that this one learns from, too (`train.distill`).
    """

    task: Task
    model: nn.Module
    architecture: Architecture
    train: Split
    val: Split | None
    length: int
    total_steps: int
    micro_batch: int
    parent: dict[str, Any] | None = None
    teacher: Loaded | None = None

    def learned(self, recipe: Recipe, device: torch.device) -> Task:
        """The task whose loss is trained: `task`, or that around it."""
        if self.teacher is None or recipe.train.distill is None:
            return self.task
        return cast(Task, Distillation(self.task, self.teacher, recipe.train.distill).to(device))


def set_up(run: Run, group: Group, reporter: Reporter, stored: Architecture | None) -> Job:
    """Open the data and build task and model.

    Args:
        stored: the architecture of the checkpoint to resume from: its assets are reused.
    """
    recipe = run.recipe
    _check_stop(recipe, task := recipe.task.build())
    micro_batch = _micro_batch(recipe.train.batch, recipe.train.accumulate, group.world)
    data_set = recipe.data.build()
    train = data_set.open("train", stored.assets if stored else {}, recipe.seed)
    own = _own_beginning(run) if stored is None else None
    parent = _Parent(*read_weights(recipe.init)) if recipe.init and stored is None and own is None else None
    if own is not None:
        architecture = replace(own.architecture, data={"name": recipe.data.name, **train.facts()})
        train = data_set.open("train", architecture.assets, recipe.seed)
    elif stored is None:
        # Of weights from which single modules are taken the assets (a vocabulary, classes) mean nothing here.
        whole = parent.architecture if parent and not recipe.init_only else None
        assets, model_args = task.prepare(train, whole, recipe.model)
        train = data_set.open("train", assets, recipe.seed)
        architecture = Architecture(
            task=recipe.task.name,
            task_args=recipe.task.arguments,
            model=recipe.model.name,
            model_args=_with_sizes(recipe, model_args),
            assets=assets,
            data={"name": recipe.data.name, **train.facts()},
            smoke=recipe.is_smoke,
        )
    else:
        architecture = stored
        if stored.data != {"name": recipe.data.name, **train.facts()}:
            reporter.note("warning", "the training data has changed since the run began")
    task.use(architecture.assets)
    check_targets(task, train)
    val = _validation(data_set, architecture.assets, recipe.seed)
    teacher = open_teacher(recipe.train.distill, architecture) if recipe.train.distill else None
    if recipe.train.stop and val is None:
        raise UsageError(f"train.stop needs validation data, and {recipe.data.name} has none")
    seed_everything(recipe.seed)
    model = weights.build(architecture)
    length = len(train)
    if train.continuous:
        length = windows_read(length, recipe.train.batch // recipe.train.accumulate)
    total = recipe.total_steps(length)
    job = Job(task, model, architecture, train, val, length, total, micro_batch, teacher=teacher)
    if own:
        weights.load_into(job.model, own.tensors, own.path)
    elif parent:
        _initialise(job, parent, recipe)
    seed_everything(recipe.seed + 1_000_003 * (1 + group.rank))  # dropout and the like differ by rank
    return job


def _with_sizes(recipe: Recipe, sizes: dict[str, Any]) -> dict[str, Any]:
    """The model's arguments with those that follow from the data."""
    arguments = {**recipe.model.arguments, **sizes}
    try:
        check_sizes(recipe.model.name, arguments, recipe.task.name, sizes)
    except CompressnetError as error:
        raise UsageError(str(error)) from error
    return arguments


def derive_ahead(job: Job, run: Run, group: Group, start: int, reporter: Reporter) -> None:
    """Compute what the data sets derive (operator targets, ...) for the rest of the training, on rank 0."""
    if group.is_main and not job.train.continuous:
        wanted: list[tuple[Split, Iterable[Key]]] = [
            (job.train, drawn(job, run, Group(), start, job.total_steps))
        ]
        if job.val is not None:
            wanted.append((job.val, evaluation_keys(len(job.val))))
        bad: list[str] = []
        for split, needed in wanted:
            if not split.derives:
                continue
            try:
                split.prepare(needed, processors(), reporter)
            except BadFiles as error:
                bad += error.problems
        if bad:
            raise BadFiles(*bad)
    group.barrier()


def drawn(job: Job, run: Run, group: Group, start: int, stop: int) -> Iterator[Key]:
    """The samples that this process draws in steps [start, stop)."""
    train, length = run.recipe.train, len(job.train)
    if job.train.continuous:
        stream = column_batches(length, train.batch, group.rank, group.world, start, train.accumulate)
    else:
        stream = endless_batches(
            length, train.batch, run.recipe.seed, group.rank, group.world, start_batch=start
        )
    for _ in range(start, stop):
        yield from next(stream)


def _micro_batch(batch: int, accumulate: int, world: int) -> int:
    if batch % (accumulate * world):
        raise UsageError(
            f"train.batch {batch} is the batch of all processes: it must be a multiple of "
            f"train.accumulate x processes = {accumulate} x {world}; "
            f"try --set train.batch={accumulate * world}"
        )
    return batch // (accumulate * world)


def _check_stop(recipe: Recipe, task: Task) -> None:
    rule = recipe.train.stop
    if rule and rule.metric != task.best[0] and rule.direction is None:
        raise UsageError(
            f"train.stop: say which way '{rule.metric}' is better with direction: max or min "
            f"(it is known for {task.best[0]} only)"
        )


def _validation(data_set: Any, assets: dict[str, Any], seed: int) -> Split | None:
    try:
        split: Split = data_set.open("val", assets, seed)
    except NoSuchSplit:
        return None
    return split if len(split) else None


class _Parent(NamedTuple):
    """The weights that training starts from, and their file."""

    architecture: Architecture
    tensors: dict[str, Tensor]
    path: str


def _own_beginning(run: Run) -> _Parent | None:
    """The weights that a compressed run begins from: those of its step 0."""
    path = run.checkpoints.of(0) / "model.safetensors"
    return _Parent(*weights.load(path), str(path)) if path.is_file() else None


def _initialise(job: Job, parent: _Parent, recipe: Recipe) -> None:
    if parent.architecture.edits and not recipe.init_only:
        job.architecture = replace(job.architecture, edits=parent.architecture.edits)
        job.model = weights.build(job.architecture)
    weights.load_into(job.model, parent.tensors, parent.path, recipe.init_skip, recipe.init_only)
    job.parent = {"run": recipe.init, "digest": weights.digest(parent.tensors, parent.architecture)}


def to_device(model: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """Move a model, in the memory format that the recipe asks for.

    Raises:
        UsageError: torch would crash.
    """
    if channels_last and device.type == "cpu":
        _refuse_crash(model)
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload]


def _refuse_crash(model: nn.Module) -> None:
    """Refuse what takes the process down in torch 2.13 on the CPU.

    In channels_last and with AVX2 the backward pass of a 1x1 convolution with strides and fewer than 8
    channels writes past its memory. Whatever the processor has, it is refused: a run may be resumed on
    another. A test in a child process tells when torch has repaired it.
    """
    for path, module in model.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        pointwise = module.kernel_size == (1, 1) and max(module.stride) > 1
        if pointwise and module.in_channels // module.groups < _SAFE_CHANNELS:
            raise UsageError(
                f"train.channels_last: torch's backward pass of {path}, a 1x1 convolution with strides that "
                f"reads fewer than {_SAFE_CHANNELS} channels, crashes on the CPU: "
                "set train.channels_last=false"
            )
