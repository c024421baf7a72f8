"""The one training loop: of every task, on one process or many, from step 0 or from a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from compressnet import weights
from compressnet.data.protocol import Key
from compressnet.errors import Interrupted
from compressnet.reporter import Reporter
from compressnet.run import Run
from compressnet.tasks.protocol import Loss, State, Task
from compressnet.training import checkpoint, cpu_kernels
from compressnet.training.advice import check_finite, explained
from compressnet.training.distributed import Group, data_parallel
from compressnet.training.evaluate import move
from compressnet.training.job import Job, derive_ahead, drawn, to_device
from compressnet.training.loader import loading
from compressnet.training.optimizer import Average, learning_rate, make_optimizer
from compressnet.training.progress import Progress, Step
from compressnet.training.signals import StopFlag
from compressnet.training.track import Tracker
from compressnet.training.validation import Validation


class LossModule(nn.Module):
    """Task and model as one module whose `forward` is the loss: what DistributedDataParallel must wrap."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any, state: State) -> Loss:
        return self.task.loss(self.model, batch, state)


class Loop:
    """A training in progress.

    Args:
        run: where everything is written (by rank 0).
        job: data, task and model.

    Attributes:
        in_kernels: what computes the loss in the place of the model, if anything does; of the model are the
            parameters.
    """

    def __init__(
        self, run: Run, job: Job, device: torch.device, group: Group, reporter: Reporter, stop: StopFlag
    ) -> None:
        self.run, self.job, self.device = run, job, device
        self.group, self.reporter, self.stop = group, reporter, stop
        self.settings = run.recipe.train
        self.model = to_device(job.model, device, self.settings.channels_last)
        self.optimizer = make_optimizer(self.model, self.settings)
        self.average = Average(self.model, self.settings.ema) if self.settings.ema else None
        self.in_kernels = cpu_kernels.of_run(run, group, device, self.model)
        computes: Any = self.in_kernels
        if computes is None:
            computes = torch.compile(self.model) if self.settings.compile else self.model
        self.module: nn.Module = LossModule(job.learned(run.recipe, device), computes)
        if group.world > 1:
            self.module = data_parallel(self.module)
        self.tracker = Tracker(run)
        self.validation = Validation(self.tracker, job, device, group, reporter)
        self.step = 0
        self.validation_owed = False
        self.epoch = 0
        self.state: State = ()
        self.seconds = 0.0

    @property
    def published(self) -> nn.Module:
        """The weights that are evaluated, saved and used: the average where there is one."""
        return self.average.model if self.average else self.model

    def go(self) -> None:
        """Train to the end, or until the recipe's stop rule holds.

        Raises:
            Interrupted: a signal came; everything is saved.
            CompressnetError: the loss is not finite, or memory ran out.
        """
        derive_ahead(self.job, self.run, self.group, self.step, self.reporter)
        if self.validation_owed and self._validate_owed():
            return
        # What a compressed run has before it is trained counts: training may make nothing better.
        if self.step == 0 and self.run.facts.get("compressed") and self._validate():
            return
        self._show_progress()
        self.module.train()
        with self._batches() as batches:
            self._go_on(batches, Progress(self.seconds))

    def _go_on(self, batches: Iterator[tuple[list[Key], Any]], progress: Progress) -> None:
        while self.step < self.job.total_steps:
            with self._explained(f"step {self.step}"):
                step = self._train_step(batches, progress)
            self.step += 1
            self.seconds = progress.add(step)
            self.reporter.advance(1, loss=step.loss, lr=step.lr, samples_per_s=progress.rate)
            if self._due(self.settings.log_every):
                self._log(progress)
            # Several ranks learn of a signal in the message of the next step; one need not wait.
            stopped = step.stop or (self.group.world == 1 and bool(self.stop))
            last = self.step == self.job.total_steps
            validate = self._due(self.settings.evaluate_every)
            if not (stopped or step.late or validate or self._due(self.settings.checkpoint_every)):
                continue
            # Whoever stops us may not wait for a validation: it is made up for on resume.
            self.validation_owed = validate and stopped and not last
            done = self._validate() if validate and not self.validation_owed else False
            self._save()
            progress.saved = time.monotonic()
            if done:
                return
            if stopped and not last:
                raise Interrupted(f"{self.stop.name or 'a signal'}: saved at step {self.step}; {self._again}")

    @property
    def _again(self) -> str:
        return f"`train --resume {self.run.folder}` goes on"

    def _explained(self, what: str) -> AbstractContextManager[None]:
        return explained(self.run, self.device, self.group, what)

    def _due(self, every: int | None) -> bool:
        return self.step == self.job.total_steps or (every is not None and self.step % every == 0)

    def _show_progress(self) -> None:
        self.reporter.stage("training", self.job.total_steps, "steps", initial=self.step)

    def _log(self, progress: Progress) -> None:
        if self.group.is_main:
            self.tracker.log("train", self.step, seconds=round(self.seconds, 3), **progress.summary())
        progress.window.clear()

    @contextmanager
    def _batches(self) -> Iterator[Iterator[tuple[list[Key], Any]]]:
        """Micro-batches with their keys, from the current step to the last."""

        def micro() -> Iterator[list[Key]]:
            keys = drawn(self.job, self.run, self.group, self.step, self.job.total_steps)
            while chunk := list(islice(keys, self.job.micro_batch)):
                yield chunk

        workers = self.settings.workers
        with loading(self.job.train, _Reiterable(micro), workers, self.device, "train.workers") as loaded:
            yield zip(micro(), loaded, strict=True)

    def _train_step(self, batches: Iterator[tuple[list[Key], Any]], progress: Progress) -> Step:
        """One optimiser step: `accumulate` micro-batches, weighted by their target counts."""
        epoch = self.step * self.settings.batch // self.job.length
        rises = self.validation.rises
        rate = learning_rate(self.step, self.job.total_steps, self.settings, epoch, rises)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum, count = 0.0, 0
        logs: dict[str, float] = {}
        seen: list[Key] = []
        for piece in range(self.settings.accumulate):
            keys, batch = next(batches)
            if keys[0].epoch != self.epoch:
                self.epoch, self.state = keys[0].epoch, ()
            seen += keys
            last = piece == self.settings.accumulate - 1
            with self._local_gradients(not last):
                with self._autocast():
                    loss = self.module(move(batch, self.device, self.settings.channels_last), self.state)
                (loss.mean * loss.count).backward()
            self.state = tuple(tensor.detach() for tensor in loss.state)
            loss_sum += float(loss.mean.detach()) * loss.count
            count += loss.count
            logs = {name: float(value.detach()) for name, value in loss.logs.items()}
        # From here to the end of a step a signal waits: another rank may be past its first one already.
        self.stop.is_read = True
        stop, late = float(bool(self.stop)), float(self._is_late(progress))
        # One message a step: a loss that is not finite makes the sum so on every rank.
        loss_sum, total, stop, late = self.group.totals([loss_sum, float(count), stop, late], self.device)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        # DistributedDataParallel has averaged over the processes; the mean is over all targets.
        torch._foreach_mul_(gradients, self.group.world / total)
        norm = float(torch.nn.utils.get_total_norm(gradients))
        names = [self.job.train.name(key.index) for key in seen]
        check_finite(self.run, self.step, loss_sum / total, norm, rate, names)
        if self.settings.clip_norm is not None:
            scale = min(1.0, self.settings.clip_norm / (norm + 1e-6))
            torch._foreach_mul_(gradients, scale)
        self.optimizer.step()
        for module in self.model.modules():
            if (after_step := getattr(module, "after_step", None)) is not None:
                after_step(self.step, self.job.total_steps)
        if self.average:
            self.average.update(self.model, self.step)
        return Step(loss_sum / total, rate, norm, self.settings.batch, logs, stop > 0, late > 0)

    def _is_late(self, progress: Progress) -> bool:
        minutes = self.settings.checkpoint_minutes
        return minutes is not None and time.monotonic() - progress.saved > 60 * minutes

    def _validate(self) -> bool:
        """Validate what will be saved; whether the stop rule holds."""
        self._equalise_buffers()
        with self._explained(f"the validation of step {self.step}"):
            reached = self.validation(weights.as_saved(self.published), self.step, self.seconds)
        self._show_progress()
        patience = self.settings.average_after
        if patience and not self.average and self.validation.stagnates(patience):
            self.average = Average(self.model, None, self.step)
        return reached

    def _validate_owed(self) -> bool:
        """The validation that a signal cut short, of the checkpoint resumed from."""
        self.validation_owed = False
        reached = self._validate()
        if self.group.is_main and self.validation.is_best(self.step):
            self.run.point("best", self.step)
        return reached

    def _save(self) -> None:
        """Write a checkpoint: every rank gives its state, rank 0 writes."""
        self._equalise_buffers()
        local = checkpoint.random_state(self.device)
        local |= {f"carried.{index}": tensor.cpu() for index, tensor in enumerate(self.state)}
        by_rank = self.group.gather(local)
        if self.group.is_main:
            tensors = {f"model.{name}": t for name, t in weights.raw_tensors(self.model).items()}
            if self.average:
                averaged = weights.raw_tensors(self.average.model)
                tensors |= {f"average.{name}": t for name, t in averaged.items()}
            tensors |= checkpoint.optimizer_state(self.optimizer, self.model)
            tensors |= {
                f"rank{rank}.{key}": t for rank, state in enumerate(by_rank) for key, t in state.items()
            }
            values = {
                "world": self.group.world,
                "epoch": self.epoch,
                "seconds": self.seconds,
                "validation_owed": self.validation_owed,
                "average_since": self.average.since if self.average else None,
                **self.validation.state(),
            }
            checkpoint.write(self.run, self.step, self.published, self.job.architecture, tensors, values)
            if self.validation.is_best(self.step):
                self.run.point("best", self.step)
            self.run.checkpoints.prune(self.settings.keep)
        self.group.barrier()

    def restore(self) -> None:
        """Continue from the run's last checkpoint.

        Raises:
            CompressnetError: it is damaged.
        """
        folder = self.run.resume_point()
        assert folder is not None
        tensors, values = checkpoint.read(self.run, folder)
        raw = _below(tensors, "model.")
        weights.load_into(self.model, raw, str(folder))
        if values.get("average_since") is not None and not self.average:
            self.average = Average(self.model, None, values["average_since"])
        if self.average:
            weights.load_into(self.average.model, _below(tensors, "average."), str(folder))
        checkpoint.restore_optimizer(self.optimizer, self.model, tensors, str(folder))
        mine = _below(tensors, f"rank{self.group.rank}.")
        checkpoint.restore_random_state(mine, self.device, str(folder))
        carried = sorted(_below(mine, "carried.").items(), key=lambda item: int(item[0]))
        self.state = tuple(tensor.to(self.device) for _, tensor in carried)
        self.step, self.epoch, self.seconds = values["step"], values["epoch"], values["seconds"]
        self.validation_owed = values["validation_owed"]
        self.validation.restore(values)
        kept = self.group.from_main(self.run.steps())
        if self.job.val is None or self.validation.best_step not in kept:
            # Without validation data the best is the last. And the best so far may be gone, where a later one
            # was better and this resumes from before it: the next validation chooses anew.
            self.validation.forget_best()
        if self.group.is_main:
            best = self.step if self.job.val is None else self.validation.best_step
            self.run.go_on_from(self.step, best)

    def _equalise_buffers(self) -> None:
        """Make float buffers the mean over ranks: each rank has seen other data."""
        for model in {id(m): m for m in (self.model, self.published)}.values():
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    self.group.average_(buffer)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.settings.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _local_gradients(self, local: bool) -> AbstractContextManager[Any]:
        """Keep the gradients of all but the last micro-batch on this rank."""
        if local and self.group.world > 1:
            return self.module.no_sync()  # type: ignore[operator]
        return nullcontext()


class _Reiterable:
    """An iterable made anew by a function."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __iter__(self) -> Iterator[list[Key]]:
        return self.make()


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
