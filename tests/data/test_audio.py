from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet.data import audio
from compressnet.errors import CompressnetError, UsageError

LEVELS = np.array([0, 1, -1, 32767, -32768, 1234], np.int16)


def tone(rate: int, seconds: float = 0.5, hertz: float = 440) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def write(
    path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str | None = "PCM_16", format: str = ""
) -> Path:
    soundfile.write(path, samples, rate, subtype, format=format or None)
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_16_bits_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", LEVELS)
    read = audio.read_audio(path)
    assert read.samples.dtype == np.float32
    np.testing.assert_array_equal(read.samples * 32768, LEVELS)
    np.testing.assert_array_equal(audio.to_int16(read.samples), LEVELS)
    assert audio.audio_header(path) == (len(LEVELS), 16_000, 1)
    with path.open("rb") as file:
        file.read(7)  # wherever it stands
        np.testing.assert_array_equal(audio.read_audio(file, "-").samples, read.samples)
    np.testing.assert_array_equal(
        audio.read_audio(io.BytesIO(path.read_bytes())).samples, audio.from_int16(LEVELS)
    )


@pytest.mark.parametrize(
    ("subtype", "error"), [("PCM_U8", 1 / 127), ("PCM_24", 1e-6), ("FLOAT", 0), ("DOUBLE", 1e-7)]
)
def test_other_widths(tmp_path: Path, subtype: str, error: float) -> None:
    path = write(tmp_path / "a.wav", tone(8_000), 8_000, subtype)
    read = audio.read_audio(path)
    assert read.rate == 8_000
    np.testing.assert_allclose(read.samples, tone(8_000), atol=error + 1e-9)


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack([tone(16_000), np.zeros(8_000, np.float32)], 1)
    path = write(tmp_path / "a.wav", both, subtype="FLOAT")
    np.testing.assert_allclose(audio.read_audio(path).samples, tone(16_000) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone(rate: int) -> None:
    there = audio.resampled(tone(rate), rate, 16_000)
    assert there.dtype == np.float32
    assert len(there) == 8_000
    np.testing.assert_allclose(there[800:-800], tone(16_000)[800:-800], atol=2e-3)
    assert audio.resampled(there, 16_000, 16_000) is there


def test_what_is_cut_short_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, 16_000).astype(np.int16)
    for suffix, words in ((".wav", "cut short: 16,000 of 32,000 bytes"), (".flac", "damaged or cut short")):
        path = write(tmp_path / f"a{suffix}", noise)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) - 16_000])
        with pytest.raises(CompressnetError, match=words) as error:
            audio.read_audio(path)
        assert str(error.value).startswith(str(path))
    path = write(tmp_path / "b.wav", noise)
    path.write_bytes(path.read_bytes()[:44])
    with pytest.raises(CompressnetError, match="cut short: 0 of 32,000 bytes"):
        audio.audio_header(path)


OTHERS = {"aiff": "AIFF", "au": "AU", "w64": "W64", "rf64": "RF64", "wav": "WAVEX"}


@pytest.mark.parametrize("suffix", OTHERS)
def test_other_formats_are_read_whole_or_not_at_all(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(16_000), format=OTHERS[suffix])
    assert len(audio.read_audio(path).samples) == 8_000
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(CompressnetError, match="cut short"):
        audio.read_audio(path)


def test_an_encoding_that_cannot_seek_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(16_000), subtype="GSM610")
    assert len(audio.read_audio(path).samples) == 26 * 320  # whole blocks


@pytest.mark.parametrize(
    ("kind", "words"),
    [("VOC", r"VOC \(Creative Labs\)"), ("OGG", "OGG"), ("MP3", "MPEG"), ("CAF", "CAF")],
)
def test_formats_whose_length_nobody_checks_are_refused(tmp_path: Path, kind: str, words: str) -> None:
    path = write(tmp_path / "a.sound", tone(16_000), format=kind, subtype=None)
    with pytest.raises(CompressnetError, match=f"{words}.*: whether it is whole cannot be told"):
        audio.read_audio(path)


def test_a_wav_with_the_highest_byte_first(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, LEVELS, 16_000, endian="BIG")
    data = path.read_bytes()
    assert data[:4] == b"RIFX"
    np.testing.assert_array_equal(audio.to_int16(audio.read_audio(path).samples), LEVELS)
    path.write_bytes(data[:-4])
    with pytest.raises(CompressnetError, match="cut short: 8 of 12 bytes"):
        audio.read_audio(path)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2])
