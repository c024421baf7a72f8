"""Sections of the checks on CUDA that end badly, without torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.cuda_checks.cases import Case, Cases, Failed, Finding, Settings, Skip


def good(settings: Settings, seconds: float) -> Cases:
    def skipped() -> None:
        raise Skip("nothing to check")

    def wrong() -> None:
        raise Failed("3 is not 4")

    def broken() -> None:
        raise ValueError("of two lines\nthe second")

    cases = [Case("plain", lambda: Finding("1.5", "one | two")), Case("skipped", skipped)]
    return Cases([*cases, Case("wrong", wrong), Case("broken", broken)])


def crashing(settings: Settings, seconds: float) -> Cases:
    def crash() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    return Cases([_noted(settings, "before"), Case("crash", crash), _noted(settings, "after")])


def hanging(settings: Settings, seconds: float) -> Cases:
    def hang() -> None:
        command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
        child = subprocess.Popen(command, start_new_session=True)
        Path(settings.out, "pid").write_text(str(child.pid))
        time.sleep(60)

    return Cases([Case("hang", hang, seconds=3.0), _noted(settings, "after")])


def slow(settings: Settings, seconds: float) -> Cases:
    return Cases([_noted(settings, "first"), Case("slow", lambda: time.sleep(60)), _noted(settings, "last")])


def side_by_side(settings: Settings, seconds: float) -> Cases:
    def meet(mine: str, other: str) -> None:
        Path(settings.out, mine).touch()
        while not Path(settings.out, other).exists():
            time.sleep(0.01)

    pair = [Case("a", lambda: meet("a", "b")), Case("b", lambda: meet("b", "a"))]
    return Cases(pair, parallel=2)


def silent(settings: Settings, seconds: float) -> Cases:
    raise ImportError("no module of that name")


def told(settings: Settings, seconds: float) -> Cases:
    return Cases([Case("seconds", lambda: Finding(f"{seconds:.1f}"))])


def _noted(settings: Settings, name: str) -> Case:
    """A case that holds once: done twice it would be two lines of the file."""

    def note() -> None:
        with Path(settings.out, "noted").open("a") as file:
            file.write(f"{name}\n")

    return Case(name, note)
