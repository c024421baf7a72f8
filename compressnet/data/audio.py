"""Sound files and raw sound: read whole, checked, as one channel.

    file  -> soundfile -> mean of the channels -> float32 (N,) in [-1, 1), and the rate it has
    stdin -> 16-bit little-endian PCM          -> blocks of float32 (n,), as they come

WAV (RF64 too) and FLAC of any width, AIFF, AU and W64. A file that was cut short is told by its header, which
says how long it was: libsndfile returns what is left without a word. Formats whose header does not say it,
MP3 and Ogg among them, are refused. Of FLAC the sum that its header has of all samples is compared.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import numpy as np
import soundfile
from pydantic import Field

from compressnet.errors import CompressnetError, UsageError
from compressnet.files import write_bytes
from compressnet.free_memory import SAFE_SHARE, free_memory
from compressnet.regular_file import open_regular

READER_VERSION = 1  # raised when decoding, resampling or rounding changes: older cache entries are left alone
WRITTEN = (".wav", ".flac")  # suffixes
FULL_SCALE = 32768  # of int16: what 1.0 is
_LARGEST = np.float32(1 - 1 / FULL_SCALE)
_LOUDEST = 2.0  # of floating-point files: above, the samples are of another scale
_RATES = (1_000, 192_000)  # of samples a second: what lies outside is no sound, or a damaged header
_BLOCK = 1 << 20  # numbers that are decoded at once
_SMALL = 100_000_000  # bytes that are taken without asking what is free
_PCM_BLOCK = 1 << 14  # bytes of raw sound that are waited for at most
Rate = Annotated[int, Field(ge=_RATES[0], le=_RATES[1])]
_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "AIFF", "AU", "W64")  # libsndfile's names
_ENDLESS = 2**62  # samples of a file that does not say how many it has
_TRUNCATED = re.compile(r"\(should be|not equal|does not match|truncated|unexpectedly")  # in libsndfile's log
_MAGIC = (b"RIFF", b"RF64", b"RIFX", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"caff")
_UNKNOWN_LENGTHS = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what programs write that do not know the length yet


class Audio(NamedTuple):
    """Sound of one channel.

    Attributes:
        samples: float32 (N,) in [-1, 1).
        rate: samples a second.
    """

    samples: np.ndarray
    rate: int


class AudioHeader(NamedTuple):
    """What a file says of itself: samples of each channel, samples a second, channels."""

    frames: int
    rate: int
    channels: int


def read_audio(source: Path | str | BinaryIO, name: str = "") -> Audio:
    """Read a sound file; several channels are averaged.

    Args:
        source: a file by its name, or opened and seekable.
        name: what messages call it (default: the name of the file).

    Raises:
        CompressnetError: missing, empty, not audio, cut short, too large, samples that are not finite or of
            another scale.
    """
    if isinstance(source, Path | str):
        name = name or str(source)
        try:
            with open_regular(Path(source)) as file:
                return _read(file, name)
        except OSError as error:
            raise CompressnetError(f"{name}: cannot be read: {error.strerror or error}") from error
    return _read(source, name or "audio")


def audio_header(path: Path) -> AudioHeader:
    """What a sound file says of itself; nothing is decoded.

    Raises:
        CompressnetError: missing, empty, not audio, a WAV that is cut short.
    """
    try:
        with open_regular(path) as file, _opened(file, str(path)) as sound:
            return AudioHeader(sound.frames, sound.samplerate, sound.channels)
    except OSError as error:
        raise CompressnetError(f"{path}: cannot be read: {error.strerror or error}") from error


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Sound at another rate, by a polyphase filter of the exact ratio: the same on every machine.

    Args:
        samples: float32 (N,).

    Returns:
        float32 (ceil(N * wanted / rate),).
    """
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // divisor, rate // divisor).astype(np.float32)


