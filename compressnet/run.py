"""A run directory: everything that came out of one recipe.

runs/fip_sample-1/
  recipe.yaml     as resolved: trains again to the same weights
  run.json        what, when, on what; status running | done | interrupted | failed
  metrics.jsonl   one line an event: log, evaluation, resume
  checkpoints/    step-<n>/ (model.safetensors; state.* of the newest), last, best: one-line pointers
  eval.json, previews/
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

from compressnet import files, run_lock, run_names
from compressnet.errors import CompressnetError, RecipeError, UsageError
from compressnet.recipe import Recipe
from compressnet.reporter import Reporter, Silent

CHECKPOINT_FILES = ("model.safetensors", "state.safetensors", "state.json")
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
    """An opened run directory. `Run.create` and `Run.open` are the ways in."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
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
    def open(cls, folder: Path) -> Run:
        """Open an existing run.

        Raises:
            CompressnetError: not a run directory, or its files are damaged.
        """
        if not (folder / "run.json").is_file():
            raise CompressnetError(f"{folder} is not a run directory (it has no run.json)")
        facts = _read_json(folder / "run.json")
        recipe = Recipe.load(folder / "recipe.yaml")
        if not {"recipe", "smoke"} <= set(facts):
            raise CompressnetError(f"{folder / 'run.json'} is damaged: it does not name the recipe")
        recipe = recipe.model_copy(update={"name": facts["recipe"], "is_smoke": facts["smoke"]})
        return cls(folder, recipe)

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
        return _read_json(path) if path.exists() else {}

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

        What a kill made worthless is left out: a torn line, and the steps that the resumed run did again.
        """
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows: list[dict[str, Any]] = []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row.get("event") == "resume":
                rows = [before for before in rows if before.get("step", 0) <= row["step"]]
            rows.append(row)
        return [row for row in rows if event is None or row.get("event") == event]

    def checkpoint(self, which: str = "best") -> Path:
        """The folder of a checkpoint.

        Args:
            which: `best`, `last` or `step-<n>`.

        Raises:
            CompressnetError: there is none (yet); the message lists those there are.
        """
        pointer = self.folder / "checkpoints" / which
        try:
            name = pointer.read_text().strip() if pointer.is_file() else which
        except (OSError, UnicodeDecodeError) as error:
            raise CompressnetError(f"cannot read {pointer}: {error}") from error
        folder = self.folder / "checkpoints" / name
        if not (folder / "model.safetensors").is_file():
            there = ", ".join(f"step-{step}" for step in self.steps()) or "none yet"
            raise CompressnetError(f"{self.folder} has no checkpoint '{which}' (there are: {there})")
        return folder

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints, in order."""
        names = [path.name for path in (self.folder / "checkpoints").glob("step-*")]
        return sorted(
            int(name.removeprefix("step-")) for name in names if name.removeprefix("step-").isdigit()
        )

    def resume_point(self) -> Path | None:
        """The newest checkpoint with its training state, whether or not `last` names it already."""
        for step in reversed(self.steps()):
            folder = self.folder / "checkpoints" / f"step-{step}"
            if all(
                (folder / name).is_file() for name in ("model.safetensors", "state.safetensors", "state.json")
            ):
                return folder
        return None

    def point(self, pointer: str, step: int) -> None:
        """Make `last` or `best` name the checkpoint of `step`."""
        self.check_there()
        files.write_text(self.folder / "checkpoints" / pointer, f"step-{step}\n")
        self._has_last |= pointer == "last"

    def prune(self, keep: int) -> None:
        """Keep `best` and the newest `keep` checkpoints; only the newest keeps its training state."""
        steps = self.steps()
        best = self.folder / "checkpoints" / "best"
        kept = {f"step-{step}" for step in steps[-keep:]}
        kept.add(best.read_text().strip() if best.is_file() else "")
        last = self.checkpoint("last").name
        for step in steps:
            folder = self.folder / "checkpoints" / f"step-{step}"
            if folder.name == last:
                continue
            for state in folder.glob("state.*"):
                files.remove(state)
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

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
                files.remove_stale(self.folder / "checkpoints", alone=is_locked)
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
        if self._has_last and not (self.folder / "checkpoints" / "last").exists():
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompressnetError(f"cannot read {path}: {error}") from error
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}: expected a JSON object")
    return dict(value)


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
