"""The picture of a dial: PSNR over strengths, of the network and of doing nothing."""

from __future__ import annotations

import numpy as np
import torch

from compressnet.data.conditions import Dial
from compressnet.data.image_pair import ImageBatch
from compressnet.tasks.dial_metrics import DialMetrics, dial_curve

DIAL = Dial("l0", "lambda", 0.002, 0.02)


def measured(groups: list[str]) -> DialMetrics:
    made = DialMetrics(DIAL)
    for index, group in enumerate(groups):
        pictures = torch.arange(3 * 16 * 16, dtype=torch.uint8).reshape(1, 3, 16, 16)
        batch = ImageBatch(pictures, pictures + 9, [f"a, {group}"], [index], torch.ones(1, 1), (group,))
        made.update(pictures + 2, batch)
    return made


def test_every_strength_is_in_the_picture() -> None:
    ((name, picture),) = measured([told.name for told in DIAL.positions()]).pictures()
    assert name == "dial, lambda"
    assert picture.size == (720, 480)
    pixels = np.asarray(picture).astype(int)
    blue = (abs(pixels - [31, 119, 180]) < 20).all(-1)
    assert blue.sum(1).max() > 500  # equal errors at all strengths: a level line from end to end


def test_one_strength_is_no_curve() -> None:
    assert not list(measured(["lambda=0.01"]).pictures())
    assert not list(measured(["lambda=0.5", "lambda=0.7"]).pictures())  # asked for, beyond the dial


def test_equal_pictures_leave_a_gap() -> None:
    with_gap = dial_curve("lambda", [(0.002, float("inf"), 30.0), (0.02, 35.0, 29.0)])
    assert with_gap.size == (720, 480)
