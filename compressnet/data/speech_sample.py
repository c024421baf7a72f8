"""Ten invented words, spoken by a synthesiser of formants: a sample of keyword spotting. Synthetic.

    word -> sounds -> a pulse of damped formants for each period of the voice     vowels, m, n, l
                      bursts and hisses of noise around a frequency               f, k, p, s, sh, t
         -> somewhere in a second, with noise -> float32 (16000,)

Every voice has its pitch, length of vocal tract and tempo; those of validation and test are not among
those of training. A clip is a pure function of the seed, the split and a number; in training the number is
the draw, so that no clip comes twice; those of validation and test are the same for every seed. `_unknown_`
are other words of the same sounds, `_silence_` is noise alone. Built in, to see that everything works: its
figures say nothing of people, and `facts()` call it synthetic wherever they stand.

The pulses are those of X. Rodet: Time-Domain Formant-Wave-Function Synthesis. Computer Music Journal 8(3),
1984, without their gentle attack.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compressnet.bounds import Count, Repeats
from compressnet.data.audio import to_int16
from compressnet.data.audio_class import (
    SILENCE,
    UNKNOWN,
    AudioClass,
    AudioClassBatch,
    check_format,
    collate_audio_classes,
)
from compressnet.data.class_image import check_classes
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.reporter import Reporter

WORDS = ("fipo", "kemu", "lashi", "mufe", "nala", "pika", "samo", "shuno", "talo", "tisu")
RATE, CLIP_MS = 16_000, 1000
SAMPLES = RATE * CLIP_MS // 1000
VOICES = {"train": 32, "val": 8, "test": 8}
_SPLITS = ("train", "val", "test")
_OWN = 1984  # keeps the random choices made here apart from those of the sampler


class _Voiced(NamedTuple):
    """A sound of the voice: formants in Hz, loudness, length in ms."""

    formants: tuple[float, float, float]
    loudness: float
    length: float


class _Noisy(NamedTuple):
    """A sound of breath: the middle of its band in Hz, loudness, silence before it and length in ms."""

    middle: float
    loudness: float
    gap: float
    length: float


# About those of G. Peterson, H. Barney: Control Methods Used in a Study of the Vowels. JASA 24(2), 1952.
_VOICED = {
    "a": _Voiced((730, 1150, 2450), 1.0, 150),
    "e": _Voiced((530, 1850, 2500), 0.9, 140),
    "i": _Voiced((280, 2250, 2950), 0.7, 130),
    "o": _Voiced((520, 880, 2400), 0.9, 150),
    "u": _Voiced((310, 800, 2250), 0.7, 140),
    "l": _Voiced((370, 1100, 2700), 0.45, 70),
    "m": _Voiced((250, 950, 2150), 0.3, 80),
    "n": _Voiced((250, 1500, 2550), 0.3, 80),
}
_NOISY = {
    "f": _Noisy(4500, 0.1, 0, 100),
    "s": _Noisy(6200, 0.25, 0, 120),
    "sh": _Noisy(3000, 0.3, 0, 120),
    "p": _Noisy(900, 0.4, 60, 15),
    "t": _Noisy(4000, 0.4, 60, 20),
    "k": _Noisy(1900, 0.4, 60, 25),
}
_SOUND = re.compile("sh|[a-z]")
_CONSONANTS, _VOWELS = ("f", "k", "l", "m", "n", "p", "s", "sh", "t"), ("a", "e", "i", "o", "u")
_BANDWIDTHS = (70, 100, 150)  # Hz, of the formants
_STRENGTHS = (1.0, 0.6, 0.3)
_HEARD = (RATE // 60, RATE // 90, RATE // 125)  # samples, after which nothing of them is left
_TURN = (2 * math.pi / RATE * np.arange(max(_HEARD))).astype(np.float32)
_DECAYS = [
    (strength * np.exp(-math.pi * bandwidth / RATE * np.arange(length))).astype(np.float32)
    for strength, bandwidth, length in zip(_STRENGTHS, _BANDWIDTHS, _HEARD, strict=True)
]
_PITCH, _TRACT, _TEMPO = (85.0, 260.0), (0.85, 1.2), (0.85, 1.25)
_MARGIN = 20  # ms without speech at both ends of a clip
_BAND = (np.hanning(10)[1:-1] / 2).astype(np.float32)  # what hisses are smoothed with: about 2 kHz of noise
_NOISES, _NOISE_SECONDS = 3, 5


class Voice(NamedTuple):
    """Who speaks: pitch in Hz, what formants are multiplied with, and what lengths."""

    pitch: float
    tract: float
    tempo: float


class SpeechSample:
    """Invented words, synthesised.

    Args:
        count: clips of an epoch of training.
        val_count, test_count: clips to validate and to test on, always the same.
    """

    sample_type: ClassVar[str] = "audio_class"
    test_split: ClassVar[str] = "test"

    def __init__(self, count: Count = 4_800, val_count: Repeats = 480, test_count: Repeats = 960) -> None:
        self._counts = {"train": count, "val": val_count, "test": test_count}

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> SpeechSampleSplit:
        if split not in _SPLITS:
            raise NoSuchSplit(f"speech_sample has no split '{split}': only train, val and test")
        return SpeechSampleSplit(split, self._counts[split], seed, assets)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        return []


class SpeechSampleSplit:
    """One split.

    Args:
        length: samples of an epoch.

    Raises:
        CompressnetError: `assets` know other classes, or another rate or length.
    """

    continuous = False
    derives = False
    has_targets = True
    sample_rate = RATE
    clip_ms = CLIP_MS

    def __init__(self, split: str, length: int, seed: int, assets: Mapping[str, Any]) -> None:
        self.classes = [SILENCE, UNKNOWN, *WORDS]
        self._split, self._length = split, length
        self._seed = seed if split == "train" else 0
        check_classes(self.classes, assets)
        check_format(RATE, CLIP_MS, assets)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: Key) -> AudioClass:
        number = key.draw if self._split == "train" else key.index
        samples = self._made(key.index, number)
        return AudioClass(torch.from_numpy(samples), self.label(key.index), self.name(key.index))

    def name(self, index: int) -> str:
        return f"{self._split}/{self.classes[self.label(index)]}-{index}"

    def label(self, index: int) -> int:
        """The number of the class of a clip."""
        return index % len(self.classes)

    def clip(self, index: int) -> np.ndarray:
        """A clip, float32 (16000,): there is no other form of it without noise."""
        return self._made(index, index)

    def noises(self) -> list[np.ndarray]:
        """Synthetic noise, from white to dark: int16 (N,) each."""
        return _noises(self._split)

    def clean(self, number: int) -> Iterator[Tensor]:
        """Up to `number` clips of words, evenly from all: float32 (16000,) each."""
        spoken = [index for index in range(len(self)) if self.classes[self.label(index)] != SILENCE]
        count = min(number, len(spoken))
        for place in range(count):
            yield torch.from_numpy(self.clip(spoken[place * len(spoken) // count]))

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        pass

    def collate(self, samples: list[AudioClass]) -> AudioClassBatch:
        return collate_audio_classes(samples)

    def facts(self) -> dict[str, Any]:
        """How many, and the beginning of the SHA-256 of what makes them: voices, a clip."""
        digest = hashlib.sha256(json.dumps([self._split, self._length, voices(self._split)]).encode())
        digest.update(to_int16(self._made(2, 2)).tobytes())
        return {"count": len(self), "fingerprint": digest.hexdigest()[:16], "synthetic": True}

    def _made(self, index: int, number: int) -> np.ndarray:
        random = generator(self._seed, _OWN, _SPLITS.index(self._split), number)
        name = self.classes[self.label(index)]
        loudness = math.exp(random.uniform(math.log(0.003), math.log(0.03)))
        samples = _white(random, SAMPLES) * np.float32(loudness)
        if name == SILENCE:
            samples *= np.float32(random.uniform(0, 3))
        else:
            known = voices(self._split)
            voice = known[int(random.integers(len(known)))]
            speech = spoken(_other_word(random) if name == UNKNOWN else name, voice, random)
            margin = RATE * _MARGIN // 1000
            speech = speech[: SAMPLES - 2 * margin]
            begin = margin + int(random.integers(SAMPLES - 2 * margin - len(speech) + 1))
            samples[begin : begin + len(speech)] += speech
        return np.clip(samples, -1, 1, out=samples)


@cache
def voices(split: str) -> list[Voice]:
    """Those who speak in a split."""
    found = []
    for number in range(VOICES[split]):
        random = generator(_OWN, _SPLITS.index(split), number)
        size = random.random()  # small people have short tracts and high voices
        pitch = _PITCH[0] * (_PITCH[1] / _PITCH[0]) ** np.clip(size + random.normal(0, 0.1), 0, 1)
        tract = _TRACT[0] + (_TRACT[1] - _TRACT[0]) * np.clip(size + random.normal(0, 0.1), 0, 1)
        found.append(Voice(float(pitch), float(tract), random.uniform(*_TEMPO)))
    return found


def spoken(word: str, voice: Voice, random: np.random.Generator) -> np.ndarray:
    """A word as float32 (N,), its peak between 0.2 and 0.9."""
    sounds = _SOUND.findall(word)
    lengths = np.array([_length(sound) for sound in sounds]) * random.uniform(0.85, 1.15, len(sounds))
    ends = np.cumsum(lengths * voice.tempo / 1000)  # seconds
    begins = np.concatenate([[0.0], ends[:-1]])
    samples = _voiced(sounds, begins, ends, voice, random)
    for sound, begin, end in zip(sounds, begins, ends, strict=True):
        if noisy := _NOISY.get(sound):
            first = int((begin + noisy.gap * voice.tempo / 1000) * RATE)
            hiss = _hiss(int(end * RATE) - first, noisy.middle * voice.tract, random)
            samples[first : first + len(hiss)] += hiss * np.float32(noisy.loudness)
    samples *= np.float32(random.uniform(0.2, 0.9) / max(float(np.abs(samples).max()), 1e-6))
    return samples


def _length(sound: str) -> float:
    """In ms, with the silence before it."""
    noisy = _NOISY.get(sound)
    return noisy.gap + noisy.length if noisy else _VOICED[sound].length


def _voiced(
    sounds: list[str], begins: np.ndarray, ends: np.ndarray, voice: Voice, random: np.random.Generator
) -> np.ndarray:
    """What the voice gives to a word: pulses added where they begin, float32 (N,)."""
    length = int(ends[-1] * RATE) + len(_TURN) + 1
    times = _pulses(ends[-1], voice, random)
    own = [number for number, sound in enumerate(sounds) if sound in _VOICED]
    centres = (begins[own] + ends[own]) / 2
    targets = np.array([_VOICED[sounds[number]].formants for number in own]) * voice.tract
    targets = targets * random.uniform(0.96, 1.04, targets.shape)
    formants = np.stack([np.interp(times, centres, targets[:, n]) for n in range(3)], 1)  # (P, 3)
    loudness = _loudness(sounds, begins, ends, times)
    heard = loudness > 0.01
    times, formants, loudness = times[heard], formants[heard], loudness[heard]
    pulses = np.zeros((len(times), len(_TURN)), np.float32)
    for formant, decay in zip(formants.T.astype(np.float32), _DECAYS, strict=True):
        damped = np.sin(np.multiply.outer(formant, _TURN[: len(decay)]))
        damped *= decay
        pulses[:, : len(decay)] += damped
    pulses *= loudness.astype(np.float32)[:, None]
    samples = np.zeros(length, np.float32)
    for begin, pulse in zip((times * RATE).astype(int).tolist(), pulses, strict=True):
        samples[begin : begin + len(pulse)] += pulse
    return samples


def _pulses(end: float, voice: Voice, random: np.random.Generator) -> np.ndarray:
    """When the voice opens, in seconds: its pitch falls by a sixth or so, and is not quite even."""
    times = np.arange(0, end, 0.002)
    fall = random.uniform(0.05, 0.25)
    pitch = voice.pitch * random.uniform(0.92, 1.08) * (1 - fall * times / end)
    phase = np.cumsum(pitch) * 0.002
    found = np.interp(np.arange(1, int(phase[-1])), phase, times)
    return np.clip(found + random.normal(0, 1e-4, len(found)), 0, end)


def _loudness(sounds: list[str], begins: np.ndarray, ends: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Of the voice at each time: level within a sound, in between straight over 20 ms."""
    levels = [_VOICED[sound].loudness if sound in _VOICED else 0.0 for sound in sounds]
    inner = np.minimum(0.01, (ends - begins) / 3)
    places = np.stack([begins + inner, ends - inner], 1).ravel()
    return np.interp(times, places, np.repeat(levels, 2))


