"""Speech Commands, and any folders of spoken words: TensorFlow's task of keyword spotting.

    files of a split (speech_tree.py) -> words, a share of others as `_unknown_`, a share of `_silence_`
    clip -> int16 at `sample_rate`, cut or filled up at its end to `clip_ms`        once: cached, mapped
         -> moved by up to `shift_ms`, zeros fill -> + noise at a volume            in training, every time

P. Warden: Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. 2018, arXiv 1804.03209, and
tensorflow/examples/speech_commands/input_data.py. There the choice of unknown clips follows the order of the
file system; here it follows hashes of names, and is the same everywhere. `_silence_` is noise alone at any
volume, in validation and test too, where it is the same every time.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from compressnet.bounds import HeldOut, Share
from compressnet.data import audio
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
from compressnet.data.speech_check import faults, shared_speakers, tell_few
from compressnet.data.speech_clips import DecodedFiles, Recordings, size_and_time
from compressnet.data.speech_tree import NOISE, SPLITS, Clip, Layout, Tree, noise_files, read_tree
from compressnet.errors import BadFiles, CompressnetError, UsageError, named
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.registry import suggestion
from compressnet.reporter import Reporter, Silent

Word = Annotated[str, Field(min_length=1, max_length=100)]
Percent = Annotated[float, Field(ge=0, le=100)]
ClipLength = Annotated[int, Field(ge=10, le=60_000)]
Shift = Annotated[int, Field(ge=0, le=60_000)]

CORE_WORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
_PERCENT = 10.0  # of silence and of unknown words, beside the words that are listed
_RESERVED = (SILENCE, UNKNOWN, NOISE)
_EVALUATION = 59185  # the seed of silence in validation and test, TensorFlow's
_OBTAIN = "speech_commands_v0.02.tar.gz from storage.googleapis.com/download.tensorflow.org/data"


class Entry(NamedTuple):
    """One sample: its name, the number of its class, and its file; None: silence, made of noise."""

    name: str
    label: int
    path: Path | None


class Noise(NamedTuple):
    """What is done to clips in training.

    Attributes:
        share: of the clips, to which noise is added.
        volume: of it at most; the volume is drawn anew each time.
        shift: by how many samples clips are moved at most.
    """

    share: float
    volume: float
    shift: int


class SpeechCommands:
    """Clips of words.

    Args:
        root: the folder of the words' folders; relative ones are looked up below `--data-root`.
        split: `lists` takes validation_list.txt and testing_list.txt, `hash` TensorFlow's rule, `folders`
            train, val and test; `auto` the first of lists, folders and hash that there is.
        words: the words to tell apart, in the order of the classes; `all`: every folder, sorted.
        unknown_percent, silence_percent: clips of other words and of silence, in percent of those of `words`;
            0: there is no such class. Default: 10, and 0 of `words: all`.
        background_percent: of training clips, to which noise is added.
        background_volume: of that noise at most.
        shift_ms: by how much training clips are moved at most.
        clip_ms: longer clips are cut, shorter ones filled up with zeros, at their ends.
        sample_rate: other rates are resampled.
        val_percent, test_percent: held out by `split: hash`.
        carry: evaluate the clips as one stream, in which models that stream keep their state.
    """

    sample_type: ClassVar[str] = "audio_class"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        root: str = "speech_commands",
        split: Layout = "auto",
        words: list[Word] | Literal["all"] = CORE_WORDS,
        unknown_percent: Percent | None = None,
        silence_percent: Percent | None = None,
        background_percent: Percent = 80.0,
        background_volume: Share = 0.1,
        shift_ms: Shift = 100,
        clip_ms: ClipLength = 1000,
        sample_rate: audio.Rate = 16_000,
        val_percent: HeldOut = 10.0,
        test_percent: HeldOut = 10.0,
        carry: bool = False,
    ) -> None:
        _check_words(words, unknown_percent)
        if shift_ms and shift_ms >= clip_ms:
            raise UsageError(f"data.shift_ms={shift_ms}: clips of {clip_ms} ms would be moved out of sight")
        default = 0.0 if words == "all" else _PERCENT
        self._root, self._layout, self._words = root, split, words
        self._unknown = default if unknown_percent is None else unknown_percent
        self._silence = default if silence_percent is None else silence_percent
        self._noise = Noise(
            background_percent / 100 if background_volume else 0.0,
            background_volume,
            shift_ms * sample_rate // 1000,
        )
        self._clip_ms, self._rate, self._carry = clip_ms, sample_rate, carry
        self._held_out = val_percent, test_percent

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> SpeechCommandsSplit:
        if split not in SPLITS:
            raise NoSuchSplit(f"speech_commands has no split '{split}': only train, val and test")
        tree = self._tree()
        if split not in tree.clips:
            raise self._none(split, f"has no folder '{split}'")
        if problems := tree.problems + self._wordless(tree, split):
            raise BadFiles(*problems)
        classes = self._classes(tree)
        entries = choose(tree.clips[split], classes, self._unknown, self._silence)
        if not entries:
            raise self._none(split, f"has no clips of the words in the split '{split}' ({tree.layout})")
        if split == "train" and UNKNOWN in classes and classes.index(UNKNOWN) not in _labels(entries):
            raise CompressnetError(
                f"data.root '{self._root}': there are no other words, of which `{UNKNOWN}` is made: "
                "add folders of some, or set data.unknown_percent=0"
            )
        check_classes(classes, assets)
        check_format(self._rate, self._clip_ms, assets)
        noise = self._noise if split == "train" else Noise(0, 0, 0)
        return SpeechCommandsSplit(
            split=split,
            classes=classes,
            entries=entries,
            noise_files=self._noise_files(noise.share > 0 or any(entry.path is None for entry in entries)),
            noise=noise,
            clip_ms=self._clip_ms,
            sample_rate=self._rate,
            seed=seed,
            continuous=self._carry and split != "train",
        )

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        try:
            tree = self._tree()
        except CompressnetError as error:
            return error.problems
        noise: list[Path] = []
        problems: list[str] = []
        try:
            noise = noise_files(resolve(self._root))
            self._noise_files(self._noise.share > 0 or self._silence > 0)
        except CompressnetError as error:
            problems = error.problems
        reporter = reporter or Silent()
        clips = [clip for split in SPLITS for clip in tree.clips.get(split, [])]
        tell_few(clips, self._wanted(tree), reporter)
        return [
            *tree.problems,
            *problems,
            *self._wordless(tree, "train" if "train" in tree.clips else "test"),
            *shared_speakers(tree),
            *faults(clips, noise, headers, self._clip_ms, self._rate, reporter),
        ]

    def _tree(self) -> Tree:
        root = resolve(self._root)
        try:
            tree = read_tree(root, self._layout, *self._held_out)
        except CompressnetError as error:
            raise CompressnetError(self._missing(str(error)) if not root.is_dir() else str(error)) from None
        if not tree.words:
            raise CompressnetError(
                self._missing(f"{root.absolute()} holds no folders of clips (.wav, .flac)")
            )
        return tree

    def _missing(self, found: str) -> str:
        return (
            f"data.root '{self._root}': {found} (relative roots stand below --data-root or {DATA_VARIABLE}): "
            f"unpack {_OBTAIN} there, or put the clips of each word into a folder of its name; "
            "`train --smoke` runs without data"
        )

    def _wanted(self, tree: Tree) -> list[str]:
        return tree.words if self._words == "all" else self._words

    def _classes(self, tree: Tree) -> list[str]:
        special = [SILENCE] * (self._silence > 0) + [UNKNOWN] * (self._unknown > 0)
        return special + self._wanted(tree)

    def _wordless(self, tree: Tree, split: str) -> list[str]:
        """One line for each word without a clip: in training, or anywhere."""
        found = {clip.word for clip in tree.clips[split]} if split == "train" else set(tree.words)
        root, problems = resolve(self._root), []
        for word in self._wanted(tree):
            if word not in tree.words:
                nearest = suggestion(word, tree.words)
                problems.append(
                    f"data.words: '{named(word)}': {root} has no clips (.wav, .flac) of it{nearest}"
                )
            elif word not in found:
                problems.append(f"data.words: '{named(word)}': none of its clips in {root} is for training")
        return problems

    def _none(self, split: str, why: str) -> Exception:
        text = f"data.root '{self._root}': {resolve(self._root)} {why}"
        return CompressnetError(text) if split == "train" else NoSuchSplit(text)

    def _noise_files(self, needed: bool) -> list[Path]:
        root = resolve(self._root)
        files = noise_files(root)
        if needed and not files:
            raise CompressnetError(
                f"{root / NOISE}: no recordings of noise (.wav, .flac), of which silence and noisy clips are "
                "made: put some there, or set data.silence_percent=0 and data.background_percent=0"
            )
        return files


def choose(
    clips: Sequence[Clip], classes: Sequence[str], unknown_percent: float, silence_percent: float
) -> list[Entry]:
    """The samples of a split, in an order that hashes of their names give.

    Folders `_unknown_` and `_silence_`, which ready sets for tests have, are taken in the place of a choice.

    Args:
        clips: all of the split.
    """
    labels = {name: label for label, name in enumerate(classes)}
    entries = [Entry(clip.name, labels[clip.word], clip.path) for clip in clips if clip.word in labels]
    given = _labels(entries)
    count = sum(classes[entry.label] not in (SILENCE, UNKNOWN) for entry in entries)
    if UNKNOWN in labels and labels[UNKNOWN] not in given:
        others = [clip for clip in clips if clip.word not in labels and clip.word != SILENCE]
        others.sort(key=lambda clip: _hash("unknown", clip.name))
        others = others[: math.ceil(count * unknown_percent / 100)]
        entries += [Entry(clip.name, labels[UNKNOWN], clip.path) for clip in others]
    if SILENCE in labels and labels[SILENCE] not in given:
        made = math.ceil(count * silence_percent / 100)
        entries += [Entry(f"{SILENCE}/{number}", labels[SILENCE], None) for number in range(made)]
    return sorted(entries, key=lambda entry: _hash("order", entry.name))


def _labels(entries: Iterable[Entry]) -> set[int]:
    return {entry.label for entry in entries}


class SpeechCommandsSplit:
    """One split.

    Args:
        split: train, val or test.
        entries: the samples, in order.
        noise_files: recordings of noise, if there are any.
        noise: what is done to clips.
        seed: of the draws in training.
        continuous: the clips are one stream.
    """

    derives = True
    has_targets = True

    def __init__(
        self,
        split: str,
        classes: list[str],
        entries: Sequence[Entry],
        noise_files: Sequence[Path],
        noise: Noise,
        clip_ms: int,
        sample_rate: int,
        seed: int,
        continuous: bool,
    ) -> None:
        self.classes, self.continuous = classes, continuous
        self.clip_ms, self.sample_rate = clip_ms, sample_rate
        self._split, self._entries, self._seed = split, list(entries), seed
        self._noise = noise
        self._length = clip_ms * sample_rate // 1000
        self._files = DecodedFiles([e.path for e in entries if e.path is not None], clip_ms, sample_rate)
        self._recordings = Recordings(noise_files, clip_ms, sample_rate)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, key: Key) -> AudioClass:
        entry = self._entries[key.index]
        if self._split == "train":
            random = generator(self._seed, key.epoch, key.index, key.draw)
        else:
            random = generator(_EVALUATION, SPLITS.index(self._split), key.index)
        samples = self.clip(key.index)
        if shift := self._noise.shift:
            samples = moved(samples, int(random.integers(-shift, shift)))
        if volume := self._volume(entry, random):
            noise = audio.from_int16(self._piece_of_noise(random))
            noise *= np.float32(volume)
            samples += noise
            np.clip(samples, -1, 1, out=samples)
        return AudioClass(torch.from_numpy(samples), entry.label, entry.name)

    def name(self, index: int) -> str:
        return self._entries[index].name

    def label(self, index: int) -> int:
        """The number of the class of a clip."""
        return self._entries[index].label

    def clip(self, index: int) -> np.ndarray:
        """A clip as it was recorded, without noise or shift: float32 (samples,); of silence zeros."""
        place = self._places[index]
        if place < 0:
            return np.zeros(self._length, np.float32)
        return audio.from_int16(self._files.clips[place])

    def noises(self) -> list[np.ndarray]:
        """The recordings of noise, int16 (N,) each.

        Raises:
            CompressnetError: there are none.
        """
        if not self._recordings.paths:
            raise CompressnetError(
                f"there are no recordings of noise: put some into {NOISE} beside the words"
            )
        return self._recordings.samples

    def clean(self, number: int) -> Iterator[Tensor]:
        """Up to `number` clips of words, evenly from all, without noise or shift: float32 (samples,) each.

        They are read from their files, so that the statistics of features need not wait for the whole split.

        Raises:
            BadFiles: all clips of the split that cannot be read.
        """
        count = min(number, len(self._files.paths))
        for place in range(count):
            yield torch.from_numpy(audio.from_int16(self._files.one(place * len(self._files.paths) // count)))

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        """Decode the whole split and the noise; say which files are resampled or cut.

        Raises:
            BadFiles: files that cannot be read, all of them.
        """
        bad: list[str] = []
        try:
            self._files.decode(reporter)
        except BadFiles as error:
            bad += error.problems
        if self._noise.share or any(entry.path is None for entry in self._entries):
            try:
                len(self._recordings.samples)
            except BadFiles as error:
                bad += error.problems
        if bad:
            raise BadFiles(*bad)
        self._files.tell_odd(reporter)

    def collate(self, samples: list[AudioClass]) -> AudioClassBatch:
        return collate_audio_classes(samples)._replace(carried=self.continuous)

    def facts(self) -> dict[str, Any]:
        """How many, and the beginning of the SHA-256 of classes, names, labels and sizes of files."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for entry in self._entries:
            size = 0 if entry.path is None else size_and_time(entry.path)[0]
            digest.update(f"{entry.name}\0{entry.label}\0{size}\n".encode(errors="surrogateescape"))
        carried = {"set": "carried"} if self.continuous else {}  # other figures, which stand apart
        return {"count": len(self), "fingerprint": digest.hexdigest()[:16], **carried}

    def _volume(self, entry: Entry, random: np.random.Generator) -> float:
        if entry.path is None:
            return random.random()
        if self._noise.share and random.random() < self._noise.share:
            return random.random() * self._noise.volume
        return 0.0

    def _piece_of_noise(self, random: np.random.Generator) -> np.ndarray:
        recordings = self._recordings.samples
        recording = recordings[int(random.integers(len(recordings)))]
        begin = int(random.integers(len(recording) - self._length + 1))
        return recording[begin : begin + self._length]

    @cached_property
    def _places(self) -> list[int]:
        """Where the clip of each sample lies among those decoded; -1 of silence."""
        places, place = [], 0
        for entry in self._entries:
            places.append(-1 if entry.path is None else place)
            place += entry.path is not None
        return places


def moved(samples: np.ndarray, by: int) -> np.ndarray:
    """A clip moved to later (by > 0) or earlier (by < 0), zeros where nothing was."""
    result, length = np.zeros(len(samples), np.float32), len(samples)
    if abs(by) < length:
        result[max(by, 0) : length + min(by, 0)] = samples[max(-by, 0) : length - max(by, 0)]
    return result


def _check_words(words: list[str] | str, unknown_percent: float | None) -> None:
    """Raises UsageError: words that are named twice, or like the classes of their own."""
    if words == "all":
        if unknown_percent:
            raise UsageError("data.unknown_percent: with data.words=all no word is unknown: leave it out")
        return
    if not words:
        raise UsageError("data.words: an empty list: name words, or write all")
    for word, times in Counter(words).items():
        if times > 1:
            raise UsageError(f"data.words: '{named(word)}' is there twice: remove one")
        if word in _RESERVED:
            raise UsageError(f"data.words: '{word}' is no word: the class is there by itself")


def _hash(purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{purpose}:".encode() + os.fsencode(name)).digest()
