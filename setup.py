"""The kernels: C without Python in it, which setuptools builds as optional extensions and ctypes loads.

Everything else is in pyproject.toml. Where no compiler is, the package installs without them.
"""

import sys

from setuptools import Extension, setup

# Never -ffast-math: linking with it makes the whole process flush small numbers to zero.
FLAGS = ["-O3", "-fno-math-errno", "-Wno-psabi"]
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []

setup(
    ext_modules=[
        Extension(
            f"compressnet.kernels._{name}",
            [f"compressnet/kernels/{name}.c"],
            depends=["compressnet/kernels/vectors.h"],
            extra_compile_args=FLAGS + OPENMP,
            extra_link_args=OPENMP,
            optional=True,
        )
        for name in ("lstm", "lstm_1997", "sru")
    ]
)
