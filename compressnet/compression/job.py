"""One compression from a subject to what is written: data opened, network changed, everything measured.

subject -> Job (network, task, data) -> go -> Done (network, report, figures) -> write -> run or weights file
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressnet import files, weights
from compressnet.analysis.bench import usual_length
from compressnet.analysis.count import rate_of
from compressnet.analysis.example import Size, example
from compressnet.analysis.memory import peak_of_process
from compressnet.compression import finetune as finetuning
from compressnet.compression import picture, stored
from compressnet.compression.calibration import SAMPLES, calibration_of, calibration_of_own
from compressnet.compression.methods import Compressed, build, compressed
from compressnet.compression.network import Calibration, Selection
from compressnet.compression.report import Report, report
from compressnet.data.protocol import DataSet, NoSuchSplit, Split
from compressnet.errors import CompressnetError, UsageError, told
from compressnet.recipe import Component, Eval, Recipe
from compressnet.reporter import Reporter
from compressnet.run import Run
from compressnet.side import Side, read_sides
from compressnet.subject import Loaded, load, parse
from compressnet.training import cpu_settings
from compressnet.training import device as devices
from compressnet.training.evaluate import check_samples, measured


@dataclass(frozen=True)
class Done:
    """What came out.

    Attributes:
        figures: the task's metric on validation data by stage: parent, converted, re-estimated, fine-tuned.
        test: of the parent and of what became of it on the test split; None: not measured.
    """

    result: Compressed
    report: Report
    figures: dict[str, float]
    metric: str
    facts: dict[str, Any]
    test: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: compress.json and `--json`."""
        return {
            **self.facts,
            "metric": self.metric,
            "validation": self.figures,
            "test": self.test,
            **self.report.as_dict(),
        }


class _Data:
    """The data set of a compression, opened split by split."""

    def __init__(self, data_set: DataSet, assets: dict[str, Any], seed: int) -> None:
        self._data_set, self._assets, self.seed = data_set, assets, seed

    def split(self, name: str) -> Split | None:
        """None: there is no such split, or it is empty."""
        try:
            split = self._data_set.open(name, self._assets, self.seed)
        except NoSuchSplit:
            return None
        return split if len(split) else None

    def train(self) -> Split:
        """The split for calibration.

        Raises:
            CompressnetError: it cannot be opened; the message names what does without it.
        """
        try:
            return self._data_set.open("train", self._assets, self.seed)
        except CompressnetError as error:
            raise CompressnetError(f"{error}; --data-free compresses without data") from error


