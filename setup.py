"""The kernels: C without Python in it, which setuptools builds as optional extensions and ctypes loads.

Everything else is in pyproject.toml. Where no compiler is, the package installs without them.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

# Never -ffast-math: linking with it makes the whole process flush small numbers to zero.
FLAGS = ["-O3", "-fno-math-errno", "-Wno-psabi"]
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []

setup(
    ext_modules=[
        Extension(
            f"compressnet.kernels._{source.stem}",
            [source.as_posix()],
            depends=[header.as_posix() for header in Path("compressnet/kernels").glob("*.h")],
            extra_compile_args=FLAGS + OPENMP,
            extra_link_args=OPENMP,
            optional=True,
        )
        for source in sorted(Path("compressnet/kernels").glob("*.c"))
    ]
)
