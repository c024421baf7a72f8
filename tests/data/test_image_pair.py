from __future__ import annotations

import numpy as np
import pytest
import torch

from compressnet.data.image_pair import collate_pairs, image_pair
from compressnet.errors import CompressnetError


def test_planes_come_first_and_keep_their_values() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    pair = image_pair(pixels, 255 - pixels, "a", 7)
    assert pair.input.shape == (3, 2, 3)
    assert pair.input[1, 0, 2] == pixels[0, 2, 1]
    assert torch.equal(pair.target, 255 - pair.input)


def test_collate_stacks_in_order() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    batch = collate_pairs([image_pair(pixels + i, pixels, f"p{i}", i) for i in range(3)])
    assert batch.inputs.shape == (3, 3, 2, 3)
    assert batch.inputs[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert batch.names == ["p0", "p1", "p2"]
    assert batch.indices == [0, 1, 2]


def test_collate_refuses_different_sizes_with_the_way_out() -> None:
    pairs = [image_pair(np.zeros((2, w, 3), np.uint8), np.zeros((2, w, 3), np.uint8), "x", 0) for w in (3, 4)]
    with pytest.raises(CompressnetError, match=r"3x2, 4x2.*train\.batch.*data\.crop"):
        collate_pairs(pairs)
