"""Every image operator through the program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from compressnet import registry

from .conftest import Cli


@pytest.fixture
def pictures(place: Path) -> list[Path]:
    """Small, flat, gray and transparent ones."""
    random = np.random.default_rng(0).integers(0, 256, (12, 17, 4)).astype(np.uint8)
    arrays = {
        "one": random[:1, :1, :3],
        "row": random[:1, :9, :3],
        "column": random[:9, :1, :3],
        "black": np.zeros((6, 7, 3), np.uint8),
        "white": np.full((6, 7, 3), 255, np.uint8),
        "gray": random[..., 0],
        "alpha": random,
    }
    for name, pixels in arrays.items():
        Pillow.fromarray(np.ascontiguousarray(pixels)).save(place / f"{name}.png")
    return [place / f"{name}.png" for name in arrays]


@pytest.mark.parametrize("name", sorted(registry.OPERATORS))
def test_pictures_of_all_kinds_come_back_as_they_were(cli: Cli, pictures: list[Path], name: str) -> None:
    done = cli("apply", f"operator:{name}", *pictures, "-o", "out")
    assert done.errors == []
    for path in pictures:
        before, after = Pillow.open(path), Pillow.open(Path("out") / path.name)
        assert (after.size, after.mode) == (before.size, before.mode)
        if before.mode == "RGBA":
            np.testing.assert_array_equal(np.asarray(after)[..., 3], np.asarray(before)[..., 3])


def test_a_style_is_that_of_a_file(cli: Cli, pictures: list[Path], place: Path) -> None:
    words = "operator:style:levels=3,iterations=1,reference"
    cli("apply", f"{words}={place}/alpha.png", "gray.png", "-o", "first.png")
    cli("apply", f"{words}=white.png", "gray.png", "-o", "other.png")
    one, other = (np.asarray(Pillow.open(name)) for name in ("first.png", "other.png"))
    assert other.min() == 255
    assert one.min() < 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("style:reference=gone.png", "operator style: reference: gone.png: no such file"),
        ("dark_channel:air_light=[1,1]", "operator dark_channel: 'air_light' should be three numbers"),
        ("dark_channel:window=4", "operator dark_channel: 'window' should be odd"),
        ("tv_l1:lambda=0", "operator tv_l1: 'lambda' should be greater than or equal to 0.01"),
        ("pencil:tone=[0,0,0]", "operator pencil: 'tone' should be three weights"),
        ("local_laplacian:sigma=0.3,sigma=0.2", "'sigma' is given twice"),
    ],
)
def test_wrong_arguments_are_one_line(cli: Cli, photo: Path, text: str, message: str) -> None:
    assert message in cli("apply", f"operator:{text}", photo, "-o", "out.png", code=2).error
    assert not Path("out.png").exists()
