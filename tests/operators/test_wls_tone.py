from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from compressnet.operators.grid_system import Solver
from compressnet.operators.lab import lab_to_rgb, rgb_to_lab
from compressnet.operators.wls_tone import WLSTone, wls

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "operators.npz"


@pytest.mark.parametrize(("solver", "scale"), [("direct", 1e-6), ("multigrid", 1e-5)])
def test_smoothing_equals_the_authors_code(solver: Solver, scale: float) -> None:
    if not GOLDEN.is_file():
        pytest.skip(
            "needs the output of the authors' MATLAB code (operators.npz), which may not be distributed"
        )
    golden = np.load(GOLDEN)
    smooth = wls(golden["gray"].astype(np.float64) * 100, 0.125, 1.2, solver)
    np.testing.assert_allclose(smooth, golden["wls_lam0125"], rtol=0, atol=100 * scale)


def _sigmoid(x: float, slope: float) -> float:
    """As the paper has it."""
    return (1 / (1 + np.exp(-slope * x)) - 0.5) * (0.5 / (1 / (1 + np.exp(-slope * 0.5)) - 0.5))


@pytest.mark.parametrize("value", [0.0, 0.02, 0.5, 1.0])
def test_a_flat_picture_has_the_tone_of_its_base(value: float) -> None:
    lightness = rgb_to_lab(np.full((1, 1, 3), value))[0, 0, 0]
    expected = np.zeros(3)
    for slope, exposure in ((1, 1), (1, 1), (15, 1.1)):
        new = np.clip(100 * _sigmoid((exposure * lightness - 56) / 100, slope) + 56, 0, 100)
        expected += np.clip(lab_to_rgb(np.array([[[new, 0, 0]]]))[0, 0], 0, 1) / 3
    for shape in ((3, 4, 3), (70, 65, 3)):
        result = WLSTone()(np.full(shape, value))
        np.testing.assert_allclose(result, np.broadcast_to(expected, shape), rtol=0, atol=1e-6)


def test_details_of_all_sizes_grow_and_edges_have_no_halos() -> None:
    image = np.full((70, 120, 3), 0.35)
    image[:, 60:] = 0.6
    image[:, :60] += 0.01 * np.sin(np.arange(60) * 2)[:, None]
    result = WLSTone()(image)
    assert result[:, 10:50].std() > 2 * image[:, 10:50].std()
    flat = result[:, 62:]
    assert flat.max() - flat.min() < 0.01


def test_gray_stays_gray() -> None:
    gray = np.repeat(np.random.default_rng(0).random((66, 70, 1)), 3, axis=2)
    result = WLSTone()(gray)
    np.testing.assert_allclose(result, result[..., :1].repeat(3, axis=2), rtol=0, atol=1e-9)


def test_saturation_leaves_the_lightness() -> None:
    image = 0.4 + 0.1 * np.random.default_rng(0).random((8, 9, 3))
    gray, colour = (rgb_to_lab(WLSTone(saturation=saturation)(image)) for saturation in (0, 1))
    np.testing.assert_allclose(gray[..., 1:], 0, rtol=0, atol=1e-6)
    assert np.abs(colour[..., 1:]).max() > 1


@pytest.mark.parametrize(("shape", "tolerance"), [((20, 31, 3), 1e-9), ((70, 81, 3), 1e-4)])
def test_turned_pictures_give_turned_results(shape: tuple[int, int, int], tolerance: float) -> None:
    image = np.random.default_rng(0).random(shape)
    turned = WLSTone()(image.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(turned, WLSTone()(image), rtol=0, atol=tolerance)


def test_float32_equals_float64() -> None:
    image = np.random.default_rng(0).random((66, 70, 3)).astype(np.float32)
    assert WLSTone()(image).dtype == np.float32
    np.testing.assert_allclose(WLSTone()(image), WLSTone()(image.astype(np.float64)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_": 0}, "'lambda' should"),
        ({"lambda_": 26}, "'lambda' should"),
        ({"alpha": float("nan")}, "'alpha' should"),
        ({"saturation": -1}, "'saturation' should"),
    ],
)
def test_refuses_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"wls_tone: {message}"):
        WLSTone(**arguments)


def test_refuses_one_channel() -> None:
    with pytest.raises(ValueError, match="wls_tone: expected three channels"):
        WLSTone()(np.zeros((4, 4, 1)))


# ---- Lab


def test_lab_is_that_of_profiles() -> None:
    white_black_gray = rgb_to_lab(np.array([[[1.0, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5]]]))
    np.testing.assert_allclose(
        white_black_gray, np.array([[[100, 0, 0], [0, 0, 0], [53.389, 0, 0]]]), rtol=0, atol=1e-3
    )
    red = rgb_to_lab(np.array([[[1.0, 0, 0]]]))[0, 0]
    np.testing.assert_allclose(red, [54.29, 80.81, 69.89], rtol=0, atol=0.01)  # Lindbloom's calculator


def test_lab_goes_back() -> None:
    image = np.random.default_rng(0).random((40, 50, 3))
    np.testing.assert_allclose(lab_to_rgb(rgb_to_lab(image)), image, rtol=0, atol=1e-12)


def test_lab_has_the_curves_of_a_peer() -> None:
    gray = np.repeat(np.linspace(0, 1, 101), 3).reshape(1, 101, 3)
    lab = rgb_to_lab(gray)
    np.testing.assert_allclose(lab[..., 0], rgb2lab(gray)[..., 0], rtol=0, atol=2e-3)
    np.testing.assert_allclose(lab_to_rgb(lab), lab2rgb(rgb2lab(gray)), rtol=0, atol=1e-4)
