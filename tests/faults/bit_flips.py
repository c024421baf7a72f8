"""Single bits the other way round, in weights and training states of three kinds of network.

python -m tests.faults.bit_flips [COUNT] [FIRST]

Each is noticed, or of no effect on any value: description, tensors and state are all as they were.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import compressnet
from compressnet import weights
from compressnet.run import Run
from compressnet.training import checkpoint

from . import networks
from .common import arguments, work
from .fuzzing import Case, Wrong, campaign
from .mutation import flipped

KINDS = ("image", "text", "sequence")
FILES = ("model.safetensors", "state.safetensors", "state.json")
Values = tuple[Any, ...]


def values(folder: Path, file: str) -> list[Values]:
    """All that anybody gets from a file of a run's newest checkpoint, by the ways that commands take."""
    if file != FILES[0]:
        run = Run.open(folder)
        point = run.resume_point()
        assert point is not None
        tensors, state = checkpoint.read(run, point)
        checkpoint.check_world(run, point, 1)
        return [(_exact(tensors), state, point.name)]
    architecture, tensors = weights.load(folder / "checkpoints" / _newest(folder) / file)
    loaded = compressnet.load(f"{folder}@last")
    assert loaded.architecture is not None
    opened = dataclasses.asdict(loaded.architecture), _exact(loaded.model.state_dict()), loaded.assets
    return [(dataclasses.asdict(architecture), _exact(tensors)), opened]


def _newest(folder: Path) -> str:
    return (folder / "checkpoints" / "last").read_text().strip()


def _exact(tensors: dict[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Tensors down to their bits: -0 is not 0."""
    bits = {name: tensor.contiguous().view(-1).view(torch.uint8) for name,
            tensor in tensors.items() if tensor.numel()}  # fmt: skip
    return {
        name: (str(tensor.dtype), tuple(tensor.shape), bits[name].numpy().tobytes() if name in bits else b"")
        for name, tensor in tensors.items()
    }


def tried(folder: Path, file: str, bit: int, expected: list[Values]) -> str:
    """Flip a bit of a copy of the run, and look at what is read; the bit is put back."""
    path = folder / "checkpoints" / _newest(folder) / file
    data = path.read_bytes()
    path.write_bytes(flipped(data, bit))
    try:
        if values(folder, file) != expected:
            raise Wrong("other values without a word", f"{path.name}, bit {bit}")
    finally:
        path.write_bytes(data)
    return "without effect"


def main() -> int:
    """The campaign; its exit code."""
    torch.set_num_threads(1)
    given = arguments(1000)
    choices = [(networks.trained(kind), file) for kind in KINDS for file in FILES]
    expected = {choice: values(*choice) for choice in choices}

    def case(number: int) -> Case:
        rng = random.Random(number)
        folder, file = choices[number % len(choices)]
        copy = work() / f"flipped-{os.getpid()}" / folder.name
        if not copy.exists():
            shutil.copytree(folder, copy)
            assert all(values(copy, file) == expected[folder, file] for file in FILES), "a copy is whole"
        path = folder / "checkpoints" / _newest(folder) / file
        # Half of the flips of tensors' files are in the header: there is most to be misread.
        end = path.stat().st_size
        if file.endswith(".safetensors") and rng.random() < 0.5:
            end = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        attempt = functools.partial(tried, copy, file, rng.randrange(8 * end), expected[folder, file])
        return Case(f"{folder.name} {file}", attempt)

    return campaign("bit flips", case, given).finish()


if __name__ == "__main__":
    sys.exit(main())