class Job:
    """A compression, set up. `Job.open` is the way in.

    Attributes:
        recipe: that of the run which it is, or the one for what has none.
        plan: that of the fine-tuning; None: there is none.
    """

    def __init__(
        self,
        side: Side,
        module: nn.Module,
        loaded: Loaded | None,
        methods: tuple[str, ...],
        selection: Selection,
        calibration: Calibration,
        data: _Data | None,
        device: torch.device,
        reporter: Reporter,
        recipe: Recipe | None = None,
        plan: Recipe | None = None,
    ) -> None:
        self.text, self.recipe, self.plan = side.text, recipe, plan
        self.module, self.loaded, self.methods, self.selection = module, loaded, methods, selection
        self.calibration, self.device, self.reporter = calibration, device, reporter
        self.data, self.val = data, data.split("val") if data else None

    @classmethod
    def open(
        cls,
        subject: str,
        methods: tuple[str, ...],
        *,
        only: tuple[str, ...] = (),
        skip: tuple[str, ...] = (),
        data: str | None = None,
        samples: int = SAMPLES,
        data_free: bool = False,
        inputs: Sequence[str] = (),
        device: str = "auto",
        base: Recipe | None = None,
        finetune: int = 0,
        overrides: Sequence[str] = (),
        reporter: Reporter,
    ) -> Job:
        """Open the network, and the data unless `data_free`.

        Args:
            base: a recipe for what has none.
            finetune: steps to train afterwards, by the network's recipe, changed by `overrides`.

        Raises:
            UsageError: a method or pattern that is none, an operator, or no data to calibrate on.
            CompressnetError: files are missing or damaged.
        """
        for method in methods:
            build(method)
        (side,) = read_sides([subject], {}, inputs)
        if "operator" in (side.subject.kind, side.subject.name):
            raise CompressnetError(f"{side.text}: a classical operator is not a network: nothing to compress")
        if not side.is_stored and side.subject.kind != "py":
            raise UsageError(
                f"{side.text}: its weights are random: compress takes a run, a weights file, zoo:NAME or "
                "py:FILE.py:NAME"
            )
        chosen = devices.choose(device)
        loaded = load(side.subject) if side.is_stored else None
        if loaded and loaded.run:
            if base is not None:
                raise UsageError(f"{side.text} has a recipe: change it with --set, leave --recipe away")
            base = loaded.run.recipe
        plan = _plan(side, loaded, base, finetune, overrides) if finetune else None
        cpu_settings.set_up(chosen, recipe.train.cpu_matmul if (recipe := plan or base) else "auto")
        with nullcontext() if loaded else told(side.text):
            module = (loaded.model if loaded else side.module()).eval().to(chosen)
        selection = Selection(only, skip)
        selection.check(module)
        opened = None
        if data_free:
            if data is not None:
                raise UsageError("--data and --data-free contradict each other: keep one")
            calibration = Calibration.of(None, module)
        elif loaded is not None:
            calibration, opened = _data(loaded, base, data, samples, chosen, reporter)
        elif data is not None:
            calibration = calibration_of_own(Component.parse("data", data), chosen, samples, reporter)
        else:
            raise UsageError(
                f"{side.text}: it does not say where data is: add --data NAME:root=DIR of pictures, or "
                "--data-free; in Python, compressnet.compress takes any inputs"
            )
        return cls(
            side, module, loaded, methods, selection, calibration, opened, chosen, reporter, base, plan
        )

    @property
    def is_stored(self) -> bool:
        return self.loaded is not None

    @property
    def is_smoke(self) -> bool:
        architecture = self.loaded.architecture if self.loaded else None
        return bool(architecture and architecture.smoke)

    def go(self, batch: int, size: Size, clock: str, *, is_dry: bool = False) -> Done:
        """Compress, and measure all there is to measure.

        Args:
            size: of the inputs to count and time with; None: a usual one.
            clock: "wall" or "cpu", see `analysis.timing`.
            is_dry: leave out times and metrics.
        """
        with self.loaded.running() if self.loaded else told(self.text):  # what a user's code raises names it
            return self._gone(batch, size, clock, is_dry)

    def _gone(self, batch: int, size: Size, clock: str, is_dry: bool) -> Done:
        began = time.monotonic()
        figures: dict[str, float] = {}
        if not is_dry:
            self._measure("parent", self.module, figures)

        def seen(stage: str, module: nn.Module) -> None:
            if not is_dry:
                self._measure(stage, module, figures)

        result = compressed(self.module, self.calibration, self.methods, self.selection, self.reporter, seen)
        inputs = self._example(batch, size)
        self.reporter.stage("timing", 1, "networks")
        found = report(
            self.module, result, self.calibration, inputs, "cpu" if clock == "cpu" else "wall", not is_dry
        )
        facts = {
            "subject": self.text,
            "parent": self._digest(self.module),
            "digest": self._digest(result.module, result),
            "methods": list(self.methods),
            "only": list(self.selection.only),
            "skip": list(self.selection.skip),
            "smoke": self.is_smoke,
            "device": devices.name(self.device),
            "threads": torch.get_num_threads(),
            "seconds": round(time.monotonic() - began, 1),
            "peak_bytes": peak_of_process(),
        }
        metric = self.loaded.task.best[0] if self.loaded else ""
        return Done(result, found, figures, metric, facts)

    def write(
        self, done: Done, output: Path | None, runs: Path, command: Sequence[str], *, replace: bool = True
    ) -> Path:
        """Write a weights file, or a run; returns where it is.

        Args:
            replace: take the place of a weights file that is there.

        Raises:
            CompressnetError: it cannot be written.
        """
        assert self.loaded is not None
        assert self.loaded.architecture is not None
        architecture = stored.with_edits(self.loaded.architecture, done.result.edits)
        module = done.result.module.cpu()
        if output is not None and output.suffix == ".safetensors":
            weights.save(output, module, architecture, replace=replace)
            files.write_json(stored.report_of(output), done.as_dict(), replace=replace)
            return output
        assert self.recipe is not None
        parent = {"run": self.text, "digest": str(done.facts["parent"])}
        name = stored.name_of(self.recipe.name, self.methods)
        recipe, steps = (self.plan, self.plan.train.steps or 0) if self.plan else (self.recipe, 0)
        run = stored.write_run(
            recipe, module, architecture, parent, command, done.as_dict(), name, output, runs, steps
        )
        files.write_bytes(run.folder / "compress.png", picture.png(done.report, self.text))
        return run.folder

    def finetune(self, done: Done, folder: Path, command: Sequence[str]) -> Done:
        """Train what `write` wrote.

        Raises:
            Interrupted, CompressnetError: see `finetune.finetune`.
        """
        run = Run.open(folder)
        outcome = finetuning.finetune(run, self.device, self.reporter, command)
        figures = done.figures if outcome.best is None else {**done.figures, "fine-tuned": outcome.best}
        trained = {"steps": outcome.step, "seconds": round(outcome.seconds, 1), "digest": outcome.digest}
        trained["best"] = run.checkpoint("best").name
        return replace(done, figures=figures, facts={**done.facts, "finetuned": trained})

    def test(self, done: Done, place: Path) -> Done:
        """Measure the parent and what was written on the test split: for a record, when all is chosen."""
        split = self.data.split("test") if self.data else None
        if split is None:
            return done
        last = load(parse(str(place))).model.to(self.device)
        forms = {"parent": self.module, "compressed": last}
        return replace(
            done, test={name: self._figure(split, form, f"test, {name}") for name, form in forms.items()}
        )

    def _measure(self, stage: str, module: nn.Module, figures: dict[str, float]) -> None:
        if self.val is not None:
            figures[stage] = self._figure(self.val, module, f"validation, {stage}")

    def _figure(self, split: Split, module: nn.Module, title: str) -> float:
        """The task's metric."""
        assert self.loaded is not None
        task, settings = self.loaded.task, self.recipe.eval if self.recipe else Eval()
        found = measured(task, module, split, self.device, self.reporter, settings, title=title)
        return found.compute()[task.best[0]]

    def _example(self, batch: int, size: Size) -> tuple[Any, ...]:
        if size is None and hasattr(self.module, "init_state"):
            unit, _ = rate_of(self.module, example(self.module, batch))
            size = usual_length(unit)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return example(self.module, batch, size)

    def _digest(self, module: nn.Module, result: Compressed | None = None) -> str | None:
        if self.loaded is None or self.loaded.architecture is None:
            return None
        architecture = self.loaded.architecture
        if result is not None:
            architecture = replace(architecture, edits=[*architecture.edits, *result.edits])
        return weights.digest(weights.tensors_of(module), architecture)


