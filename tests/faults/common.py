"""What the fault campaigns share: arguments, running the program, a tally whose last line is the figure.

    python -m tests.faults.NAME [COUNT] [FIRST]

Case numbers are seeds: FIRST is the first, COUNT how many. From the environment come PROGRAM (default: the
`compressnet` of this Python) and WORK, a folder to write in (default: a temporary one).
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = os.environ.get("PROGRAM", str(Path(sys.executable).with_name("compressnet")))
ROOT = Path(__file__).parents[2]
QUIET = {**os.environ, "COMPRESSNET_CPU_SETTINGS": "off", "COLUMNS": "200"}
TOO_LONG = -999
Finished = subprocess.CompletedProcess[str]


class Arguments(NamedTuple):
    """How many cases, and the number of the first."""

    cases: int
    first: int


def arguments(count: int) -> Arguments:
    """COUNT and FIRST of the command line.

    Args:
        count: how many cases there are unless COUNT says else.
    """
    given = [int(word) for word in sys.argv[1:3]]
    return Arguments(given[0] if given else count, given[1] if len(given) > 1 else 0)


@functools.cache
def work() -> Path:
    """The folder to write in."""
    folder = Path(os.environ.get("WORK") or tempfile.mkdtemp(prefix="faults-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Tally:
    """Counts cases; a failure is a line of text. Few of a kind are shown at once."""

    def __init__(self, name: str, shown: int = 3) -> None:
        self.name, self.shown = name, shown
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, list[str]] = {}
        self.begun = time.monotonic()

    def held(self, kind: str = "held") -> None:
        """A case went as it must."""
        self.counts[kind] += 1

    def failed(self, kind: str, detail: str = "") -> None:
        """A case did not."""
        self.counts["FAILED"] += 1
        lines = self.failures.setdefault(kind, [])
        lines.append(detail)
        if len(lines) <= self.shown:
            print(f"FAILED {kind}: {detail}"[:400], flush=True)

    def check(self, good: bool, kind: str, detail: str = "") -> bool:
        """Count a case as `held`, or as failed with a kind and a detail."""
        if good:
            self.held()
        else:
            self.failed(kind, detail)
        return good

    def finish(self) -> int:
        """Print the kinds of failure and the figure; returns the exit code."""
        for kind, lines in sorted(self.failures.items(), key=lambda item: -len(item[1])):
            print(f"   {len(lines):5d}  {kind}: {lines[0]}"[:300])
        cases = sum(self.counts.values())
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        print(f"{self.name}: {cases} cases: {counts}; {time.monotonic() - self.begun:.0f} s", flush=True)
        return 1 if self.failures else 0


def run(
    *words: object, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 300
) -> Finished:
    """The program with these words; exit code `TOO_LONG`: it took longer than `timeout`."""
    return shell([PROGRAM, *map(str, words)], cwd=cwd, env=env, timeout=timeout)


def shell(
    command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 300
) -> Finished:
    """A command, and what it said."""
    try:
        return subprocess.run(
            command,
            cwd=cwd or work(),
            env=env or QUIET,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, TOO_LONG, "", f"no end within {timeout} s")


def call(*words: object) -> Finished:
    """The program's `main` in this process: cheap, and it takes exceptions along."""
    from compressnet_cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return subprocess.CompletedProcess([*map(str, words)], code, out.getvalue(), err.getvalue())


def unclear(done: Finished) -> str:
    """Why an end is not one that a person can act on; empty if it is."""
    text = done.stderr + done.stdout
    last = (text.strip().splitlines() or [""])[-1]
    if done.returncode == TOO_LONG:
        return done.stderr
    if "Traceback" in text or "Exception ignored" in text:
        return f"a traceback: {last}"
    if "this is a bug" in text:
        return next(line for line in text.splitlines() if "this is a bug" in line)
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    if done.returncode not in (0, 1, 2, 130):
        return f"exit code {done.returncode}: {last}"
    if done.returncode and "error:" not in text:
        return f"exit code {done.returncode} and no line that says why: {last}"
    if any(ord(letter) < 32 and letter not in "\n\t" for letter in done.stderr):
        return f"control characters on the screen: {done.stderr!r}"
    return ""


def must(done: Finished) -> Finished:
    """What a campaign is built on: it must have worked."""
    if done.returncode:
        raise SystemExit(f"the campaign cannot begin: {done.args}: {done.stderr}")
    return done


def value_of(text: str, key: str) -> Any:
    """A key of a JSON document that the program printed; None: it printed none."""
    import json

    with contextlib.suppress(ValueError):
        return json.loads(text).get(key)
    return None
