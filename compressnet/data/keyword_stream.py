"""Long recordings with words here and there: to tell how often a spotter fires when nobody called it.

    x.wav, x.txt (`word, onset in ms`, a line each)  ->  pieces of ten seconds in order, the words in them
    clips, noise  -> mix ->  x.wav, x.txt                a clip in every three seconds or so, in noise

As tensorflow/examples/speech_commands has it: labels as generate_streaming_test_wav.py writes them (a tab
between word and onset does as well), and mixed as that does it. The onset is where the clip begins.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from compressnet.data import audio
from compressnet.data.audio_class import SILENCE, UNKNOWN, Spoken
from compressnet.data.cache import Cache
from compressnet.data.limits import read_text_file
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.data.speech_clips import decoded_recording
from compressnet.errors import BadFiles, CompressnetError, CompressnetNote, UsageError, named, short
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.regular_file import open_regular
from compressnet.reporter import Reporter

Piece = Annotated[int, Field(ge=100, le=600_000)]

RATE = 16_000  # unless the network has another
_OWN = 2018  # keeps the random choices made here apart from those of the sampler
_FADE_MS = 500  # from one noise to the next
_RAMP = 500  # samples at both ends of a word
_PROBLEMS = 15  # lines of a file of labels


class Onset(NamedTuple):
    """A word and where its clip begins."""

    word: str
    onset_ms: float


class AudioPiece(NamedTuple):
    """One sample: what comes next of a recording.

    Attributes:
        samples: float32 (samples,) in [-1, 1).
        start: its first sample's number in the recording.
        onsets: the words whose clips begin in it.
        name: which piece, for reports.
    """

    samples: Tensor
    start: int
    onsets: list[Onset]
    name: str


class AudioStreamBatch(NamedTuple):
    """One piece: float32 (1, samples), and what `AudioPiece` has besides."""

    audio: Tensor
    start: int
    onsets: list[Onset]
    name: str


class Mixed(NamedTuple):
    """A long recording: float32 (N,) in [-1, 1], and its words in order."""

    samples: np.ndarray
    onsets: list[Onset]


class KeywordStream:
    """A long recording and the words in it: test data only.

    Args:
        audio: the sound file; a relative one is looked up below `--data-root`.
        labels: the file of its words, a line each: `word, onset in ms`. Default: that of `audio` with the
            suffix .txt.
        piece_ms: how much is read at once; figures do not depend on it.
    """

    sample_type: ClassVar[str] = "audio_stream"
    test_split: ClassVar[str] = "test"

    def __init__(self, audio: str, labels: str | None = None, piece_ms: Piece = 10_000) -> None:
        self._audio, self._labels, self._piece_ms = audio, labels, piece_ms

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> KeywordStreamSplit:
        if split != "test":
            raise NoSuchSplit(f"keyword_stream has no split '{split}': it has only test data")
        path = resolve(self._audio)
        if not path.exists():
            raise CompressnetError(
                f"data.audio '{self._audio}': {path.absolute()} is not there (relative ones stand below "
                f"--data-root or {DATA_VARIABLE}): `compressnet data mix` makes such a recording"
            )
        header = audio.audio_header(path)
        labels = resolve(self._labels) if self._labels is not None else path.with_suffix(".txt")
        onsets = read_labels(labels, header.frames * 1000 / header.rate, assets.get("classes"))
        rate = assets.get("sample_rate", RATE)
        if header.rate != rate:
            warnings.warn(f"{path}: {header.rate:,} Hz: resampled to {rate:,}", CompressnetNote, stacklevel=2)
        return KeywordStreamSplit(path, header, onsets, rate, self._piece_ms)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        try:
            split = self.open("test", {}, 0)
            if not headers:
                audio.read_audio(split.path)
        except CompressnetError as error:
            return error.problems
        return []


class KeywordStreamSplit:
    """A recording, piece by piece.

    Args:
        onsets: its words, in order.
        rate: of the samples that are given.
    """

    continuous = True
    derives = True
    has_targets = True

    def __init__(
        self, path: Path, header: audio.AudioHeader, onsets: Sequence[Onset], rate: int, piece_ms: int
    ) -> None:
        self.path, self.onsets, self.sample_rate = path, list(onsets), rate
        self._length = -(-header.frames * rate // header.rate)
        self._piece = piece_ms * rate // 1000
        self._cache = Cache()

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes map the samples themselves; pickled, they would be copied."""
        return {key: value for key, value in vars(self).items() if key != "_samples"}

    def __len__(self) -> int:
        return math.ceil(self._length / self._piece)

    def __getitem__(self, key: Key) -> AudioPiece:
        start = key.index * self._piece
        samples = audio.from_int16(self._samples[start : start + self._piece])
        begin, end = (place * 1000 / self.sample_rate for place in (start, start + len(samples)))
        inside = [onset for onset in self.onsets if begin <= onset.onset_ms < end]
        return AudioPiece(torch.from_numpy(samples), start, inside, self.name(key.index))

    def name(self, index: int) -> str:
        width = len(str(self._length // self.sample_rate))  # names in order of time
        return f"{self.path.name} from {index * self._piece / self.sample_rate:0{width}g} s"

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        """Decode the recording.

        Raises:
            BadFiles: it cannot be read.
        """
        try:
            len(self._samples)
        except CompressnetError as error:
            raise BadFiles(*error.problems) from None

    def collate(self, samples: list[AudioPiece]) -> AudioStreamBatch:
        (piece,) = samples
        return AudioStreamBatch(piece.samples[None], piece.start, piece.onsets, piece.name)

    def facts(self) -> dict[str, Any]:
        """How many pieces and seconds, and the beginning of the SHA-256 of recording and words."""
        digest = hashlib.sha256()
        with open_regular(self.path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(written(self.onsets).encode())
        seconds = round(self._length / self.sample_rate, 3)
        return {"count": len(self), "fingerprint": digest.hexdigest()[:16], "seconds": seconds}

    @cached_property
    def _samples(self) -> np.ndarray:
        """int16 (N,)."""
        return decoded_recording(self.path, self.sample_rate, self._cache)


def read_labels(path: Path, length_ms: float, classes: Sequence[str] | None = None) -> list[Onset]:
    """The words of a recording, from lines `word, onset in ms` or `word TAB onset in ms`.

    Args:
        length_ms: of the recording.
        classes: the words that there may be, beside `_unknown_`; None: any.

    Raises:
        CompressnetError: the file is missing, or a line does not fit the recording: each with its number.
    """
    try:
        text = read_text_file(path).decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise CompressnetError(
            f"{path}: cannot be read: {error.strerror or error}: a line `word, onset in ms` for each word "
            "is expected there (data.labels names another file)"
        ) from error
    onsets: list[Onset] = []
    problems = []
    strange: dict[str, int] = {}  # words that the network does not know, and how often
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        onset = _onset(line)
        before = onsets[-1].onset_ms if onsets else 0.0
        if problem := _problem(onset, line, before, length_ms):
            problems.append(f"{path}, line {number}: {problem}")
        elif onset:
            onsets.append(onset)
            if classes is not None and onset.word not in (*classes, UNKNOWN):
                strange[onset.word] = strange.get(onset.word, 0) + 1
    if strange:
        words = ", ".join(
            f"'{named(word)}' ({times:,}x)" for word, times in list(strange.items())[:_PROBLEMS]
        )
        problems.append(
            f"{path}: the network does not know {words} (it knows {', '.join(map(named, classes or ()))})"
        )
    if problems:
        more = len(problems) - _PROBLEMS
        raise CompressnetError(
            *problems[:_PROBLEMS], *([f"{path}: and {more:,} more lines"] if more > 0 else [])
        )
    return onsets


def written(onsets: Iterable[Onset]) -> str:
    """The lines that `read_labels` reads, as TensorFlow writes them."""
    return "".join(f"{onset.word}, {onset.onset_ms:.10g}\n" for onset in onsets)


def mix(
    split: Spoken,
    minutes: float,
    seed: int = 0,
    gap_ms: float = 2000,
    unknown_percent: float = 30,
    noise_volume: float = 0.1,
) -> Mixed:
    """A long recording of clips in noise.

    Args:
        split: where clips and noise come from.
        minutes: its length.
        gap_ms: between two clips on average; from nothing to twice as much.
        unknown_percent: of the clips are `_unknown_`, if there are such; the others are of any word.
        noise_volume: at most; every second it is drawn anew, as is the noise.

    Raises:
        UsageError: shorter than a clip and its gap.
        CompressnetError: no clips of words, no noise.
    """
    rate = split.sample_rate
    length, clip, gap = (int(ms * rate / 1000) for ms in (minutes * 60_000, split.clip_ms, gap_ms))
    if length < clip + gap:
        raise UsageError(
            f"--minutes {minutes:g}: shorter than one clip with its gap ({(clip + gap) / rate:g} s)"
        )
    random = generator(seed, _OWN)
    samples = _noise(split.noises(), length, clip, rate, noise_volume, random)
    places = _places(split)
    words = sorted(places.keys() - {UNKNOWN})
    if not words:
        raise CompressnetError("there are no clips of words in this split")
    ramp = np.minimum(1, np.minimum(np.arange(clip), np.arange(clip)[::-1]) / _RAMP).astype(np.float32)
    onsets = []
    for number in range(length // (clip + gap)):
        start = number * (clip + gap) + int(random.integers(max(gap, 1)))
        unknown = random.random() * 100 < unknown_percent and UNKNOWN in places
        word = UNKNOWN if unknown else words[int(random.integers(len(words)))]
        index = places[word][int(random.integers(len(places[word])))]
        samples[start : start + clip] += split.clip(index) * ramp
        onsets.append(Onset(word, start * 1000 / rate))
    return Mixed(np.clip(samples, -1, 1, out=samples), onsets)


def _places(split: Spoken) -> dict[str, list[int]]:
    """The clips of each class but silence."""
    places: dict[str, list[int]] = {}
    for index in range(len(split)):
        if (word := split.classes[split.label(index)]) != SILENCE:
            places.setdefault(word, []).append(index)
    return places


def _noise(
    recordings: Sequence[np.ndarray],
    length: int,
    segment: int,
    rate: int,
    volume: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Noise after noise, each of another volume, faded into the next: float32 (length,)."""
    fade = min(_FADE_MS * rate // 1000, segment)
    inside = np.concatenate([np.arange(fade) / fade, np.ones(segment - fade), 1 - np.arange(fade) / fade])
    samples = np.zeros(length + segment + fade, np.float32)
    for start in range(0, length, segment):
        recording = recordings[int(random.integers(len(recordings)))]
        begin = int(random.integers(len(recording)))
        piece = np.take(recording, np.arange(begin, begin + len(inside)), mode="wrap")
        loudness = np.float32(random.random() * volume)
        samples[start : start + len(inside)] += audio.from_int16(piece) * inside.astype(np.float32) * loudness
    return samples[:length]


def _onset(line: str) -> Onset | None:
    """What a line says; None if it is not of the form."""
    word, separator, number = line.rpartition("\t" if "\t" in line else ",")
    try:
        onset_ms = float(number)
    except ValueError:
        return None
    return Onset(word.strip(), onset_ms) if separator and word.strip() else None


def _problem(onset: Onset | None, line: str, before: float, length_ms: float) -> str:
    """What is wrong with a line; empty if nothing is."""
    if onset is None or not math.isfinite(onset.onset_ms):
        return f"'{named(short(line.strip(), 40))}' is not `word, onset in ms`"
    if not 0 <= onset.onset_ms < length_ms:
        return f"{onset.onset_ms:,.10g} ms is not within the recording of {length_ms:,.0f} ms"
    if onset.onset_ms < before:
        return f"{onset.onset_ms:,.10g} ms is before the line above ({before:,.10g} ms): sort the lines"
    return ""
