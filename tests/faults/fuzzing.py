"""Runs cases in forked children: a crash, a hang or a huge memory is the case's, never the campaign's.

    campaign --fork--> child: case, case, case, ... --a line of JSON each--> tally
             --fork--> child, from the case after that which ended the one before

A case returns a word for what happened, or raises. Good are a word, and a `CompressnetError` of few lines.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from compressnet.errors import CompressnetError

from .common import Arguments, Tally

SECONDS = int(os.environ.get("SECONDS_EACH", "10"))  # of processor time
MEGABYTES = int(os.environ.get("MEGABYTES_EACH", "1000"))  # more than the child had before the case


class Case(NamedTuple):
    """What is tried: its kind, and a function that gives a word for what happened."""

    kind: str
    function: Callable[[], str]


class Outcome(NamedTuple):
    """How a case ended."""

    good: bool
    word: str
    detail: str = ""


class Wrong(Exception):
    """What happened is not what should have, without an exception of the code under test."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail)
        self.kind = kind


class _Slow(BaseException):
    pass


def campaign(name: str, make: Callable[[int], Case], given: Arguments, lines: int = 1) -> Tally:
    """Try cases `first` to `first + count - 1`.

    Args:
        make: the case of a number; always the same one.
        lines: how many a message may have.
    """
    tally, number, end = Tally(name), given.first, given.first + given.cases
    while number < end:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _try_all(make, range(number, end), lines, writer)
        os.close(writer)
        number = _follow(tally, child, reader, number)
    return tally


def _try_all(make: Callable[[int], Case], numbers: range, lines: int, writer: int) -> NoReturn:
    """In the child: all cases, or up to one that leaves the process unfit for others."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _alarm)
    warnings.simplefilter("ignore")
    try:
        for number in numbers:
            case = make(number)
            _send(writer, number, case.kind, None)
            outcome = _try(case.function, lines)
            _send(writer, number, case.kind, outcome)
            if not outcome.good and outcome.word.startswith(("slower", "more than")):
                break
    except BaseException:
        traceback.print_exc()
        os._exit(3)
    os._exit(0)


def _send(writer: int, number: int, kind: str, outcome: Outcome | None) -> None:
    os.write(writer, json.dumps([number, kind[:200], outcome]).encode() + b"\n")


def _follow(tally: Tally, child: int, reader: int, number: int) -> int:
    """In the parent: count what a child reports; returns the number of the next case."""
    running: tuple[int, str] | None = None
    for at, kind, outcome in _reports(reader, child):
        running = (at, kind) if outcome is None else None
        if outcome is None:
            continue
        number = at + 1
        if outcome.good:
            tally.held(outcome.word)
        else:
            tally.failed(outcome.word, f"[case {at}, {kind[:80]}] {outcome.detail}")
    _, status = os.waitpid(child, 0)
    if running is not None:
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {status >> 8}"
        tally.failed(f"the process died or hung in C: {ended}", f"[case {running[0]}, {running[1]}]")
        return running[0] + 1
    if status:
        raise SystemExit(f"{tally.name}: case {number} cannot be made")
    return number


def _reports(reader: int, child: int) -> Iterator[tuple[int, str, Outcome | None]]:
    """The lines of a child until it ends; one that says nothing for long is killed."""
    rest = b""
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while True:
            ready, _, _ = select.select([stream], [], [], 12 * SECONDS)
            if not ready:
                os.kill(child, signal.SIGKILL)
                return
            if not (piece := stream.read(1 << 16)):
                return
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                number, kind, outcome = json.loads(line)
                yield number, kind, Outcome(*outcome) if outcome else None


def _try(function: Callable[[], str], lines: int) -> Outcome:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is counted from here
    before = _megabytes("VmRSS")
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    begun = time.process_time()
    try:
        outcome = Outcome(True, function())
    except CompressnetError as error:
        outcome = _refusal(error, lines)
    except _Slow:
        outcome = Outcome(False, f"slower than {SECONDS} s", f"{time.process_time() - begun:.1f} s")
    except Wrong as wrong:
        outcome = Outcome(False, wrong.kind, str(wrong)[:300])
    except BaseException as error:
        outcome = _crash(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    more = _megabytes("VmHWM") - before
    if more > MEGABYTES and outcome.good:
        return Outcome(False, f"more than {MEGABYTES} MB", f"{more} MB, then {outcome.word}")
    return outcome


def _refusal(error: CompressnetError, lines: int) -> Outcome:
    text = str(error)
    wrong = {
        "no text": not text.strip(),
        "many lines": len(text.splitlines()) > lines,
        "control characters": any(ord(letter) < 32 and letter != "\n" for letter in text),
        "a very long line": max(map(len, [*text.splitlines(), ""])) > 2000,
    }
    for kind in (kind for kind, found in wrong.items() if found):
        return Outcome(False, f"a message with {kind}", repr(text[:150]))
    return Outcome(True, "refused")


def _crash(error: BaseException) -> Outcome:
    """What has no place in a command's end: with the last of our lines that it came through."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/compressnet/" in frame.filename and "/site-packages/" not in frame.filename
    ]
    place = f"{ours[-1].filename.rpartition('/compressnet/')[2]}:{ours[-1].lineno}" if ours else "?"
    first = (str(error).splitlines() or [""])[0][:110]
    return Outcome(False, f"{type(error).__name__} at {place}", first)


def _alarm(signum: int, frame: FrameType | None) -> Any:
    raise _Slow


def _megabytes(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) // 1024
