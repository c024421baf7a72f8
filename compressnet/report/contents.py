"""What the report shows of a run, read and checked; nothing of it needs the run's data.

RUN[@checkpoint] -> run.json, metrics.jsonl, eval.json, previews/, the description of its weights -> Contents
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from compressnet import json_file, registry
from compressnet.errors import CompressnetError, CompressnetNote, RecipeError, UsageError
from compressnet.recipe import Recipe
from compressnet.report.compression import PICTURE, Compressed, read_compression, read_picture
from compressnet.report.figures import number_of
from compressnet.report.previews import Previews, read_previews, read_whole
from compressnet.results.forms import Data, Figure
from compressnet.results.records import PUBLISHED, read_published, read_records
from compressnet.run import Run
from compressnet.subject import RUN, Subject, parse, recipe_path
from compressnet.subject import names as names_of

if TYPE_CHECKING:
    from compressnet.analysis.count import Count

RESULTS = Path("results")


class Confusion(json_file.Form):
    """`details.confusion` of a classifier's evaluation."""

    classes: list[str]
    counts: list[list[int]]

    @model_validator(mode="after")
    def _square(self) -> Confusion:
        if {len(self.classes)} != {len(self.counts), *map(len, self.counts)}:
            raise ValueError("not a row and a column for each class")
        return self


class Details(json_file.Form):
    """What an evaluation keeps beside figures, as far as it is shown."""

    confusion: Confusion | None = None


class Evaluated(json_file.Form):
    """RUN/eval.json: what `eval` found last."""

    subject: str
    checkpoint: str | None
    data: Data
    split: str
    device: str
    metrics: dict[str, Figure]
    rows: dict[str, dict[str, Figure]]
    measures: dict[str, Any] = Field(default_factory=dict)
    details: Details = Details()


@dataclass(frozen=True)
class Counted:
    """The network of a run: its layers, and the shapes of the inputs that they were counted for."""

    count: Count
    inputs: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Theirs:
    """Others' figures for what this run does: metric -> figure as it was published, and what it is."""

    figures: Mapping[str, str | float]
    what: str


@dataclass(frozen=True)
class Chosen:
    """A run, and the checkpoint of it that the report is of; nothing else of it has been read.

    Attributes:
        step: of the checkpoint; None: there is none yet.
    """

    subject: Subject
    run: Run
    step: int | None

    @property
    def is_named(self) -> bool:
        """Whether the checkpoint was asked for: what is of another one does not stand in for it."""
        return self.subject.checkpoint != "best"


@dataclass(frozen=True)
class Contents:
    """A run as the report shows it.

    Attributes:
        facts: of run.json.
        rows: of metrics.jsonl.
        best: the task's metric, and whether "max" or "min" is best.
        reached: the last step that is logged.
        compressed, picture: what compress.json says, and compress.png as a data URI, of a compressed network.
        validated: the figures of the validation at the checkpoint; where that was not asked for and was not
            validated, of the best one; {}: there are none.
        best_validation: the best one of the whole training.
    """

    chosen: Chosen
    facts: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    best: tuple[str, str]
    reached: int
    validated: Mapping[str, Any]
    best_validation: Mapping[str, Any]
    evaluated: Evaluated | None
    theirs: Theirs | None
    previews: Previews | None
    counted: Counted | None
    compressed: Compressed | None = None
    picture: str | None = None

    @property
    def run(self) -> Run:
        return self.chosen.run

    @property
    def subject(self) -> str:
        """As it was named, with `@checkpoint`."""
        return self.chosen.subject.text

    @property
    def step(self) -> int | None:
        """Of the checkpoint; None: there is none."""
        return self.chosen.step

    @property
    def is_over(self) -> bool:
        """Whether the run is done: what it lacks will not come."""
        return bool(self.facts["status"] == "done")

    @property
    def evaluates_another(self) -> bool:
        """Whether the evaluation is of another checkpoint than the report."""
        if self.evaluated is None or self.step is None:
            return False
        return self.evaluated.checkpoint not in (None, f"step-{self.step}")


def choose(text: str) -> Chosen:
    """Open a run.

    Args:
        text: the run as a subject: `RUN`, `RUN@last`, `RUN@step-500`.

    Raises:
        UsageError: something that is no run.
        CompressnetError: a folder that is none, a damaged run, or nothing of that name is there.
    """
    subject = _run_subject(text)
    assert subject.path is not None
    run = Run.open(subject.path)
    has_weights = subject.checkpoint != "best" or bool(run.steps())
    step = int(run.checkpoint(subject.checkpoint).name.removeprefix("step-")) if has_weights else None
    return Chosen(subject, run, step)


