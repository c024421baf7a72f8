"""What all tests share: a quiet environment of their own, and how to run the program."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.forked import server

# A shell has its background jobs ignore Ctrl-C, nohup SIGHUP, and children inherit that: tests send both.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).parents[1]
Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of derived data for the whole session: targets are computed once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def one_torchlib() -> Iterator[None]:
    """Torch reads onnxscript's 500 translations anew for each export, a second each: here once an opset."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(ONNXRegistry.from_torchlib)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once))
        yield


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program as a command that starts within milliseconds (see `tests.forked`)."""
    with server.running(tmp_path_factory.mktemp("forked")) as command:
        yield command


@pytest.fixture
def environment(cache: Path) -> dict[str, str]:
    """The environment of the program under test."""
    return environment_of(cache)


def environment_of(cache: Path) -> dict[str, str]:
    """What `environment` holds, for whoever lives longer than a test."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("COMPRESSNET_")},
        "COMPRESSNET_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def program(tmp_path: Path, environment: dict[str, str]) -> Program:
    """Run `compressnet` as a user would, in an empty folder."""

    def run(*words: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "compressnet_cli", *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, done.stderr + done.stdout
        return done

    return run
