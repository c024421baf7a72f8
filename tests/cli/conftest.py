"""The program called in this process: what a subprocess would show, without its seconds of imports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from compressnet.training import cpu_settings


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        """The lines that begin with `error:`, without that word."""
        lines = self.stderr.splitlines()
        return [line.removeprefix("error: ") for line in lines if line.startswith("error:")]

    @property
    def error(self) -> str:
        """The one error line there must be."""
        assert len(self.errors) == 1, self.stderr
        return self.errors[0]


Cli = Callable[..., Done]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Path]:
    """An empty folder to work in, and the process as it was afterwards."""
    before, threads = dict(os.environ), torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    # malloc, once tuned, cannot be set back: in this process glibc is not found. The switch is put back.
    monkeypatch.setattr(cpu_settings, "_glibc", lambda: None)
    monkeypatch.setattr(cpu_settings, "_tuned", False)
    matmul = cpu_settings.current().matmul
    for name in [name for name in os.environ if name.startswith("COMPRESSNET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COMPRESSNET_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "200")
    yield tmp_path
    cpu_settings.apply(cpu_settings.Settings(matmul, malloc=False))
    torch.set_num_threads(threads)
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def cli(place: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Call the program's `main` in `place`; no command may show a traceback."""
    from compressnet_cli.main import main

    def run(*words: object, code: int | None = 0) -> Done:
        capfd.readouterr()
        returned = main([str(word) for word in words])
        out, err = capfd.readouterr()
        done = Done(returned, out, err)
        assert "Traceback" not in err, err
        assert "unexpected" not in err, err
        assert code is None or returned == code, f"{returned}: {err}{out}"
        return done

    return run


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A finished smoke run with checkpoints 4 and 8; tests that write into it take a copy."""
    from compressnet import recipe, run, subject
    from compressnet.training.train import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSNET_CACHE", str(cache))
        loaded = recipe.Recipe.load(subject.recipe_path("fip_sample"), smoke=True)
        folder = tmp_path_factory.mktemp("smoke") / "run"
        train(run.Run.create(loaded, folder=folder), device=torch.device("cpu"))
    return folder


@pytest.fixture
def photo(place: Path) -> Path:
    """A small colour photograph, photo.png."""
    return save(place / "photo.png", size=(20, 16))


def save(path: Path, size: tuple[int, int] = (20, 16), **options: object) -> Path:
    """Write a smooth random RGB picture of width and height `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BICUBIC).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture
def hardly_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compress` times next to nothing: how fast its networks are is not asked here."""
    from compressnet.analysis.timing import Effort
    from compressnet.compression import report

    effort = Effort(warmup_rounds=1, warmup_seconds=0, min_rounds=3, max_rounds=3, min_seconds=0)
    monkeypatch.setattr(report, "OF_LAYERS", effort)
    monkeypatch.setattr(report, "OF_NETWORKS", effort)
    monkeypatch.setattr(report, "_in_onnxruntime", lambda *_: None)