def read_contents(chosen: Chosen, results: Path | None = None) -> Contents:
    """Read what the report shows of a run.

    Args:
        results: the folder of recorded results: published figures are there. None: `results`, if it is one.

    Raises:
        UsageError: no folder of results.
        CompressnetError: the run is damaged.
    """
    run, step = chosen.run, chosen.step
    if results is not None and not (results / PUBLISHED).is_file():
        raise UsageError(f"--results {results}: it is no folder of recorded results: it has no {PUBLISHED}")
    facts, rows = run.facts, run.metrics()
    if run.steps() and not rows:
        log = run.folder / "metrics.jsonl"
        warnings.warn(CompressnetNote(f"{log}: missing or damaged: the page has no curves"), stacklevel=2)
    picture = run.folder / PICTURE
    task: Any = registry.find("task", run.recipe.task.name)
    best = _best_validation(rows, task.best)
    here = [row for row in rows if row["event"] == "evaluation" and row["step"] == step]
    validated = here[-1] if here else {} if chosen.is_named else best
    evaluated = _evaluated(run.folder / "eval.json")
    return Contents(
        chosen=chosen,
        facts=facts,
        rows=rows,
        best=task.best,
        reached=max([facts.get("step") or 0, *(row["step"] for row in rows)]),
        validated=validated,
        best_validation=best if chosen.is_named else validated,
        evaluated=evaluated,
        theirs=_theirs(run, evaluated, task.best[0], results or RESULTS) if evaluated else None,
        previews=read_previews(run.folder / "previews", step, task, exactly=chosen.is_named),
        counted=None if step is None else _counted(chosen),
        compressed=read_compression(run.folder),
        picture=read_whole(picture, lambda: read_picture(picture)),
    )


def _run_subject(text: str) -> Subject:
    subject = parse(text, (RUN,))
    if subject.kind != RUN:
        what = {"weights": "a weights file", "recipe": "a recipe"}.get(
            subject.kind, f"of kind {subject.kind}"
        )
        raise UsageError(f"{subject.name} is {what}: a report is of a run, name its folder (runs/NAME-1)")
    return subject


def _best_validation(rows: Sequence[Mapping[str, Any]], best: tuple[str, str]) -> Mapping[str, Any]:
    metric, direction = best
    sign = -1 if direction == "max" else 1
    found = [row for row in rows if row["event"] == "evaluation"]
    known = [(sign * value, row) for row in found if (value := number_of(row.get(metric))) is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else {}


def _evaluated(path: Path) -> Evaluated | None:
    if not os.path.lexists(path):
        return None
    try:
        return json_file.read_form(Evaluated, path)
    except CompressnetError as error:
        raise CompressnetError(f"{error}; `compressnet eval {path.parent}` writes it anew") from error


def _counted(chosen: Chosen) -> Counted:
    """Layer by layer, from what the weights say of themselves; their values are read where it must be run."""
    import torch

    from compressnet import weights
    from compressnet.analysis.count import count
    from compressnet.analysis.example import example
    from compressnet.analysis.trace import NeedsValues
    from compressnet.subject import load

    path = chosen.run.checkpoints.weights(chosen.subject.checkpoint)
    with torch.device("meta"):
        module = weights.build_from(path)
    try:
        inputs = example(module)
        return Counted(count(module, inputs), [list(x.shape) for x in inputs])
    except NeedsValues:
        module = load(chosen.subject).model
        inputs = example(module)
        return Counted(count(module, inputs), [list(x.shape) for x in inputs])


def _theirs(run: Run, evaluated: Evaluated, metric: str, folder: Path) -> Theirs | None:
    """Others' figures that belong beside an evaluation: of the same operator, or of the same recipe."""
    from compressnet.results.evaluations import published_for
    from compressnet.results.pages import theirs_for

    # A folder of that name, of whoever has it, need not be one of records.
    if run.recipe.is_smoke or not (folder / PUBLISHED).is_file():
        return None
    published = read_published(folder)
    if operator := run.recipe.task.arguments.get("operator"):
        found = theirs_for(operator, evaluated.data.fingerprint, read_records(folder), published)
        figures = {key: found[key] for key in ("psnr", "ssim") if found.get(key) is not None}
        return Theirs(figures, found["what"]) if figures else None
    entry = published_for(run.recipe.name, published)
    if (
        entry is None
        or entry.get("figure") is None
        or evaluated.split != "test"
        or not _is_shipped(run.recipe)
    ):
        return None
    return Theirs({metric: entry["figure"]}, entry["what"])


def _is_shipped(mine: Recipe) -> bool:
    """Whether a recipe does what the one of its name in the package does: others' figures are of that."""
    if mine.name not in names_of("recipe"):
        return False
    try:
        theirs = Recipe.load(recipe_path(mine.name))
    except RecipeError:
        return False
    same_data = mine.data.name == theirs.data.name
    return same_data and mine.task == theirs.task and mine.model == theirs.model
