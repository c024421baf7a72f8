"""What was built when the package was installed."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from compressnet.kernels import library


def has_compiler() -> bool:
    """Whether setuptools finds the compiler that Python was built with, or another."""
    wanted = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return any(shutil.which(name) for name in (wanted, "gcc"))


def test_kernels_are_built_where_there_is_a_compiler() -> None:
    if not has_compiler():
        pytest.skip("there is no C compiler here")
    assert library.built() == list(library.NAMES), "run: make setup"


def test_every_source_is_a_kernel() -> None:
    folder = Path(library.__file__).parent
    assert {path.stem for path in folder.glob("*.c")} == set(library.NAMES)


def test_what_is_not_there_is_none() -> None:
    assert library.load("nothing") is None
