from __future__ import annotations

import numpy as np
import pytest

from compressnet.operators.l0 import L0
from compressnet.operators.protocol import Operator
from compressnet.operators.rof import ROF


@pytest.mark.parametrize("operator", [L0(), ROF()])
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4)), "expected an image"),
        (np.zeros((0, 4, 3)), "expected an image"),
        (np.zeros((4, 4, 3), np.uint8), "divide by 255"),
        (np.zeros((4, 4, 3), np.float16), "float32 or float64"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_refuses_what_is_no_image_of_floats(operator: Operator, image: np.ndarray, message: str) -> None:
    name = type(operator).__name__.lower()
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        operator(image)
