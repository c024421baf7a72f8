"""Follows pages as a reader would. The same command on the same files runs once, for all pages."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.forked import server


class Outcome(NamedTuple):
    """What a command did: what it printed, and the files it made, by their paths within the folder."""

    code: int
    stdout: str
    stderr: str
    made: dict[str, bytes]


class Reader:
    """Runs commands in a folder of the caller's.

    Args:
        forked: the program as a command.
        environment: of the program.
        folder: an empty one, for the reader's own.
    """

    def __init__(self, forked: Path, environment: dict[str, str], folder: Path) -> None:
        (folder / "compressnet").symlink_to(forked)
        self._forked = forked
        self._environment = {
            **environment,
            "PATH": os.pathsep.join([str(folder), environment.get("PATH", "")]),
        }
        self._known: dict[object, Outcome] = {}

    def run(self, line: str, place: Path) -> Outcome:
        """A line of the shell."""
        key = " ".join(shlex.split(line, comments=True)), tuple(sorted(_named(line, place).items()))
        if key not in self._known:
            self._known[key] = self._run(["bash", "-o", "pipefail", "-c", line], place, {})
        for name, data in self._known[key].made.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return self._known[key]

    def python(self, text: str, place: Path) -> Outcome:
        """A program, in a process that has torch already."""
        (place / "program.py").write_text(text)
        return self._run([str(self._forked)], place, {server.MODULE: "program"})

    def _run(self, words: list[str], place: Path, variables: dict[str, str]) -> Outcome:
        before = _files(place)
        done = subprocess.run(
            words,
            cwd=place,
            env=self._environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        made = {name: data for name, data in _files(place).items() if name not in before}
        return Outcome(done.returncode, done.stdout, done.stderr, made)


def _named(line: str, place: Path) -> dict[str, bytes]:
    """The files that a command may read: those it names, and runs."""
    files = _files(place)
    return {name: data for name, data in files.items() if name.split("/")[0] in (*_tops(line), "runs")}


def _tops(line: str) -> list[str]:
    words = [part for word in shlex.split(line, comments=True) for part in re.split("[:=,;]", word)]
    return [word.removeprefix("./").split("/")[0] for word in words]


def _files(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
