"""`compressnet`, and other programs, as a case runs them: what they say goes to the section's log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cuda_checks.cases import Failed

PROGRAM = (sys.executable, "-P", "-m", "compressnet_cli")
# Of one process under torchrun; the port is any that is free.
TORCHRUN = (sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
_log = threading.Lock()


def compressnet(*words: object, seconds: float = 60.0) -> str:
    """What `compressnet WORDS` prints on stdout.

    Raises:
        Failed: its exit code is not 0, or it did not end in time.
    """
    return run(PROGRAM, *words, seconds=seconds)


def as_json(*words: object, seconds: float = 60.0) -> Any:
    """The document that `compressnet WORDS --json` prints."""
    return json.loads(compressnet(*words, "--json", seconds=seconds))


def run(program: tuple[str, ...], *words: object, seconds: float = 60.0) -> str:
    """What a program prints on stdout. Raises as `compressnet`."""
    code, out, err = _started(program, words, seconds)
    if code:
        raise Failed(f"{_shown(program, words)}: exit code {code}: {_last_line(err or out)}")
    return out


def killed(*words: object, when: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Kill `compressnet WORDS` as soon as `when()`; False if it had ended before.

    Raises:
        Failed: it ended with an error, or neither came to pass in time.
    """
    process = _popen(PROGRAM, words)
    end = time.monotonic() + seconds
    while not when() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    alive = process.poll() is None
    _end(process)
    out, err = process.communicate()
    _write(PROGRAM, words, out, err)
    if process.returncode > 0:
        raise Failed(f"{_shown(PROGRAM, words)}: exit code {process.returncode}: {_last_line(err)}")
    if alive and not when():
        raise Failed(f"{_shown(PROGRAM, words)}: wrote no checkpoint within {seconds:.0f} s")
    return alive


def stopped(*words: object, after: float, patience: float) -> int:
    """Ask `compressnet WORDS` to end with SIGTERM after so many seconds; its exit code.

    Raises:
        Failed: it did not end within `patience` seconds then.
    """
    process = _popen(PROGRAM, words)
    try:
        out, err = process.communicate(timeout=max(0.1, after))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=max(0.1, patience))
        except subprocess.TimeoutExpired:
            _end(process)
            raise Failed(f"{_shown(PROGRAM, words)}: did not end {patience:.0f} s after SIGTERM") from None
    _write(PROGRAM, words, out, err)
    if process.returncode not in (0, 130, 143):
        raise Failed(f"{_shown(PROGRAM, words)}: exit code {process.returncode}: {_last_line(err)}")
    return process.returncode


def _started(program: tuple[str, ...], words: tuple[object, ...], seconds: float) -> tuple[int, str, str]:
    process = _popen(program, words)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        out, err = process.communicate()
        _write(program, words, out, err)
        raise Failed(f"{_shown(program, words)}: did not end within {seconds:.0f} s") from None
    _write(program, words, out, err)
    return process.returncode, out, err


def _popen(program: tuple[str, ...], words: tuple[object, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[str]) -> None:
    """Kill it with its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _write(program: tuple[str, ...], words: tuple[object, ...], out: str, err: str) -> None:
    with _log:
        sys.stderr.write(f"\n$ {_shown(program, words)}\n{out}{err}")
        sys.stderr.flush()


def _shown(program: tuple[str, ...], words: tuple[object, ...]) -> str:
    name = "torchrun" if program == TORCHRUN else "compressnet" if program == PROGRAM else "python"
    return " ".join([name, *(Path(str(word)).name if "/" in str(word) else str(word) for word in words)])


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it said nothing"])[-1]
