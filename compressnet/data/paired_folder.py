"""Pairs of pictures on disk: what goes in, and what is to come out.

    <root>/inputs/photo.png          or   <root>/{train,val,test}/{inputs,targets}/...
    <root>/targets/photo.png              (equal stems, or `suffix`: photo_pencil.png)

Pictures are taken as they are: most targets belong to one resolution and must not be resized.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from compressnet.bounds import HeldOut, Size
from compressnet.data.image_pair import ImageBatch, ImagePair, collate_pairs, image_pair
from compressnet.data.images import find_images, image_size, read_image, to_uint8
from compressnet.data.photographs import (
    Photograph,
    crop_both,
    fingerprint,
    held_out,
    left_out,
    tell_left_out,
)
from compressnet.data.prepare import undecodable
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sampler import generator
from compressnet.errors import BadFiles, CompressnetError
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter, Silent


class Pair(NamedTuple):
    """Two files and their common name: the input's path below its folder, without the suffix."""

    input: Path
    target: Path
    name: str


class PairedFolder:
    """Inputs and targets of equal names in two folders.

    Args:
        root: the folder of both; relative ones are looked up below `--data-root`.
        inputs: the folder of inputs, below root (or an absolute path).
        targets: the folder of targets, below root (or an absolute path).
        suffix: what a target's stem has after the input's.
        test_root: a root to test on, where `root` has no sub-folder `test`.
        crop: side of the squares to train on; whole pictures without.
        val_percent: how much is held out for validation, by a hash of the name, where `root` has no `val`.
    """

    sample_type: ClassVar[str] = "image_pair"
    test_split: ClassVar[str] = "test"

    def __init__(
        self,
        root: str,
        inputs: str = "inputs",
        targets: str = "targets",
        suffix: str = "",
        test_root: str | None = None,
        crop: Size | None = None,
        val_percent: HeldOut = 5.0,
    ) -> None:
        self._root = root
        self._inputs = inputs
        self._targets = targets
        self._suffix = suffix
        self._test_root = test_root
        self._crop = crop
        self._val_percent = val_percent

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> PairSplit:
        pairs, problems = self._pairs(split)
        problems = problems + size_problems(pairs)
        if problems:
            raise BadFiles(*problems)
        others = left_out([resolve(self._root)]) if split == "train" else []
        return PairSplit(pairs, self._crop if split == "train" else None, seed, others)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        problems: list[str] = []
        everything: list[Pair] = []
        roots = [self._root] + ([] if self._test_root is None else [self._test_root])
        tell_left_out(left_out(resolve(root) for root in roots), reporter)
        for split in ("train", "val", "test"):
            try:
                pairs, found = self._pairs(split)
            except NoSuchSplit:
                continue
            except CompressnetError as error:
                found, pairs = [str(error)], []
            problems += found
            everything += pairs
        everything = list(dict.fromkeys(everything))  # train and val may be parts of one folder
        if not headers:
            files = [path for pair in everything for path in (pair.input, pair.target)]
            problems += undecodable(files, reporter or Silent())
        return list(dict.fromkeys(problems + size_problems(everything) + identical(everything)))

    def _pairs(self, split: str) -> tuple[list[Pair], list[str]]:
        root = resolve(self._root)
        if split not in ("train", "val", "test"):
            raise NoSuchSplit(f"paired_folder has no split '{split}': only train, val and test")
        if split == "test":
            if self._test_root is not None:
                return self._match(resolve(self._test_root), "test_root", self._test_root)
            if not (root / "test").is_dir():
                self._pairs("train")  # what is wrong with the folder at all comes first
                raise NoSuchSplit(
                    "paired_folder has a test split only with data.test_root or a folder `test`"
                )
            return self._match(root / "test", "root", self._root)
        if split == "val" and (root / "val").is_dir():
            return self._match(root / "val", "root", self._root)
        base = root / "train" if (root / "train").is_dir() else root
        pairs, problems = self._match(base, "root", self._root)
        if (root / "val").is_dir():
            return pairs, problems
        held = [pair for pair in pairs if held_out(Path(pair.name).name, self._val_percent)]
        if len(held) == len(pairs):
            held = []
        if split == "val" and not held:
            raise NoSuchSplit("none of the pairs is held out for validation")
        return (held if split == "val" else [pair for pair in pairs if pair not in held]), problems

    def _match(self, base: Path, argument: str, root: str) -> tuple[list[Pair], list[str]]:
        inputs, targets = base / self._inputs, base / self._targets
        for folder in (inputs, targets):
            if not folder.is_dir() or not find_images(folder):
                state = "holds no images" if folder.is_dir() else "is not there"
                others = "".join(f"; {line}" for line in left_out([folder]))
                raise CompressnetError(
                    f"data.{argument} '{root}': {folder.absolute()} {state} (relative roots stand below "
                    f"--data-root or {DATA_VARIABLE}): put inputs into {self._inputs}/ and targets of the "
                    f"same names into {self._targets}/; `train --smoke` runs without data{others}"
                )
        return match(inputs, targets, self._suffix)


