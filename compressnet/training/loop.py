"""The one training loop: of every task, on one process or many, from step 0 or from a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from compressnet import registry, weights
from compressnet.data.protocol import Key
from compressnet.errors import CompressnetError, Interrupted
from compressnet.reporter import Reporter
from compressnet.run import Run
from compressnet.signature import parameters
from compressnet.tasks.protocol import Loss, State, Task
from compressnet.training import checkpoint
from compressnet.training.distributed import Group
from compressnet.training.evaluate import make_loader, move
from compressnet.training.job import Job, derive_ahead, drawn, to_device
from compressnet.training.optimizer import Average, learning_rate, make_optimizer
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


@dataclass
class Step:
    """What one optimiser step did.

    Attributes:
        loss: mean over the targets of the global batch.
        samples: in the global batch.
    """

    loss: float
    lr: float
    grad_norm: float
    samples: int
    logs: dict[str, float]


class Loop:
    """A training in progress.

    Args:
        run: where everything is written (by rank 0).
        job: data, task and model.
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
        compiled: Any = torch.compile(self.model) if self.settings.compile else self.model
        self.module: nn.Module = LossModule(job.task, compiled)
        if group.world > 1:
            self.module = DistributedDataParallel(self.module)
        self.tracker = Tracker(run)
        self.validation = Validation(self.tracker, job, device, group, reporter)
        self.step = 0
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
        self._show_progress()
        self.module.train()
        batches = self._batches()
        progress = _Progress(self.seconds)
        while self.step < self.job.total_steps:
            step = self._train_step(batches)
            self.step += 1
            self.seconds = progress.add(step)
            self.reporter.advance(1, loss=step.loss, lr=step.lr, samples_per_s=progress.rate)
            if self._due(self.settings.log_every):
                self._log(progress)
            stopped, late = self._asked_to_stop_or_save(progress)
            done = False
            if self._due(self.settings.evaluate_every):
                done = self._validate()
            elif not (stopped or late or self._due(self.settings.checkpoint_every)):
                continue
            self._save()
            progress.saved = time.monotonic()
            if done:
                return
            if stopped and self.step < self.job.total_steps:
                raise Interrupted(f"{self.stop.name or 'a signal'}: saved at step {self.step}")

    def _due(self, every: int | None) -> bool:
        return self.step == self.job.total_steps or (every is not None and self.step % every == 0)

    def _asked_to_stop_or_save(self, progress: _Progress) -> tuple[bool, bool]:
        """What any rank was asked, in one message: a signal to stop, the time to save."""
        minutes = self.settings.checkpoint_minutes
        late = minutes is not None and time.monotonic() - progress.saved > 60 * minutes
        flags = self.group.maximum([float(bool(self.stop)), float(late)], self.device)
        return bool(flags[0]), bool(flags[1])

    def _show_progress(self) -> None:
        self.reporter.stage("training", self.job.total_steps, "steps", initial=self.step)

    def _log(self, progress: _Progress) -> None:
        if self.group.is_main:
            self.tracker.log("train", self.step, seconds=round(self.seconds, 3), **progress.summary())
        progress.window.clear()

    def _batches(self) -> Iterator[tuple[list[Key], Any]]:
        """Endless micro-batches with their keys, from the current step on."""

        def micro() -> Iterator[list[Key]]:
            keys = drawn(self.job, self.run, self.group, self.step, self.job.total_steps)
            while chunk := list(islice(keys, self.job.micro_batch)):
                yield chunk

        loader = make_loader(self.job.train, _Reiterable(micro), self.settings.workers)
        return zip(micro(), loader, strict=True)

    def _train_step(self, batches: Iterator[tuple[list[Key], Any]]) -> Step:
        """One optimiser step: `accumulate` micro-batches, weighted by their target counts."""
        rate = learning_rate(self.step, self.job.total_steps, self.settings)
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
            with self._local_gradients(not last), self._out_of_memory():
                with self._autocast():
                    loss = self.module(move(batch, self.device, self.settings.channels_last), self.state)
                (loss.mean * loss.count).backward()
            self.state = tuple(tensor.detach() for tensor in loss.state)
            loss_sum += float(loss.mean.detach()) * loss.count
            count += loss.count
            logs = {name: float(value.detach()) for name, value in loss.logs.items()}
        loss_sum, total = self.group.totals([loss_sum, float(count)], self.device)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        # DistributedDataParallel has averaged over the processes; the mean is over all targets.
        torch._foreach_mul_(gradients, self.group.world / total)
        norm = float(torch.nn.utils.get_total_norm(gradients))
        self._check_finite(loss_sum / total, norm, rate, seen)
        if self.settings.clip_norm is not None:
            scale = min(1.0, self.settings.clip_norm / (norm + 1e-6))
            torch._foreach_mul_(gradients, scale)
        self.optimizer.step()
        for module in self.model.modules():
            if (after_step := getattr(module, "after_step", None)) is not None:
                after_step(self.step, self.job.total_steps)
        if self.average:
            self.average.update(self.model, self.step)
        return Step(loss_sum / total, rate, norm, self.settings.batch, logs)

    def _check_finite(self, loss: float, norm: float, rate: float, keys: list[Key]) -> None:
        bad = not (math.isfinite(loss) and math.isfinite(norm))
        if not self.group.maximum([float(bad)], self.device)[0]:
            return
        names = [self.job.train.name(key.index) for key in keys]
        samples = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise CompressnetError(
            f"the loss is not finite at step {self.step}: loss {loss}, gradient norm {norm}, lr {rate:g}, "
            f"samples {samples}; the last good checkpoint is kept; "
            f"try --set train.lr={rate / 3:.1e} or --set train.clip_norm=1.0"
        )

    def _validate(self) -> bool:
        """Validate what will be saved; whether the stop rule holds."""
        self._equalise_buffers()
        reached = self.validation(self.published, self.step, self.seconds)
        self._show_progress()
        return reached

    def _save(self) -> None:
        """Write a checkpoint: every rank gives its state, rank 0 writes."""
        self._equalise_buffers()
        local = checkpoint.random_state(self.device)
        local |= {f"carried.{index}": tensor.cpu() for index, tensor in enumerate(self.state)}
        by_rank = self.group.gather(local)
        if self.group.is_main:
            tensors = {f"model.{name}": t for name, t in weights.tensors_of(self.model).items()}
            tensors |= checkpoint.optimizer_state(self.optimizer, self.model)
            tensors |= {
                f"rank{rank}.{key}": t for rank, state in enumerate(by_rank) for key, t in state.items()
            }
            values = {
                "world": self.group.world,
                "epoch": self.epoch,
                "seconds": self.seconds,
                "best": self.validation.best,
            }
            checkpoint.write(self.run, self.step, self.published, self.job.architecture, tensors, values)
            if self.validation.take_is_best():
                self.run.point("best", self.step)
            self.run.prune(self.settings.keep)
        self.group.barrier()

    def restore(self) -> None:
        """Continue from the run's last checkpoint.

        Raises:
            CompressnetError: it was written by another number of processes, or is damaged.
        """
        folder = self.run.checkpoint("last")
        tensors, values = checkpoint.read(folder)
        if values["world"] != self.group.world:
            raise CompressnetError(
                f"{self.run.folder} was trained by {values['world']} process(es); it cannot go on bit-equal "
                f"on {self.group.world}: use torchrun --nproc-per-node {values['world']}"
            )
        raw = _below(tensors, "model.")
        weights.load_into(self.model, raw, str(folder))
        if self.average:
            weights.load_into(self.average.model, weights.load(folder / "model.safetensors")[1], str(folder))
        checkpoint.restore_optimizer(self.optimizer, self.model, tensors)
        mine = _below(tensors, f"rank{self.group.rank}.")
        checkpoint.restore_random_state(mine, self.device)
        carried = sorted(_below(mine, "carried.").items(), key=lambda item: int(item[0]))
        self.state = tuple(tensor.to(self.device) for _, tensor in carried)
        self.step, self.epoch, self.seconds = values["step"], values["epoch"], values["seconds"]
        self.validation.best = values["best"]

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
        if local and isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync()
        return nullcontext()

    @contextmanager
    def _out_of_memory(self) -> Iterator[None]:
        """Turn torch's out-of-memory errors into the settings that help."""
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            raise CompressnetError(self._memory_advice()) from error

    def _memory_advice(self) -> str:
        train, lines = self.settings, []
        if self.job.micro_batch > 1:
            lines.append(f"--set train.accumulate={train.accumulate * 2}")
        if "crop" in parameters(registry.find("data", self.run.recipe.data.name)):
            crop = self.run.recipe.data.arguments.get("crop")
            lines.append(f"--set data.crop={crop // 2 if crop else 512}")
        if train.dtype == "float32":
            lines.append("--set train.dtype=bfloat16")
        peak = ""
        if self.device.type == "cuda":
            peak = f", peak {torch.cuda.max_memory_allocated(self.device) / 1e9:.1f} GB"
        return (
            f"out of memory on {self.device} at step {self.step} (micro-batch {self.job.micro_batch}{peak}); "
            f"the last checkpoint is kept; what helps: {'  '.join(lines)}"
        )


class _Progress:
    """Counts of the current stretch of training, for the log and the progress line."""

    def __init__(self, seconds_before: float) -> None:
        self.before, self.began = seconds_before, time.monotonic()
        self.saved = self.began
        self.samples = 0
        self.window: list[Step] = []

    def add(self, step: Step) -> float:
        """Count a step; returns the seconds of training so far."""
        self.window.append(step)
        self.samples += step.samples
        return self.before + time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Samples a second since this process began."""
        return self.samples / max(1e-9, time.monotonic() - self.began)

    def summary(self) -> dict[str, float]:
        """Means over the window, the newest learning rate."""
        last, count = self.window[-1], len(self.window)
        means = {key: sum(step.logs[key] for step in self.window) / count for key in last.logs}
        loss = sum(step.loss for step in self.window) / count
        norm = sum(step.grad_norm for step in self.window) / count
        return {"loss": loss, "lr": last.lr, "grad_norm": norm, "samples_per_s": round(self.rate, 3), **means}


class _Reiterable:
    """A batch sampler: an iterable made anew by a function."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __iter__(self) -> Iterator[list[Key]]:
        return self.make()


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
