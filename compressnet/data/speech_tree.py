"""Clips in a folder for each word, as Speech Commands has them, and which split each belongs to.

    ROOT/<word>/<speaker>_nohash_<n>.{wav,flac}      a clip; other names are taken too
    ROOT/_background_noise_/*.{wav,flac}             recordings of noise
    ROOT/{validation,testing}_list.txt               `lists`: the clips that are not trained on, word/file
    (nothing)                                        `hash`: TensorFlow's rule, on the name of the speaker
    ROOT/{train,val,test}/<word>/*                   `folders`; also called training, validation, testing

P. Warden: Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. 2018, arXiv 1804.03209.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from compressnet.data.audio_class import SILENCE, UNKNOWN
from compressnet.data.limits import read_text_file
from compressnet.errors import CompressnetError, named

Layout = Literal["auto", "lists", "hash", "folders"]
SPLITS = ("train", "val", "test")
SUFFIXES = (".wav", ".flac")
NOISE = "_background_noise_"
_LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
_FOLDERS = {"train": ("train", "training"), "val": ("val", "validation"), "test": ("test", "testing")}
_SPEAKER = re.compile(r"_nohash_.*$")
_MOST_CLIPS = 2**27 - 1  # TensorFlow's "~134M" clips of a word
_TOLD = 20  # missing files of a list


class Clip(NamedTuple):
    """A file of a word.

    Attributes:
        name: `word/file`, which is what lists have.
    """

    path: Path
    name: str
    word: str

    @property
    def speaker(self) -> str | None:
        """Who speaks, where the name of the file tells."""
        speaker, found = _SPEAKER.subn("", self.path.name)
        return speaker if found else None


class Tree(NamedTuple):
    """What lies below a root.

    Attributes:
        layout: lists, hash or folders.
        words: the folders of words in any split, sorted; `_silence_` and `_unknown_` are not among them.
        clips: of each split that there is, sorted by name.
        problems: one line each.
    """

    layout: str
    words: list[str]
    clips: dict[str, list[Clip]]
    problems: list[str]


def read_tree(root: Path, layout: Layout, val_percent: float, test_percent: float) -> Tree:
    """All clips below a folder, by split.

    Args:
        layout: auto takes the lists if there is one, folders named like splits if there are, else the hash.
        val_percent, test_percent: what the hash holds out.

    Raises:
        CompressnetError: no such folder, no list where lists are asked for, no folders of splits.
    """
    if not root.is_dir():
        state = "is no folder" if root.exists() else "is not there"
        raise CompressnetError(f"{root.absolute()} {state}")
    try:
        return _read_tree(root, layout, val_percent, test_percent)
    except OSError as error:
        raise CompressnetError(f"{error.filename}: cannot be read: {error.strerror or error}") from error


def _read_tree(root: Path, layout: Layout, val_percent: float, test_percent: float) -> Tree:
    layout = _layout(root) if layout == "auto" else layout
    if layout == "folders":
        return _of_folders(root)
    clips = _clips(root)
    if layout == "lists":
        return _of_lists(root, clips)
    parts: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in clips:
        parts[which_set(clip.path.name, val_percent, test_percent)].append(clip)
    return Tree("hash", _words(clips), parts, [])


def which_set(file_name: str, val_percent: float, test_percent: float) -> str:
    """The split of a file by the hash of its speaker, as TensorFlow's speech_commands has it.

    All clips of a speaker are in one split. Names without `_nohash_` count whole, with their suffix.
    """
    digest = hashlib.sha1(os.fsencode(_SPEAKER.sub("", file_name)), usedforsecurity=False).hexdigest()
    percent = int(digest, 16) % (_MOST_CLIPS + 1) * (100 / _MOST_CLIPS)
    if percent < val_percent:
        return "val"
    return "test" if percent < val_percent + test_percent else "train"


def noise_files(root: Path) -> list[Path]:
    """The recordings of noise below a root, sorted; none without the folder.

    Raises:
        CompressnetError: the folder cannot be read.
    """
    places = [root, *(root / name for name in _FOLDERS["train"])]
    try:
        return next((found for place in places if (found := _sounds(place / NOISE))), [])
    except OSError as error:
        raise CompressnetError(f"{error.filename}: cannot be read: {error.strerror or error}") from error


def _layout(root: Path) -> Layout:
    if any((root / name).is_file() for name in _LISTS.values()):
        return "lists"
    if _split_folder(root, "train") and _split_folder(root, "test"):
        return "folders"
    return "hash"


def _of_lists(root: Path, clips: list[Clip]) -> Tree:
    """Clips that no list names are trained on. A list may name .wav where the files are .flac."""
    places: dict[str, int] = {}
    splits = ["train"] * len(clips)
    problems: list[str] = []
    for number, clip in enumerate(clips):
        first = clips[places.setdefault(_stem(clip.name), number)]
        if first is not clip:  # which of them would a list mean?
            problems.append(f"{clip.path}: a second clip of its name, beside {first.path.name}: remove one")
    for split, name in _LISTS.items():
        missing = []
        for number, line in _lines(root / name):
            place = places.get(_stem(line))
            if place is None:
                missing.append(f"{root / name}, line {number}: there is no {named(line)}")
            elif splits[place] not in ("train", split):
                problems.append(f"{root / name}, line {number}: {named(line)} is in {_LISTS['val']} too")
            else:
                splits[place] = split
        more = len(missing) - _TOLD
        problems += missing[:_TOLD] + (
            [f"{root / name}: and {more:,} more that are missing"] if more > 0 else []
        )
    parts: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip, split in zip(clips, splits, strict=True):
        parts[split].append(clip)
    return Tree("lists", _words(clips), parts, problems)


def _of_folders(root: Path) -> Tree:
    found = {split: folder for split in SPLITS if (folder := _split_folder(root, split))}
    if not found:
        raise CompressnetError(
            f"{root.absolute()} holds no folder train, val or test (training, validation, testing) with "
            "folders of words, which data.split=folders asks for"
        )
    parts = {split: _clips(folder, (SILENCE, UNKNOWN)) for split, folder in found.items()}
    return Tree("folders", _words([clip for clips in parts.values() for clip in clips]), parts, [])


def _split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split; one that holds no folders is that of a word."""
    for name in _FOLDERS[split]:
        if (root / name).is_dir() and _folders(root / name):
            return root / name
    return None


def _clips(base: Path, special: tuple[str, ...] = ()) -> list[Clip]:
    """The clips of all words, sorted by name; `special` words may begin with `_`."""
    words = [word for word in _folders(base) if not word.startswith((".", "_")) or word in special]
    clips = [Clip(path, f"{word}/{path.name}", word) for word in words for path in _sounds(base / word)]
    return sorted(clips, key=lambda clip: clip.name)


def _folders(base: Path) -> list[str]:
    """The names of the folders in one, sorted; a link that leads nowhere is none."""
    return sorted(entry.name for entry in os.scandir(base) if os.path.isdir(entry.path))


def _sounds(folder: Path) -> list[Path]:
    """The sound files in a folder, sorted; hidden ones (macOS writes `._a.wav`) are left out."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in os.scandir(folder))
    return [folder / name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]


def _words(clips: list[Clip]) -> list[str]:
    return sorted({clip.word for clip in clips} - {SILENCE, UNKNOWN})


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, with their numbers."""
    try:
        text = read_text_file(path).decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise CompressnetError(
            f"{path}: cannot be read: {error.strerror or error}: both lists are needed, or data.split=hash"
        ) from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _stem(name: str) -> str:
    base, dot, suffix = name.rpartition(".")
    return base if f"{dot}{suffix}".lower() in SUFFIXES else name
