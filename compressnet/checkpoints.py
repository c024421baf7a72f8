"""The folder of a run's checkpoints: which there are, which `best` and `last` name, which are kept.

checkpoints/
  step-<n>/     model.safetensors; of the newest two state.safetensors and state.json, to resume from
  last, best    pointers: files of one line, `step-<n>`
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from compressnet import files, json_file
from compressnet.errors import CompressnetError
from compressnet.regular_file import open_regular

FILES = ("model.safetensors", "state.safetensors", "state.json")
RESUMABLE = 2  # so many of the newest keep their training state: one may turn out to be damaged
_STEP = re.compile(r"step-(0|[1-9][0-9]{0,17})")


class Checkpoints:
    """The checkpoints below `folder`; nothing is read before it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, step: int) -> Path:
        """Where the checkpoint of `step` is or would be."""
        return self.folder / f"step-{step}"

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints, in order."""
        names = [path.name for path in self.folder.glob("step-*")]
        return sorted(int(name.removeprefix("step-")) for name in names if _STEP.fullmatch(name))

    def find(self, which: str) -> Path:
        """The folder of a checkpoint.

        Args:
            which: `best`, `last` or `step-<n>`.

        Raises:
            CompressnetError: there is none (yet); the message lists those there are.
        """
        name = self._pointed(which) if which in ("best", "last") else which
        if name and _STEP.fullmatch(name) and (self.folder / name / FILES[0]).is_file():
            return self.folder / name
        whole = [f"step-{step}" for step in self.steps() if (self.of(step) / FILES[0]).is_file()]
        there = ", ".join(whole) or "none yet"
        raise CompressnetError(f"{self.folder.parent} has no checkpoint {which!r:.60} (there are: {there})")

    def weights(self, which: str) -> Path:
        """The weights file of a checkpoint (see `find`).

        Raises:
            CompressnetError: there is none, or it is not the one that the training state beside it is of.
        """
        from compressnet.architecture import seal  # torch, which a list of runs does without
        from compressnet.weights import stored_digest

        folder = self.find(which)
        path = folder / FILES[0]
        try:
            state = json_file.read(folder / "state.json")
        except CompressnetError:  # there is none any more, or resuming will say what is wrong with it
            return path
        is_whole = isinstance(state, dict) and state.get("seal") == seal(state)
        if is_whole and state.get("model") not in (None, stored_digest(path)):
            raise CompressnetError(f"{folder}: its weights are of another checkpoint than its training state")
        return path

    def resume_point(self, start: str | None = None) -> Path | None:
        """The checkpoint to go on from; None: there is none.

        `last` may not name it yet: a kill may come between a checkpoint and its pointer.

        Args:
            start: this one, `step-<n>`; None: the newest with a training state.

        Raises:
            CompressnetError: its training state is not whole; the message names one whose is.
        """
        if start is not None:
            folder = self.find(start)
        elif steps := self.steps():
            stateful = [step for step in steps if list(self.of(step).glob("state.*"))]
            if steps == [0] and not stateful:
                return None  # the weights of a compressed network, which training begins from
            folder = self.of((stateful or steps)[-1])
        else:
            return None
        if missing := [name for name in FILES if not (folder / name).is_file()]:
            raise CompressnetError(f"{folder}: {missing[0]} is missing{self.resume_hint(folder)}")
        return folder

    def resume_hint(self, damaged: Path) -> str:
        """Which checkpoint to resume from instead of a damaged one, as the end of a message."""
        for folder in map(self.of, reversed(self.steps())):
            if folder != damaged and all((folder / name).is_file() for name in FILES):
                again = f"train --resume {self.folder.parent}@{folder.name}"
                return f"; `{again}` goes on from there, and replaces what is later"
        return "; there is no other checkpoint to resume from"

    def point(self, pointer: str, step: int) -> None:
        """Make `last` or `best` name the checkpoint of `step`."""
        files.write_text(self.folder / pointer, f"step-{step}\n")

    def go_on_from(self, step: int, best: int | None) -> None:
        """Make the pointers true for a run that goes on from `step`. No later checkpoint is resumed from.

        Args:
            best: the best step so far; None: not known, `best` is then any checkpoint there was by `step`.
        """
        if best is None:
            earlier = {f"step-{number}": number for number in self.steps() if number <= step}
            best = earlier.get(self._pointed("best") or "", step)
        for later in (later for later in self.steps() if later > step):
            _drop_state(self.of(later))  # it will be replaced
        self.point("last", step)
        self.point("best", best)

    def prune(self, keep: int) -> None:
        """Keep `best` and the newest `keep` checkpoints, and the newest two with their training state.

        Step 0, what a compressed network was before it was trained, stays.

        The newest is the one just written: after a resume from an earlier one there may be later ones, which
        stay until they are reached.
        """
        last = int(self.find("last").name.removeprefix("step-"))
        steps = [step for step in self.steps() if step <= last]
        kept = {self._pointed("best"), "step-0"}
        kept |= {self.of(step).name for step in steps[-max(keep, RESUMABLE) :]}
        for folder in map(self.of, steps[:-RESUMABLE]):
            _drop_state(folder)
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _pointed(self, pointer: str) -> str | None:
        """The checkpoint that `best` or `last` names; None: there is no such pointer."""
        path = self.folder / pointer
        if not path.exists():
            return None
        try:
            with open_regular(path) as file:
                name = file.read(100).decode("utf-8", "backslashreplace").strip()
        except OSError as error:
            raise CompressnetError(f"{path} cannot be read: {error.strerror}") from error
        if not _STEP.fullmatch(name):
            raise CompressnetError(f"{path} is damaged: it says {name!r:.60}, not step-<number>")
        return name


def _drop_state(folder: Path) -> None:
    for state in folder.glob("state.*"):
        files.remove(state)
