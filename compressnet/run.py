"""A run directory: everything that came out of one recipe.

runs/fip_sample-1/
  recipe.yaml     as resolved: trains again to the same weights
  run.json        what, when, on what; status running | done | interrupted | failed
  metrics.jsonl   one line an event: log, evaluation, resume
  checkpoints/    step-<n>/ (weights; of the newest two the training state), last, best: pointers
  eval.json, previews/, report.html
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any

from compressnet import files, json_file, run_lock, run_names
from compressnet.checkpoints import Checkpoints
from compressnet.errors import CompressnetError, RecipeError
from compressnet.recipe import Recipe
from compressnet.reporter import Reporter, Silent
from compressnet.run_files import COMPRESSION, Compression, read_facts, read_rows

CHANGEABLE = (
    "train.steps",
    "train.epochs",
    "train.workers",
    "train.log_every",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.keep",
    "train.previews",
    "train.track",
    "eval.batch",
    "eval.workers",
)
"""What `--resume` may change: nothing that touches the weights of a step (more steps bend a schedule)."""


class Run:
    """An opened run directory. `Run.create` and `Run.open` are the ways in.

    Args:
        start: the checkpoint to resume from, `step-<n>`; None: the newest.
    """

    def __init__(self, folder: Path, recipe: Recipe, start: str | None = None) -> None:
        self.folder, self.recipe, self.start = folder, recipe, start
        self._held: FileIO | None = None
        self._has_last = False

    @classmethod
    def create(cls, recipe: Recipe, runs: Path = Path("runs"), folder: Path | None = None) -> Run:
        """Make a new run directory.

        Args:
            recipe: what will be trained.
            runs: where `<recipe>-<n>` is made with the next free n.
            folder: this directory instead.

        Raises:
            CompressnetError: `folder` is in use, or nothing can be written there.
        """
        wanted = folder or runs / f"{recipe.name}-1"
        if folder is not None and os.path.lexists(folder):
            raise CompressnetError(
                f"{folder} exists: choose another -o, or continue it with --resume {folder}"
            )
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            run_names.sweep(wanted.parent)
            with files.temporary_folder(wanted) as temporary:
                (temporary / "checkpoints").mkdir()
                run = cls(temporary, recipe)
                files.write_text(temporary / "recipe.yaml", recipe.to_yaml())
                run.update(
                    recipe=recipe.name,
                    smoke=recipe.is_smoke,
                    seed=recipe.seed,
                    status="created",
                    started=_now(),
                )
                run.folder = run_names.take(temporary, folder, runs, recipe.name)
        except OSError as error:
            raise files.write_error(folder or runs, error) from error
        return run

    @classmethod
    def open(cls, folder: Path, start: str | None = None) -> Run:
        """Open an existing run.

        Args:
            start: resume from this checkpoint, `step-<n>`, instead of the newest.

        Raises:
            CompressnetError: not a run directory, its files are damaged, or there is no such checkpoint.
        """
        if not (folder / "run.json").is_file():
            raise CompressnetError(f"{folder} is not a run directory (it has no run.json)")
        facts = read_facts(folder / "run.json")
        recipe = Recipe.load(folder / "recipe.yaml")
        recipe = recipe.model_copy(update={"name": facts["recipe"], "is_smoke": facts["smoke"]})
        run = cls(folder, recipe, start)
        if start is not None:
            run.resume_point()
        return run

    def change(self, overrides: Sequence[str]) -> None:
        """Change settings of a run that will be continued, where that keeps it the same run.

        Raises:
            RecipeError: a key that would make it another run; both values are shown.
        """
        if not overrides:
            return
        self.require(Recipe.parse(self.recipe.to_yaml(), str(self.folder / "recipe.yaml"), overrides))

    def require(self, wanted: Recipe) -> None:
        """Continue as `wanted`, where that keeps it the same run (see `change`)."""
        mine, theirs = _flat(self.recipe.to_dict()), _flat(wanted.to_dict())
        problems = [
            f"--resume {self.folder}: it was begun with {key}={mine.get(key)}, not {theirs.get(key)}; "
            f"only {', '.join(CHANGEABLE)} may change"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key) and key not in CHANGEABLE
        ]
        if problems:
            raise RecipeError(problems)
        if mine == theirs:
            return
        with self.lock():  # not under the hands of a process that trains it
            self.recipe = wanted.model_copy(
                update={"name": self.recipe.name, "is_smoke": self.recipe.is_smoke}
            )
            files.write_text(self.folder / "recipe.yaml", self.recipe.to_yaml())

    @property
    def facts(self) -> dict[str, Any]:
        """The content of run.json."""
        path = self.folder / "run.json"
        return read_facts(path) if path.exists() else {}

    def update(self, **facts: Any) -> None:
        """Merge `facts` into run.json."""
        self.check_there()
        files.write_json(self.folder / "run.json", {**self.facts, **facts})

    def log(self, event: str, **values: Any) -> None:
        """Append one line to metrics.jsonl; a float that is not finite becomes a text, as JSON has none."""
        line = json.dumps(files.finite({"event": event, **values}))
        self.check_there()
        try:
            with open(self.folder / "metrics.jsonl", "a+b") as file:
                if file.tell() and _last_byte(file) != b"\n":  # torn by a kill
                    file.write(b"\n")
                file.write(line.encode() + b"\n")
        except OSError as error:
            raise files.write_error(self.folder / "metrics.jsonl", error) from error

    def metrics(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of one event or of all.

        What a kill made worthless is left out: a torn or damaged line, and the steps that the resumed run did
        again.
        """
        rows: list[dict[str, Any]] = []
        for row in read_rows(self.folder / "metrics.jsonl"):
            if row["event"] == "start":
                rows = []
            if row["event"] == "resume":
                rows = [before for before in rows if before["step"] <= row["step"]]
            rows.append(row)
        return [row for row in rows if event is None or row["event"] == event]

    def checkpoint(self, which: str = "best") -> Path:
        """The folder of the checkpoint `best`, `last` or `step-<n>` (see `Checkpoints.find`)."""
        return self.checkpoints.find(which)

    @property
    def checkpoints(self) -> Checkpoints:
        """Its checkpoints."""
        return Checkpoints(self.folder / "checkpoints")

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints, in order."""
        return self.checkpoints.steps()

    def check_trains(self) -> None:
        """See that there is a training to begin or to go on with.

        Raises:
            CompressnetError: it is a compressed network that is not fine-tuned.
        """
        facts = self.facts
        if facts.get("compressed") and not facts.get("total_steps"):
            raise CompressnetError(
                f"{self.folder} is a compressed network and has no training to go on with: train it further "
                f"as a run of its own, `train {self.folder / 'recipe.yaml'} --set init={self.folder}`"
            )

    def add_stage(self, stage: str, figure: float | None) -> None:
        """Add the metric of a stage on validation data to compress.json."""
        path = self.folder / COMPRESSION
        if figure is None or not path.is_file():
            return
        report = json_file.read_form(Compression, path).model_dump()
        report["validation"][stage] = figure
        files.write_json(path, files.finite(report))

    def resume_point(self) -> Path | None:
        """The checkpoint to go on from (see `Checkpoints.resume_point`)."""
        return self.checkpoints.resume_point(self.start)

    def point(self, pointer: str, step: int) -> None:
        """Make `last` or `best` name the checkpoint of `step`."""
        self.check_there()
        self.checkpoints.point(pointer, step)
        self._has_last |= pointer == "last"

    def go_on_from(self, step: int, best: int | None) -> None:
        """Make the pointers true for a run that goes on from `step` (see `Checkpoints.go_on_from`)."""
        self.check_there()
        self.checkpoints.go_on_from(step, best)
        self._has_last = True

    @contextmanager
    def lock(self, reporter: Reporter | None = None) -> Iterator[None]:
        """Hold the run for this process. The system frees the lock of a process that dies, however it dies.

        Args:
            reporter: told of a file system that has no locks.

        Raises:
            CompressnetError: another process trains it.
        """
        with run_lock.hold(self.folder, reporter or Silent()) as (self._held, is_locked):
            try:
                self.check_there()  # it may have been moved, and another made in its place, in this moment
                files.remove_stale(self.checkpoints.folder, alone=is_locked)
                files.remove_stale(self.folder)
                yield
            finally:
                self._held = None

    def check_there(self) -> None:
        """See, before something is written, that the folder is still this run's.

        Raises:
            CompressnetError: it was moved or deleted, and perhaps another run has its name by now.
        """
        if not self._is_there():
            raise CompressnetError(
                f"{self.folder}: the run's folder has gone (moved or deleted); nothing more is written"
            )

    def _is_there(self) -> bool:
        if self._has_last and not (self.checkpoints.folder / "last").exists():
            return False
        return self.folder.is_dir() if self._held is None else run_lock.is_of(self._held, self.folder)

    def discard_if_never_started(self) -> None:
        """Remove a run that failed before training began: it holds nothing, and its name is free again."""
        if self._is_there() and not (self.folder / "metrics.jsonl").exists() and not self.steps():
            shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self, status: str, reason: str | None = None, **facts: Any) -> None:
        """Record how the run ended."""
        self.update(status=status, reason=reason, ended=_now(), **facts)


def find_unfinished(runs: Path, recipe: Recipe, folder: Path | None = None) -> Run | None:
    """The newest run of `recipe` that has a checkpoint and is not done: what `--resume auto` takes.

    Args:
        folder: look at this run only.
    """
    numbered = sorted(runs.glob(f"{glob.escape(recipe.name)}-*"), key=run_names.number_of, reverse=True)
    for candidate in [folder] if folder else numbered:
        try:
            run = Run.open(candidate)
        except CompressnetError:  # damaged, or of a recipe that is no longer valid: not one to go on with
            continue
        same = run.recipe.to_dict() == recipe.to_dict() and run.recipe.is_smoke == recipe.is_smoke
        if same and run.facts.get("status") != "done" and run.resume_point():
            return run
    return None


def _last_byte(file: IO[bytes]) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train.lr": 0.001, ...}`; the smoke block is no part of what is trained."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.") if prefix + key != "smoke" else {}
        else:
            flat[prefix + key] = value
    return flat


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
