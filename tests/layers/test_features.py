"""MFCC and log-mel: TensorFlow's numbers, an FFT as the reference, streams, 16-bit numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressnet.analysis.count import count
from compressnet.bounds import OneOrTwo
from compressnet.layers.features import MFCC, LogMel

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "mfcc.npz"


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2


def by_fft(layer: LogMel, audio: Tensor) -> Tensor:
    """Its log-mel features before they are standardised, by another way: (T, B, bands)."""
    size = 1 << (layer.window - 1).bit_length()
    audio = audio.double()
    frames = audio.unfold(1, layer.window, layer.hop) * torch.hann_window(layer.window, dtype=torch.float64)
    power = torch.fft.rfft(frames, n=size).abs() ** layer.power  # (B, T, size / 2 + 1)
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64) * layer.sample_rate / size
    mel = 1127 * (1 + hertz / 700).log()
    low, high = (1127 * math.log(1 + f / 700) for f in (layer.low_hz, layer.high_hz))
    edges = torch.linspace(low, high, layer.bands + 2, dtype=torch.float64)
    bank = torch.stack(
        [
            torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0)
            for left, centre, right in zip(edges[:-2], edges[1:-1], edges[2:], strict=True)
        ]
    )
    bank[:, : int(1.5 + layer.low_hz * size / layer.sample_rate)] = 0  # as TensorFlow
    return ((power @ bank.T) + layer.offset).clamp(min=1e-12).log().transpose(0, 1)


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"reference case {GOLDEN.name} is not there")
def test_the_numbers_of_tensorflow() -> None:
    golden = np.load(GOLDEN)
    audio = torch.from_numpy(golden["wav_int16"].astype(np.float32) / 32768)[None]
    wanted = torch.from_numpy(golden["mfcc_30ms_10ms_40"])
    torch.testing.assert_close(MFCC()(audio)[:, 0], wanted, atol=1e-4, rtol=0)


def test_silence() -> None:
    coefficients = MFCC()(torch.zeros(1, 16_000))
    assert coefficients.shape == (98, 1, 40)
    assert coefficients[:, 0, 0].numpy() == pytest.approx(-247.139, abs=1e-3)
    assert float(coefficients[..., 1:].abs().max()) < 1e-3


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([8000, 16_000, 22_050, 44_100]),
    st.sampled_from([20.0, 25.0, 30.0, 40.0]),
    st.integers(5, 50),
    st.sampled_from([1, 2]),
    st.sampled_from([0.0, 1e-6]),
)
def test_an_fft_says_the_same(
    rate: int, window_ms: float, bands: int, power: OneOrTwo, offset: float
) -> None:
    layer = LogMel(rate, window_ms, 10.0, bands, high_hz=rate / 2, power=power, offset=offset).double()
    audio = noise(2, layer.samples(3)).double()
    torch.testing.assert_close(layer(audio), by_fft(layer, audio), atol=1e-6, rtol=1e-6)


def test_coefficients_are_a_cosine_transform_of_the_bands() -> None:
    from scipy.fft import dct

    audio = noise(1, 4000)
    bands = LogMel()(audio).numpy()
    wanted = dct(bands, type=2, axis=-1)[..., :13] * math.sqrt(2 / 40) / 2
    np.testing.assert_allclose(MFCC(coefficients=13)(audio).numpy(), wanted, atol=1e-4)


def test_mean_and_scale() -> None:
    audio = noise(2, 4000)
    raw = MFCC(coefficients=3)(audio)
    layer = MFCC(coefficients=3, mean=[1.0, 2.0, 3.0], scale=[2.0, 4.0, 8.0])
    wanted = (raw - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([2.0, 4.0, 8.0])
    torch.testing.assert_close(layer(audio), wanted)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.sampled_from([(30, 10), (40, 20), (10, 10)]))
def test_a_stream_is_a_clip_with_silence_before_it(hops: list[int], sizes: tuple[int, int]) -> None:
    layer = LogMel(window_ms=sizes[0], hop_ms=sizes[1])
    audio = noise(2, sum(hops) * layer.hop)
    state, frames = layer.init_state(2), []
    for samples in audio.split([many * layer.hop for many in hops], 1):
        some, state = layer.step(samples, state)
        frames.append(some)
    silence = torch.zeros(2, layer.window - layer.hop)
    torch.testing.assert_close(torch.cat(frames), layer(torch.cat([silence, audio], 1)), atol=1e-5, rtol=1e-5)


def test_16_bit_numbers_do_not_reach_the_front_end() -> None:
    audio = noise(1, 4000)
    wanted = MFCC()(audio)
    torch.testing.assert_close(MFCC().half()(audio), wanted)
    torch.testing.assert_close(MFCC().bfloat16().float()(audio), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(MFCC()(audio), wanted)
    assert MFCC().double()(audio.double()).dtype == torch.float64


def test_constants_are_not_stored_and_come_back_from_meta() -> None:
    assert not MFCC().state_dict()
    with torch.device("meta"):
        layer = MFCC()
        assert layer(torch.rand(1, 16_000)).shape == (98, 1, 40)
    layer.make_buffers()
    torch.testing.assert_close(layer(noise(1, 4000)), MFCC()(noise(1, 4000)))


def test_multiplications_are_counted() -> None:
    counted = count(MFCC(), torch.rand(2, 16_000))
    assert not counted.problems
    assert counted.macs == 2 * 98 * (240 * 2 * 127 + 127 * 40 + 40 * 40)


def test_gradients_reach_the_audio() -> None:
    audio = noise(1, 480).requires_grad_()
    MFCC()(audio).sum().backward()
    assert audio.grad is not None
    assert bool(torch.isfinite(audio.grad).all())
    assert float(audio.grad.abs().max()) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_ms": 5.0}, "a hop is 1 to a whole window"),
        ({"sample_rate": 4000}, "hold up to 2000 Hz"),
        ({"low_hz": 5000.0}, "5000 to 4000 Hz"),
        ({"window_ms": 500.0}, "at most 4096"),
        ({"mean": [1.0]}, "1 means or scales for 40 features"),
        ({"coefficients": 41}, "41 coefficients of 40 bands"),
    ],
)
def test_what_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MFCC(**arguments)  # type: ignore[arg-type]


def test_audio_of_other_shapes() -> None:
    layer = MFCC()
    with pytest.raises(ValueError, match="480 samples or more"):
        layer(torch.rand(1, 479))
    with pytest.raises(ValueError, match=r"\(B, samples\)"):
        layer(torch.rand(480))
    with pytest.raises(ValueError, match="n hops"):
        layer.step(torch.rand(1, 161), layer.init_state(1))


def test_a_bank_without_bins_is_refused() -> None:
    for low_hz, high_hz in ((20.0, 30.0), (7999.9, 8000.0)):
        with pytest.raises(ValueError, match="no bin of the DFT is within"):
            LogMel(low_hz=low_hz, high_hz=high_hz)
    with pytest.raises(ValueError, match="divide int16 by 32768"):
        LogMel()(torch.zeros(1, 1000, dtype=torch.int16))