def _plan(
    side: Side, loaded: Loaded | None, base: Recipe | None, steps: int, overrides: Sequence[str]
) -> Recipe:
    """The recipe of the fine-tuning."""
    if loaded is None or loaded.architecture is None:
        raise UsageError(
            f"{side.text}: --finetune needs a task, which a network of your own has not: train it in Python"
        )
    if base is None:
        raise UsageError(
            f"{side.text}: there is no recipe to fine-tune it by: add --recipe NAME, of its task and data"
        )
    return finetuning.recipe_for(base, loaded.architecture, side.text, steps, overrides)


def _data(
    loaded: Loaded,
    base: Recipe | None,
    text: str | None,
    samples: int,
    device: torch.device,
    reporter: Reporter,
) -> tuple[Calibration, _Data]:
    """Calibration on the training split, and where the others come from."""
    component = _component(loaded, base, text)
    data_set = component.build()
    check_samples(loaded.task, data_set, component.name, loaded.subject.name)
    opened = _Data(data_set, loaded.assets, base.seed if base else 0)
    calibration = calibration_of(
        loaded.task, component, opened.train(), device, opened.seed, samples, reporter=reporter
    )
    return calibration, opened


def _component(loaded: Loaded, base: Recipe | None, text: str | None) -> Component:
    if text is not None:
        return Component.parse("data", text)
    if base is not None:
        return base.data
    if loaded.architecture and loaded.architecture.data.get("name") == "sample":
        return Component(kind="data", name="sample", arguments={})
    raise UsageError(
        f"{loaded.subject.text} does not say where data is: add --data NAME:root=DIR, or --data-free"
    )