def _hiss(length: int, middle: float, random: np.random.Generator) -> np.ndarray:
    """Noise of a band around a frequency, float32 (n,), that swells and fades."""
    length = max(length, 32)
    noise = np.convolve(_white(random, length), _BAND, "same")
    carrier = np.cos(2 * math.pi * min(middle, 0.45 * RATE) / RATE * np.arange(length))
    edge = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / (length / 4))
    return (noise * carrier * edge).astype(np.float32)


def _white(random: np.random.Generator, length: int) -> np.ndarray:
    """White noise, float32 (n,): a piece of a stock, ten times as fast as noise made anew."""
    stock = _stock()
    begin = int(random.integers(len(stock) - length))
    return stock[begin : begin + length]


@cache
def _stock() -> np.ndarray:
    return generator(_OWN).standard_normal(RATE * 20, np.float32)


def _other_word(random: np.random.Generator) -> str:
    """Two syllables that are none of the words."""
    while True:
        parts = [str(random.choice(kind)) for kind in (_CONSONANTS, _VOWELS) * 2]
        if (word := "".join(parts)) not in WORDS:
            return word


@cache
def _noises(split: str) -> list[np.ndarray]:
    found = []
    for number in range(_NOISES):
        random = generator(_OWN, _SPLITS.index(split), 1000 + number)
        noise = random.standard_normal(RATE * _NOISE_SECONDS)
        width = 1 + 8 * number  # the wider the mean, the darker
        noise = np.convolve(noise, np.full(width, 1 / math.sqrt(width)), "same")
        found.append(to_int16(noise * 0.2))
    return found