def test_flac_has_a_sum_of_its_samples(tmp_path: Path, subtype: str, channels: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (5000, channels))
    path = write(tmp_path / "a.flac", noise, subtype=subtype)
    np.testing.assert_allclose(audio.read_audio(path).samples, noise.mean(1), atol=5e-3)
    data = bytearray(path.read_bytes())
    data[25] ^= 8  # fewer samples, says the header
    path.write_bytes(data)
    with pytest.raises(CompressnetError, match="not those of which its header has the sum|cut short"):
        audio.read_audio(path)
    data[21:26] = data[21] & 0xF0, 0, 0, 0, 0  # no number, as of what was piped
    path.write_bytes(data)
    with pytest.raises(CompressnetError, match="its header does not say how long it is"):
        audio.read_audio(path)


def test_a_length_that_nobody_knew_yet_is_no_cut(tmp_path: Path) -> None:
    """ffmpeg writes such headers into pipes."""
    data = bytearray(write(tmp_path / "a.wav", LEVELS).read_bytes())
    for place in (4, 40):
        data[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    np.testing.assert_array_equal(audio.to_int16(audio.read_audio(io.BytesIO(data)).samples), LEVELS)


def test_bad_files_are_one_line_each(tmp_path: Path) -> None:
    bad = tmp_path / "a.wav"
    tall = np.full(100, 3000.0, np.float32)
    with_nan = tone(16_000)
    with_nan[7] = np.nan
    endless = np.zeros((9, 2), np.float32)
    endless[3] = np.inf, -np.inf
    for make, words in (
        (lambda: bad.write_bytes(b""), "an empty file"),
        (lambda: bad.write_bytes(b"no sound at all, but text" * 20), "not audio that can be read"),
        (lambda: write(bad, np.empty(0, np.int16)), "holds no samples"),
        (lambda: write(bad, with_nan, subtype="FLOAT"), "sample 7 is NaN or infinite"),
        (lambda: write(bad, endless, subtype="FLOAT"), "sample 3 is NaN or infinite"),
        (lambda: write(bad, tall, subtype="FLOAT"), "samples up to 3,000: floating point"),
        (lambda: write(bad, tone(16_000), 500), "500 samples a second: a damaged header"),
        (lambda: bad.unlink(), "cannot be read: No such file"),
    ):
        make()
        with pytest.raises(CompressnetError, match=words) as error:
            audio.read_audio(bad)
        assert len(error.value.problems) == 1
        assert str(error.value).startswith(f"{bad}: ")
    with pytest.raises(CompressnetError, match=r"cannot be read: Is a directory"):
        audio.audio_header(tmp_path)


def test_a_file_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "free_memory", lambda: 1e5)
    monkeypatch.setattr(audio, "_SMALL", 1e5)
    path = write(tmp_path / "a.flac", np.zeros(16_000, np.int16))
    with pytest.raises(CompressnetError, match=r"16,000 samples need about 0\.0 GB, 0\.0 GB are free: split"):
        audio.read_audio(path)


def test_peaks_of_floating_point_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.array([1.2, -1.2, 0.5], np.float32), subtype="FLOAT")
    assert audio.read_audio(path).samples.tolist() == [1 - 1 / 32768, -1, 0.5]


def test_written_sound_is_read_again(tmp_path: Path) -> None:
    for name in ("a.wav", "b.FLAC"):
        audio.write_audio(tmp_path / name, tone(8_000), 8_000)
        read = audio.read_audio(tmp_path / name)
        assert read.rate == 8_000
        np.testing.assert_array_equal(audio.to_int16(read.samples), audio.to_int16(tone(8_000)))
    with pytest.raises(UsageError, match=r"a\.mp3: sound is written as \.wav or \.flac"):
        audio.write_audio(tmp_path / "a.mp3", tone(8_000), 8_000)


class Pipe(io.BytesIO):
    """Gives what it has in pieces of its own choice, as pipes do."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        super().__init__(data)
        self._sizes = sizes

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(self._sizes.pop(0) if self._sizes else size or -1)


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=2, max_size=200), st.lists(st.integers(1, 9), max_size=40))
def test_raw_sound_comes_through_any_pipe(data: bytes, sizes: list[int]) -> None:
    data = b"\0\0" + data[: len(data) // 2 * 2]
    blocks = list(audio.pcm_blocks(Pipe(data, sizes)))
    assert all(len(block) for block in blocks)
    np.testing.assert_array_equal(audio.to_int16(np.concatenate(blocks)), np.frombuffer(data, "<i2"))


def test_what_is_no_raw_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match="-: nothing was piped in"):
        list(audio.pcm_blocks(io.BytesIO()))
    whole = write(tmp_path / "a.wav", LEVELS).read_bytes()
    with pytest.raises(CompressnetError, match="a sound file was piped in"):
        list(audio.pcm_blocks(io.BytesIO(whole)))
    blocks = audio.pcm_blocks(io.BytesIO(b"\x01\x00\x02"))
    assert len(next(blocks)) == 1
    with pytest.raises(CompressnetError, match="3 bytes were piped in, an odd number"):
        next(blocks)