class PairSplit:
    """One split of pairs."""

    continuous = False
    derives = True  # nothing, but `prepare` says what it left out
    has_targets = True

    def __init__(self, pairs: list[Pair], crop: int | None, seed: int, left_out: Sequence[str] = ()) -> None:
        self.pairs = pairs
        self._crop = crop
        self._seed = seed
        self._left_out = left_out

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> ImagePair:
        pair = self.pairs[key.index]
        input_, target = _read(pair.input), _read(pair.target)
        if input_.shape != target.shape:
            raise CompressnetError(f"{pair.target}: no longer of its input's size")
        if self._crop is not None:
            random = generator(self._seed, key.epoch, key.index, key.draw)
            input_, target = crop_both(input_, target, self._crop, random)
        return image_pair(input_, target, pair.name, key.index)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        """Nothing is derived from pairs; pictures of kinds that are not read are named."""
        tell_left_out(self._left_out, reporter)

    def collate(self, samples: list[ImagePair]) -> ImageBatch:
        return collate_pairs(samples)

    def facts(self) -> dict[str, Any]:
        files = [Photograph(pair.input, f"input/{pair.name}") for pair in self.pairs]
        files += [Photograph(pair.target, f"target/{pair.name}") for pair in self.pairs]
        return {"count": len(self), "fingerprint": fingerprint(files)}


def match(inputs: Path, targets: Path, suffix: str) -> tuple[list[Pair], list[str]]:
    """Pair files by their path without its suffix.

    Returns:
        the pairs, by name, and every file that has no partner, or more than one.
    """
    problems: list[str] = []
    found_inputs = _by_name(inputs, "", problems)
    found_targets = _by_name(targets, suffix, problems)
    alone = sorted(found_inputs.keys() - found_targets.keys())
    problems += [f"{found_inputs[name]}: no target {name}{suffix}.* in {targets}" for name in alone]
    alone = sorted(found_targets.keys() - found_inputs.keys())
    problems += [f"{found_targets[name]}: no input {name}.* in {inputs}" for name in alone]
    common = sorted(found_inputs.keys() & found_targets.keys())
    return [Pair(found_inputs[name], found_targets[name], name) for name in common], problems


def _by_name(folder: Path, suffix: str, problems: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if not name.endswith(suffix):
            problems.append(f"{path}: its name does not end in '{suffix}'")
        elif (stem := name.removesuffix(suffix)) in found:
            problems.append(f"{path}: a second file of the name {stem}, beside {found[stem].name}")
        else:
            found[stem] = path
    return found


def size_problems(pairs: list[Pair]) -> list[str]:
    """One line for each pair that is unreadable or of two sizes, by the files' headers."""
    problems = []
    for pair in pairs:
        try:
            width, height = image_size(pair.input)
            target_width, target_height = image_size(pair.target)
        except CompressnetError as error:
            problems.append(str(error))
            continue
        off = max(abs(width - target_width), abs(height - target_height))
        if off:
            kind = "off by one pixel" if off == 1 else "of another size"
            problems.append(
                f"{pair.target}: {kind}: {target_width}x{target_height}, its input {width}x{height}; "
                "crop or remove the pair (resizing a target would change it)"
            )
    return problems


def identical(pairs: list[Pair]) -> list[str]:
    """One line for each target that is its input, byte for byte: known of published sets."""
    return [
        f"{pair.target}: identical to its input"
        for pair in pairs
        if filecmp.cmp(pair.input, pair.target, shallow=False)
    ]


def _read(path: Path) -> np.ndarray:
    pixels = read_image(path, srgb=True).pixels
    return to_uint8(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
