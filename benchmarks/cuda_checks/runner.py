"""The parent: gives each section its share of the time, and loses nothing to those that crash or hang."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from benchmarks.cuda_checks.cases import ROOT, Row, Section, Settings

Sink = Callable[[Row], None]
End = Literal["end", "crash", "hang", "time"]
_LEAST = 1.0  # seconds; a section with less is not begun
_MARK = "COMPRESSNET_CUDA_CHECK"  # in the environment of all that is started, so that all of it can be ended


def check(sections: Sequence[Section], settings: Settings, seconds: float, sink: Sink) -> None:
    """Run sections one after the other; what one leaves of its share goes to the later ones."""
    end = time.monotonic() + seconds
    for number, section in enumerate(sections):
        left = end - time.monotonic()
        if left < _LEAST:
            sink(Row(section.name, "all", "not reached", message="the time had run out"))
            continue
        share = left * section.weight / sum(later.weight for later in sections[number:])
        run(section, settings, share, sink)


def run(section: Section, settings: Settings, seconds: float, sink: Sink) -> None:
    """Run one section for at most `seconds`.

    A case that takes its process down, or hangs, is a row that failed; a new process does the others.
    """
    end = time.monotonic() + seconds
    done: set[str] = set()
    while True:
        process = _Process(section, settings, end, done, sink)
        try:
            why = process.follow()
        finally:
            process.kill()
        if why == "end" or not process.close(why):
            return


@dataclass
class _Process:
    section: Section
    settings: Settings
    end: float
    done: set[str]
    sink: Sink
    plan: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    rows: int = 0

    def __post_init__(self) -> None:
        self.mark = secrets.token_hex(8)
        self.events, far_end = os.pipe()
        request = {
            "section": self.section.name,
            "place": self.section.place,
            "settings": self.settings.as_dict(),
            "seconds": self.end - time.monotonic(),
            "done": sorted(self.done),
            "events": far_end,
        }
        log = self.log_path
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            self.child = subprocess.Popen(
                [sys.executable, "-P", "-m", "benchmarks.cuda_checks.child", json.dumps(request)],
                env={**environment(self.settings), _MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[far_end],
                start_new_session=True,
            )
        os.close(far_end)
        self.born = time.monotonic()

    @property
    def log_path(self) -> Path:
        return Path(self.settings.out) / "logs" / f"{self.section.name}.txt"

    def follow(self) -> End:
        """Pass on what it tells until it ends, one of its cases hangs or the time is over."""
        rest = b""
        while True:
            now = time.monotonic()
            if now >= self.end:
                return "time"
            if any(now - since > self.plan[name] for name, since in self.begun.items()):
                return "hang"
            if not select.select([self.events], [], [], 0.05)[0]:
                continue
            if not (read := os.read(self.events, 1 << 16)):
                with suppress(subprocess.TimeoutExpired):
                    self.child.wait(timeout=2.0)  # it may still be ending by itself
                return "crash"
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                if self._take(json.loads(line)):
                    return "end"

    def _take(self, event: dict[str, Any]) -> bool:
        if "plan" in event:
            self.plan = dict(event["plan"])
        elif "begin" in event:
            self.begun[event["begin"]] = time.monotonic()
        elif "row" in event:
            self._row(Row(**event["row"]))
        return "end" in event

    def _row(self, row: Row) -> None:
        self.begun.pop(row.case, None)
        self.done.add(row.case)
        self.rows += 1
        self.sink(row)

    def close(self, why: End) -> bool:
        """Rows of what it had not told of; whether another process should do the rest."""
        if why == "time":
            self._close_unreached()
            return False
        now = time.monotonic()
        for name, since in list(self.begun.items()):
            spent = round(now - since, 2)
            if why == "crash":
                self._fail(name, f"its process ended with {self._exit()}", spent)
            elif spent > self.plan[name]:
                self._fail(name, f"hung: killed after {self.plan[name]:.0f} s", spent)
        if not self.rows:  # it would do no better again
            text = f"its process ended with {self._exit()} before the first case: {self._last_words()}"
            self._fail("start", text, 0.0)
            return False
        return True

    def _fail(self, case: str, message: str, spent: float) -> None:
        self._row(Row(self.section.name, case, "failed", "", f"{message} (logs/{self.log_path.name})", spent))

    def _close_unreached(self) -> None:
        now = time.monotonic()
        if not self.plan:
            text = f"still starting after {now - self.born:.0f} s, when its time was over"
            self._row(Row(self.section.name, "all", "not reached", "", text))
        for name in [name for name in self.plan if name not in self.done]:
            since = self.begun.get(name)
            text = "" if since is None else f"unfinished after {now - since:.0f} s, when the time was over"
            self._row(Row(self.section.name, name, "not reached", "", text or "the time had run out"))

    def _exit(self) -> str:
        code = self.child.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _last_words(self) -> str:
        """The last line of the log: of a traceback its error."""
        lines = self.log_path.read_text(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it said nothing")

    def kill(self) -> None:
        """End it, and all that was started within it."""
        if self.begun or self.child.poll() is None:
            kill_marked(self.mark)
        with suppress(ProcessLookupError):
            if self.child.poll() is None:
                self.child.kill()
        self.child.wait()
        os.close(self.events)


def kill_marked(mark: str) -> None:
    """Kill the processes that carry `mark`: also those in sessions of their own, as torchrun starts them."""
    wanted = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def environment(settings: Settings) -> dict[str, str]:
    """Of all processes: this checkout as if it were installed, and a cache of its own."""
    paths = [str(settings.work / "packages"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    # On the CPU sections start several processes at a time, which would wait for each other's threads.
    threads = {"OMP_NUM_THREADS": "1"} if settings.kind == "cpu" else {}
    return {
        **threads,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "COMPRESSNET_CACHE": os.environ.get("COMPRESSNET_CACHE", str(settings.work / "cache")),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def tell(file: IO[str], row: Row) -> None:
    """A row for people, as it comes."""
    words = [f"{row.state:11} {row.section}: {row.case}", row.figure, row.message]
    say(file, "  ".join(filter(None, words)))


def say(file: IO[str], line: str) -> None:
    """A line, if there is still somebody who reads: the checks go on without (`| head`)."""
    with suppress(BrokenPipeError):
        file.write(f"{line}\n")
        file.flush()
