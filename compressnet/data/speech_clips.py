"""Sound files of one length, decoded once: clips of words, and the recordings of noise behind them.

file -> one channel -> `sample_rate` -> int16, cut or filled up at its end to `clip_ms`
     -> all in one array on the disk (`Cache.mapped`), of which memory holds what is looked at
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compressnet.data import audio
from compressnet.data.cache import Cache
from compressnet.data.speech_check import tell
from compressnet.errors import BadFiles, CompressnetError, CompressnetNote
from compressnet.reporter import Level, Reporter, Silent

_BLOCK = 256  # clips that are decoded before they are written


class DecodedFiles:
    """Clips of words, in the order of their files.

    Args:
        clip_ms: their length: longer ones are cut, shorter ones filled up with zeros.
        sample_rate: other rates are resampled.
    """

    def __init__(self, paths: Sequence[Path], clip_ms: int, sample_rate: int) -> None:
        self.paths, self._clip_ms, self._rate = list(paths), clip_ms, sample_rate
        self._length = clip_ms * sample_rate // 1000
        self._cache = Cache()

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes map the decoded clips themselves; pickled, they would be copied."""
        return {key: value for key, value in vars(self).items() if key != "clips"}

    @cached_property
    def clips(self) -> np.ndarray:
        """All, int16 (clips, samples), where nobody has called `decode`."""
        clips = self._mapped(Silent())
        if multiprocessing.parent_process() is None:
            self.tell_odd(_Warning())
        return clips

    def decode(self, reporter: Reporter) -> None:
        """Make `clips` ahead.

        Raises:
            BadFiles: all files that cannot be read.
        """
        vars(self)["clips"] = self._mapped(reporter)

    def one(self, place: int) -> np.ndarray:
        """A clip, int16 (samples,), read from its file: what needs a few need not wait for all.

        Raises:
            BadFiles: all files that cannot be read.
        """
        try:
            return self._decoded(self.paths[place])
        except CompressnetError:
            raise BadFiles(*self._unreadable()) from None

    def tell_odd(self, reporter: Reporter) -> None:
        """Say which files are resampled or cut."""
        table = self._headers
        rates, lengths = table["rates"], table["frames"] * 1000 / table["rates"]
        names = np.array([f"{path.parent.name}/{path.name}" for path in self.paths], dtype=object)
        tell(reporter, f"not of {self._rate:,} Hz: resampled", names[rates != self._rate])
        tell(reporter, f"longer than data.clip_ms={self._clip_ms}: cut", names[lengths > self._clip_ms])

    def _mapped(self, reporter: Reporter) -> np.ndarray:
        key = {"kind": "clips", "rate": self._rate, "length": self._length, "files": self._digest}
        key["reader"] = audio.READER_VERSION
        return np.asarray(self._cache.mapped(key, lambda: self._blocks(reporter)))

    @cached_property
    def _headers(self) -> dict[str, np.ndarray]:
        """Of every clip `frames` and `rates`."""

        def read() -> dict[str, np.ndarray]:
            found = [audio.audio_header(path) for path in self.paths]
            frames, rates = np.array([header[:2] for header in found], np.int64).reshape(-1, 2).T
            return {"frames": frames, "rates": rates}

        return self._cache.get({"kind": "clip-headers", "files": self._digest}, read)

    @cached_property
    def _digest(self) -> str:
        """Of places, sizes and times of the files: what their content follows from."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.fsencode(path.absolute()) + f"\0{size_and_time(path)}\n".encode())
        return digest.hexdigest()

    def _blocks(self, reporter: Reporter) -> Iterator[np.ndarray]:
        """The clips, int16 (n, samples) at a time.

        Raises:
            BadFiles: after the last, all that cannot be read.
        """
        reporter.stage("decoding", len(self.paths), "clips")
        bad = []
        yield np.empty((0, self._length), np.int16)
        for begin in range(0, len(self.paths), _BLOCK):
            paths = self.paths[begin : begin + _BLOCK]
            block = np.zeros((len(paths), self._length), np.int16)
            for row, path in zip(block, paths, strict=True):
                try:
                    row[:] = self._decoded(path)
                except CompressnetError as error:
                    bad.append(str(error))
                reporter.advance()
            yield block
        if bad:
            raise BadFiles(*bad)

    def _decoded(self, path: Path) -> np.ndarray:
        samples = _at_rate(path, self._rate)[: self._length]
        return np.pad(samples, (0, self._length - len(samples)))

    def _unreadable(self) -> list[str]:
        try:
            for _ in self._blocks(Silent()):
                continue
        except BadFiles as error:
            return error.problems
        return ["a clip could be read at the second try only: a fault of the disk?"]


class Recordings:
    """Recordings of noise, each of a clip's length at least.

    Args:
        clip_ms, sample_rate: of the clips.
    """

    def __init__(self, paths: Sequence[Path], clip_ms: int, sample_rate: int) -> None:
        self.paths, self._clip_ms, self._rate = list(paths), clip_ms, sample_rate
        self._cache = Cache()

    def __getstate__(self) -> dict[str, Any]:
        """As of `DecodedFiles`."""
        return {key: value for key, value in vars(self).items() if key != "samples"}

    @cached_property
    def samples(self) -> list[np.ndarray]:
        """int16 (N,) each.

        Raises:
            BadFiles: all files that cannot be read, or are too short.
        """
        found, bad = [], []
        for path in self.paths:
            try:
                found.append(self._recording(path))
            except CompressnetError as error:
                bad.append(str(error))
        if bad:
            raise BadFiles(*bad)
        return found

    def _recording(self, path: Path) -> np.ndarray:
        samples = decoded_recording(path, self._rate, self._cache)
        if len(samples) < self._clip_ms * self._rate // 1000:
            raise CompressnetError(
                f"{path}: {len(samples) * 1000 // self._rate:,} ms of noise, shorter than a clip of "
                f"{self._clip_ms:,} ms: record more or remove it"
            )
        return samples


def size_and_time(path: Path) -> tuple[int, int]:
    """Of a file, in bytes and nanoseconds; zeros of one that is not there: decoding names all such."""
    try:
        stat = os.stat(path)
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def decoded_recording(path: Path, rate: int, cache: Cache) -> np.ndarray:
    """A whole file at a rate, int16 (N,), mapped.

    Raises:
        CompressnetError: it cannot be read.
    """
    size, mtime_ns = size_and_time(path)
    file = {"path": str(path.absolute()), "size": size, "mtime_ns": mtime_ns}
    key = {"kind": "recording", "rate": rate, "reader": audio.READER_VERSION, **file}
    return np.asarray(cache.mapped(key, lambda: [_at_rate(path, rate)]))


def _at_rate(path: Path, rate: int) -> np.ndarray:
    """A file as int16 (N,) of one channel."""
    sound = audio.read_audio(path)
    return audio.to_int16(audio.resampled(sound.samples, sound.rate, rate))


class _Warning(Silent):
    """Notes as warnings, which the command line shows."""

    def note(self, level: Level, text: str) -> None:
        warnings.warn(text, CompressnetNote, stacklevel=2)
