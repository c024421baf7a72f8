"""The C kernel of log-mel energies and MFCCs against the torch reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from compressnet.kernels import log_mel as kernel
from compressnet.layers.features import MFCC, LogMel

pytestmark = pytest.mark.skipif(not kernel.available(), reason="the kernel was not built here")

FRAMES = torch.ops.compressnet.log_mel_frames


def both(layer: LogMel, audio: Tensor) -> tuple[Tensor, Tensor]:
    with kernel.reference():
        wanted = layer(audio)
    return layer(audio), wanted


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 700), st.integers(1, 5), st.integers(1, 3), st.data())
def test_agrees_with_the_reference(window: int, frames: int, batch: int, data: st.DataObject) -> None:
    """Windows of any length, banks on both sides of the kernel's vectors."""
    rate = 16_000
    window_ms = window * 1000 / rate + 1e-6
    hop_ms = data.draw(st.integers(1, window)) * 1000 / rate + 1e-6
    bands = data.draw(st.integers(1, 90))
    high_hz = data.draw(st.sampled_from([1000.0, 4000.0, 8000.0]))
    spacing = rate / (1 << (window - 1).bit_length())
    assume(int(1.5 + 20 / spacing) <= int(high_hz / spacing))  # there is a bin in the bank
    power: Any = data.draw(st.sampled_from([1, 2]))
    offset = data.draw(st.sampled_from([0.0, 1e-6]))
    layer = LogMel(rate, window_ms, hop_ms, bands, high_hz=high_hz, power=power, offset=offset)
    assert layer.window == window
    torch.manual_seed(window)
    ours, wanted = both(layer, torch.rand(batch, layer.samples(frames)) - 0.5)
    assert ours.shape == wanted.shape == (frames, batch, layer.width)
    # Where a band is almost empty its logarithm says how the transform was rounded: energies are compared.
    ours, wanted = ours.exp(), wanted.exp()
    assert (ours - wanted).abs().max() <= 1e-5 * wanted.abs().max() + 1e-6


@pytest.mark.parametrize(
    "layer",
    [
        MFCC(),
        MFCC(window_ms=40, hop_ms=20, bands=80, coefficients=30, high_hz=7600, mean=[0.5] * 30),
        MFCC(sample_rate=11_025, window_ms=25.1, bands=13, coefficients=5, scale=[2.0] * 5),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 16), (3, 98)])
def test_coefficients_agree_with_the_reference(layer: MFCC, shape: tuple[int, int]) -> None:
    batch, frames = shape
    torch.manual_seed(0)
    ours, wanted = both(layer, torch.rand(batch, layer.samples(frames)) - 0.5)
    assert (ours - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_silence_and_what_is_not_finite() -> None:
    layer = MFCC()
    audio = torch.zeros(3, layer.window)
    audio[1, 7], audio[2, 7] = math.nan, math.inf
    ours, wanted = both(layer, audio)
    assert ours[0, 0, 0].item() == pytest.approx(-247.139, abs=1e-3)
    torch.testing.assert_close(ours[:, 0], wanted[:, 0], rtol=0, atol=1e-4)
    assert ours[0, 1:].isnan().all()


def test_no_number_of_threads_changes_anything() -> None:
    layer = LogMel()
    audio = torch.rand(3, layer.samples(9)) - 0.5
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = layer(audio)
        torch.set_num_threads(2)
        assert torch.equal(layer(audio), one)
    finally:
        torch.set_num_threads(before)


def test_gradients_other_types_and_graphs_go_through_torch() -> None:
    layer = MFCC()
    audio = torch.rand(1, 1000).requires_grad_()
    assert not kernel.serves(audio, layer._kernel_constants(), layer.window)
    layer(audio).sum().backward()
    assert audio.grad is not None
    wide = MFCC().double()
    assert not kernel.serves(audio.detach().double(), wide._kernel_constants(), wide.window)
    assert wide(audio.detach().double()).dtype == torch.float64
    exported = torch.export.export(layer, (audio.detach(),))
    assert not any("log_mel_frames" in str(node.target) for node in exported.graph.nodes)


class Seen(TorchDispatchMode):
    """How often the kernel was called through torch's dispatcher."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += function is FRAMES.default
        return function(*args, **(kwargs or {}))


def test_it_is_counted_as_the_product_that_it_stands_for() -> None:
    layer = MFCC()
    audio = torch.rand(2, 1000) - 0.5
    with FlopCounterMode(display=False) as ours:
        layer(audio)
    with kernel.reference(), FlopCounterMode(display=False) as wanted:
        layer(audio)
    assert ours.get_total_flops() == wanted.get_total_flops() > 0
    with Seen() as seen:
        layer(audio)
    assert seen.count == 1


def test_the_operation_refuses_what_does_not_fit() -> None:
    layer = MFCC()
    mel, dct, mean, scale = layer._kernel_constants()
    audio = torch.rand(1, 1000)
    torch.library.opcheck(FRAMES, (audio, mel, dct, mean, scale, 480, 160, 2, False, 0.0))
    for given_ in (
        (audio[:, :400], mel, dct, mean, scale, 480, 160, 2),
        (audio, mel, dct, mean, scale, 480, 0, 2),
        (audio, mel, dct, mean, scale, 480, 160, 300),
        (audio, mel, dct, mean, scale, 480, 160, -1),
        (audio, mel, dct, mean, scale[1:], 480, 160, 2),
        (audio, mel, None, mean[1:], scale[1:], 480, 160, 2),
        (audio, mel, dct[1:] if dct is not None else None, mean, scale, 480, 160, 2),
        (audio[0], mel, dct, mean, scale, 480, 160, 2),
    ):
        with pytest.raises(ValueError, match="log_mel_frames: windows of 480"):
            FRAMES(*given_, False, 0.0)
