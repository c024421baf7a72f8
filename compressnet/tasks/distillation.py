"""Distillation: a task around a task, in whose loss the network also learns from what a teacher says.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import weights
from compressnet.errors import UsageError, short
from compressnet.recipe import Distill
from compressnet.subject import STORED, Loaded, load, parse
from compressnet.tasks.protocol import Loss, Outputs, State, Task
from compressnet.weights import Architecture


def open_teacher(settings: Distill, architecture: Architecture) -> Loaded:
    """The teacher of a training.

    Args:
        architecture: of the network that learns.

    Raises:
        UsageError: it is no trained network, or one of another task, other classes or another vocabulary.
        CompressnetError: its files are missing or damaged.
    """
    where = f"train.distill.teacher: {short(settings.teacher, 300)}"
    subject = parse(settings.teacher, ("zoo",))
    if subject.kind not in STORED:
        raise UsageError(f"{where} is of kind {subject.kind}: a teacher is a run, a weights file or zoo:NAME")
    teacher = load(subject)
    theirs = teacher.architecture
    assert theirs is not None
    if theirs.task != architecture.task:
        raise UsageError(
            f"{where} was trained for the task '{theirs.task}', this one is '{architecture.task}': "
            "a teacher has the same task"
        )
    keys = sorted(theirs.assets.keys() | architecture.assets.keys())
    for key in keys:
        if theirs.assets.get(key) != architecture.assets.get(key):
            raise UsageError(f"{where} has another '{key}' than this training: a teacher has the same")
    return teacher


def described(settings: Distill, teacher: Loaded) -> dict[str, str]:
    """The teacher for run.json: its subject, and the digest of its weights."""
    assert teacher.architecture is not None
    found = weights.digest(weights.tensors_of(teacher.model), teacher.architecture)
    return {"run": settings.teacher, "digest": found}


class Distillation:
    """Learn a task from targets and from a teacher; in all but its loss it is the task itself.

    Carried state: the student's, the teacher's behind it, and how many tensors are the student's; `()` where
    neither carries any. The teacher is no submodule of anything: no optimiser, no other process sees it.

    Args:
        task: the task.
        teacher: a network of that task, see `open_teacher`.
        settings: how much of the loss the teacher has, and at which temperature.
    """

    def __init__(self, task: Task, teacher: Loaded, settings: Distill) -> None:
        self.task, self.settings = task, settings
        self._teacher, self._teachers_task = teacher.model.eval().requires_grad_(False), teacher.task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def to(self, device: torch.device) -> Distillation:
        """Move the teacher."""
        self._teacher.to(device)
        return self

    def loss(self, model: nn.Module, batch: Any, state: State) -> Loss:
        """(1 - weight) x the task's mean + weight x `distance`, over as many targets as the task has.

        Raises:
            UsageError: the two do not say the same kind of thing.
        """
        mine, theirs = _split(state)
        said = self.task.outputs(model, batch, mine)
        plain = self.task.loss_of(said, batch) if self.task.loss_of else self.task.loss(model, batch, mine)
        with torch.no_grad():
            heard = self._teachers_task.outputs(self._teacher, batch, theirs)
        if said.kind != heard.kind or said.values.shape != heard.values.shape:
            raise UsageError(
                f"train.distill.teacher: {short(self.settings.teacher, 300)} puts out {_form(heard)}, "
                f"this network {_form(said)}: it cannot teach it"
            )
        apart = distance(said, heard.values, self.settings.temperature)
        share = self.settings.weight
        mean = (1 - share) * plain.mean + share * apart
        logs = {**plain.logs, "task": plain.mean, "distance": apart}
        return Loss(mean, plain.count, logs, _joined(plain.state, heard.state))


def distance(said: Outputs, taught: Tensor, temperature: float) -> Tensor:
    """How far a network is from its teacher, a scalar of at least 0.

    Args:
        said: what the network says.
        taught: the values of the teacher's outputs, of the same kind and shape.
        temperature: what logits are divided by; gradients have the same size at every one.
    """
    if said.kind == "values":
        return F.mse_loss(said.values.float(), taught.float())
    mine = (said.values.float() / temperature).log_softmax(-1)  # (N, K)
    theirs = (taught.float() / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def _split(state: State) -> tuple[State, State]:
    if not state:
        return (), ()
    *tensors, count = state
    return tuple(tensors[: int(count)]), tuple(tensors[int(count) :])


def _joined(mine: State, theirs: State) -> State:
    return (*mine, *theirs, torch.tensor(len(mine))) if mine or theirs else ()


def _form(outputs: Outputs) -> str:
    return f"{outputs.kind} of shape {'x'.join(map(str, outputs.values.shape))}"