def write_audio(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write sound of one channel as 16-bit PCM, whole or not at all.

    Args:
        path: .wav or .flac says the format.
        samples: float (N,) in [-1, 1].

    Raises:
        UsageError: another suffix.
        CompressnetError: it cannot be written.
    """
    check_suffix(path)
    memory = io.BytesIO()  # libsndfile does not say why it cannot write to a disk
    soundfile.write(memory, to_int16(samples), rate, format=path.suffix[1:].upper(), subtype="PCM_16")
    write_bytes(path, memory.getvalue())


def check_suffix(path: Path) -> None:
    """Raises UsageError: `path` does not end in what sound is written as."""
    if path.suffix.lower() not in WRITTEN:
        raise UsageError(f"{path}: sound is written as {' or '.join(WRITTEN)}: name a file that ends so")


def to_int16(samples: np.ndarray) -> np.ndarray:
    """float in [-1, 1] as int16; what lies outside is clipped."""
    return np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def from_int16(samples: np.ndarray) -> np.ndarray:
    """int16 as float32 in [-1, 1)."""
    scaled = samples.astype(np.float32)
    scaled *= np.float32(1 / FULL_SCALE)
    return scaled


def pcm_blocks(stream: BinaryIO, name: str = "-") -> Iterator[np.ndarray]:
    """Raw sound (16-bit little-endian PCM, one channel) as it comes: float32 (n,) in [-1, 1), n > 0.

    Raises:
        CompressnetError: no data, a sound file with a header, half a sample at the end.
    """
    read = getattr(stream, "read1", stream.read)  # what is there already, of a pipe that others still fill
    rest, total = b"", 0
    while data := read(_PCM_BLOCK):
        if not total and _is_file(data):
            raise CompressnetError(
                f"{name}: a sound file was piped in, where raw 16-bit PCM is read: name the file instead"
            )
        total += len(data)
        data = rest + data
        whole = len(data) - len(data) % 2
        rest = data[whole:]
        if whole:
            yield from_int16(np.frombuffer(data[:whole], "<i2"))
    if not total:
        raise CompressnetError(f"{name}: nothing was piped in")
    if rest:
        raise CompressnetError(
            f"{name}: {total:,} bytes were piped in, an odd number: 16-bit PCM has two for each sample"
        )


def _is_file(data: bytes) -> bool:
    return data[:4] in _MAGIC or data[:3] == b"ID3"


def _read(file: BinaryIO, name: str) -> Audio:
    wanted = _flac_sum(file)  # first: libsndfile and this share a place in the file
    with _opened(file, name) as sound:
        _refuse_large(sound, name)
        try:
            blocks = list(_blocks(sound, wanted))
        except soundfile.LibsndfileError as error:
            raise CompressnetError(f"{name}: damaged or cut short ({_reason(error)}): get it again") from None
        except CompressnetError as error:
            raise CompressnetError(f"{name}: {error}") from None
        samples = np.concatenate(blocks or [np.empty(0, np.float32)])
        if len(samples) < sound.frames:
            raise CompressnetError(f"{name}: {_cut(len(samples), sound.frames, 'samples')}")
        if not len(samples):
            raise CompressnetError(f"{name}: holds no samples: record it again, or remove it")
        _check_values(samples, name)
        return Audio(np.clip(samples, -1, _LARGEST), sound.samplerate)


def _opened(file: BinaryIO, name: str) -> soundfile.SoundFile:
    """A sound file, its header read and checked.

    Raises:
        CompressnetError: empty, not audio, a WAV that is cut short, a rate that is none.
    """
    told, there = _wav_lengths(file, name)
    try:
        sound = soundfile.SoundFile(_handle(file), closefd=False)
    except soundfile.LibsndfileError as error:
        raise CompressnetError(f"{name}: not audio that can be read ({_reason(error)})") from None
    if problem := _problem(sound, told, there):
        sound.close()
        raise CompressnetError(f"{name}: {problem}")
    return sound


def _problem(sound: soundfile.SoundFile, told: int, there: int) -> str:
    """What is wrong with a file that could be opened; empty if nothing is."""
    if told > there:
        return _cut(there, told, "bytes")
    if sound.format not in _FORMATS:
        return f"{sound.format_info}: whether it is whole cannot be told: convert it to WAV or FLAC"
    if sound.frames > _ENDLESS:
        return "its header does not say how long it is, as of one that was piped: convert it once more"
    if sound.format not in ("WAV", "WAVEX", "RF64", "FLAC") and _TRUNCATED.search(sound.extra_info):
        return (
            "cut short, or its header does not say how long it is: get it again, or convert it to WAV or FLAC"
        )
    if not _RATES[0] <= sound.samplerate <= _RATES[1]:
        return f"{sound.samplerate:,} samples a second: a damaged header?"
    return ""


def _blocks(sound: soundfile.SoundFile, wanted: tuple[int, bytes] | None) -> Iterator[np.ndarray]:
    """All samples, one channel; `SoundFile.blocks` would have to seek, which not every encoding can.

    Args:
        wanted: bytes of a sample and MD5 sum of them all.
    """
    length, digest = max(1, _BLOCK // sound.channels), hashlib.md5(usedforsecurity=False)
    while len(block := sound.read(length, dtype="int32" if wanted else "float32", always_2d=True)):
        if wanted:
            octets = block.astype("<i4").view(np.uint8).reshape(-1, 4)  # the highest ones hold the sample
            digest.update(octets[:, 4 - wanted[0] :].tobytes())
            block = block.astype(np.float32) * np.float32(2**-31)
        yield _mono(block)
    if wanted and digest.digest() != wanted[1]:
        raise CompressnetError(
            "damaged: its samples are not those of which its header has the sum: get it again"
        )


def _flac_sum(file: BinaryIO) -> tuple[int, bytes] | None:
    """Of a FLAC file bytes of a sample and the MD5 sum of all; None of others, and where it has no sum.

    As STREAMINFO has them: https://xiph.org/flac/format.html; it is the first block. 12 and 20 bits are rare
    and padded otherwise: they go unchecked.
    """
    file.seek(0)
    head = file.read(42)
    if head[:4] != b"fLaC" or len(head) < 42 or not any(head[26:]):
        return None
    bits = ((head[20] & 1) << 4 | head[21] >> 4) + 1
    return None if bits % 8 else (bits // 8, head[26:])


def _handle(file: BinaryIO) -> BinaryIO | int:
    """A descriptor where there is one: libsndfile reads it without a call of Python for every block."""
    try:
        number = file.fileno()
    except OSError:  # bytes in memory
        return file
    os.lseek(number, 0, os.SEEK_SET)  # a buffer may have gone ahead
    return number


def _cut(left: int, told: int, unit: str) -> str:
    return f"cut short: {left:,} of {told:,} {unit} are left: get it again"


def _wav_lengths(file: BinaryIO, name: str) -> tuple[int, int]:
    """How many bytes of samples a WAV says it has, and how many there are; zeros where it does not say.

    Raises:
        CompressnetError: the file is empty.
    """
    end = file.seek(0, 2)
    file.seek(0)
    if not end:
        raise CompressnetError(f"{name}: an empty file")
    told = there = long_length = 0
    head = file.read(12)
    if head[::8] == b"RW":  # RIFF....WAVE, RF64....WAVE; RIFX: numbers begin with their highest byte
        order = ">" if head[:4] == b"RIFX" else "<"
        while len(head := file.read(8)) == 8:
            length = struct.unpack(f"{order}I", head[4:])[0]
            if head[:4] == b"data":
                length = long_length or (0 if length in _UNKNOWN_LENGTHS else length)
                told, there = (length, end - file.tell()) if length else (0, 0)
                break
            begin = file.tell()
            if head[:4] == b"ds64" and len(lengths := file.read(16)) == 16:  # of the file, of the samples
                long_length = struct.unpack("<8xQ", lengths)[0]
            file.seek(begin + length + length % 2)
    file.seek(0)
    return told, there


def _mono(block: np.ndarray) -> np.ndarray:
    """(n, channels) as (n,)."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused later
        return block[:, 0] if block.shape[1] == 1 else block.mean(1, dtype=np.float32)


def _refuse_large(sound: soundfile.SoundFile, name: str) -> None:
    """Twice the samples are held while the blocks are joined."""
    needed = sound.frames * 8
    free = free_memory() if needed > _SMALL else None
    if free is not None and needed > SAFE_SHARE * free:
        raise CompressnetError(
            f"{name}: {sound.frames:,} samples need about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            "free: split the file"
        )


def _check_values(samples: np.ndarray, name: str) -> None:
    if not np.isfinite(samples).all():
        place = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise CompressnetError(f"{name}: sample {place:,} is NaN or infinite: get it or record it again")
    if (peak := float(np.abs(samples).max())) > _LOUDEST:
        raise CompressnetError(f"{name}: samples up to {peak:,.6g}: floating point has to be within -1 and 1")


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).strip().rstrip(".").removeprefix("Error : ").removeprefix("Error in ")
