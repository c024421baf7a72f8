"""Photographs whose targets an image operator makes, or that are their own: names, sizes, splits, samples.

file -> upright sRGB -> short side (one of a bounded set) -> input
                                                        `-> operator -> target     (targets.py: cached)
training may then crop both at one place; the operator has always seen the whole picture
without an operator the target is the input
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressnet.data.conditions import Told, conditions_of
from compressnet.data.image_pair import ImageBatch, ImagePair, collate_pairs, image_pair
from compressnet.data.images import image_size, unread_pictures
from compressnet.data.prepare import prepare_targets, undecodable
from compressnet.data.protocol import Key
from compressnet.data.sampler import generator
from compressnet.data.targets import Targets
from compressnet.errors import BadFiles, CompressnetError, UsageError
from compressnet.reporter import Reporter, Silent

Wanted = tuple[str | None, int]  # an operator and a short side
_TOLD = 1  # of the draw of a condition, which changes no other


@dataclass(frozen=True)
class Photograph:
    """A file and the name it has in reports: relative to its root, unique in the set."""

    path: Path
    name: str


@dataclass(frozen=True)
class Sizes:
    """At which sizes photographs are seen. All are short sides in pixels; nothing is ever enlarged.

    Attributes:
        min_side, max_side: the range that training draws from.
        count: how many different sizes a photograph is trained at.
        crop: side of the square cut from a training picture, or None for whole pictures.
        flip: mirror every second training picture left to right.
        test_side: the size for validation and test, or None for the size on disk.
    """

    min_side: int = 320
    max_side: int = 1440
    count: int = 4
    crop: int | None = None
    test_side: int | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        if self.min_side > self.max_side:
            raise UsageError(f"data.min_side ({self.min_side}) is above data.max_side ({self.max_side})")
        if self.crop is not None and self.crop > self.min_side:
            raise UsageError(f"data.crop ({self.crop}) is above data.min_side ({self.min_side})")

    def training_sides(self, stem: str, short_side: int) -> list[int]:
        """The bounded set for a photograph: one size from each of `count` equal parts of the range.

        Seeded by the file's stem alone, so that every run finds the same targets in the cache.
        """
        largest = min(self.max_side, short_side)
        if largest <= self.min_side:
            return [largest]
        places = (np.arange(self.count) + generator(hash_of(stem)).random(self.count)) / self.count
        span = largest - self.min_side + 1
        return sorted({self.min_side + int(place * span) for place in places})

    def evaluation_side(self, short_side: int) -> int:
        """The one size for validation and test."""
        return short_side if self.test_side is None else min(self.test_side, short_side)


def hash_of(text: str) -> int:
    """63 bits of a text's SHA-256: the same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(_bytes(text)).digest()[:8], "big") >> 1


def _bytes(text: str) -> bytes:
    """UTF-8, and the very bytes of file names that are not."""
    return text.encode(errors="surrogateescape")


def held_out(stem: str, percent: float) -> bool:
    """Whether a photograph belongs to the hashed validation split; other files do not matter."""
    return hash_of("val:" + stem) % 10_000 < percent * 100


class PhotographSplit:
    """One split of photographs, with the operator that makes the targets, if any.

    Args:
        photographs: the files, in a fixed order.
        train: sizes drawn from the bounded set, and crops; otherwise one size each, whole.
        assets: `operator` names what makes the targets, or `operators` (see `conditions`, also of `asked`);
            without, a photograph is its own target.
        seed: of the draws.
        about: further facts.
        left_out: one line for each folder that holds pictures of kinds that are not read.
    """

    continuous = False
    derives = True

    def __init__(
        self,
        photographs: Sequence[Photograph],
        sizes: Sizes,
        train: bool,
        assets: Mapping[str, Any],
        seed: int,
        about: Mapping[str, Any] | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        self.photographs = list(photographs)
        self.sizes = sizes
        self.train = train
        self.seed = seed
        self.targets = Targets(assets.get("operator"))
        self.conditions = conditions_of(assets)
        self.has_targets = self.targets.operator_text is not None or self.conditions is not None
        # in evaluation a photograph is as many samples
        self._positions: list[Told] = []
        if self.conditions is not None and not train:
            self._positions = assets.get("asked") or self.conditions.positions()
        self._imitated = assets.get("operators") or [assets.get("operator")]
        self._about = dict(about or {})
        self._left_out = left_out
        self._short_sides: dict[Path, int] = {}

    def __len__(self) -> int:
        return len(self.photographs) * max(1, len(self._positions))

    def __getitem__(self, key: Key) -> ImagePair:
        photograph, told = self._photograph(key.index), self._told(key)
        random = self._random(key)
        input_, target = self._pair(photograph.path, self._side(key, random), told)
        if self.train and self.sizes.crop is not None:
            input_, target = crop_both(input_, target, self.sizes.crop, random)
        if self.train and self.sizes.flip and random.random() < 0.5:
            input_, target = input_[:, ::-1], target[:, ::-1]
        target = target if self.has_targets else input_
        if told is None:
            return image_pair(input_, target, photograph.name, key.index)
        name = f"{photograph.name}, {told.name}"
        return image_pair(input_, target, name, key.index, told.numbers, told.name)

    def _pair(self, path: Path, side: int, told: Told | None) -> tuple[np.ndarray, np.ndarray]:
        """Input and target; of several operators the mean of their outputs, by shares."""
        if told is None:
            return self.targets.get(path, side)
        pairs = [self.targets.by(operator).get(path, side) for operator in told.operators]
        input_, target = pairs[0]
        if len(pairs) > 1:
            mixed = sum(share * pair[1] for share, pair in zip(told.shares, pairs, strict=True))
            target = np.rint(mixed).astype(np.uint8)
        return input_, target

    def name(self, index: int) -> str:
        name = self._photograph(index).name
        return f"{name}, {self._positions[index % len(self._positions)].name}" if self._positions else name

    def _photograph(self, index: int) -> Photograph:
        return self.photographs[index // max(1, len(self._positions))]

    def _told(self, key: Key) -> Told | None:
        if self._positions:
            return self._positions[key.index % len(self._positions)]
        if self.conditions is None:
            return None
        random = generator(self.seed, key.epoch, key.index, key.draw, _TOLD)
        return self.conditions.draw(hash_of(self._photograph(key.index).path.stem), random)

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        """Compute the targets, or without an operator the pixels, of these samples that are not in the cache.

        Raises:
            BadFiles: photographs cannot be read: all of them, whatever stopped at the first.
            CompressnetError: the cache cannot be written, a worker was killed.
        """
        for line in self._left_out:
            reporter.note("warning", line)
        wanted, bad = self._wanted(keys)
        try:
            if bad:
                raise BadFiles(*bad.values())
            self.fill(wanted, processes, reporter)
        except BadFiles as error:
            drawn = [photograph for photograph in self.photographs if photograph in wanted]
            problems = unreadable(drawn, reporter=reporter, processes=processes)
            raise BadFiles(*(problems or error.problems)) from None

    def fill(self, wanted: Mapping[Photograph, Iterable[Wanted]], processes: int, reporter: Reporter) -> int:
        """Compute these targets as far as they are not in the cache; how many were not.

        Raises:
            BadFiles: a photograph cannot be read.
            CompressnetError: the cache cannot be written, a worker was killed.
        """
        jobs: dict[tuple[str | None, Path], list[int]] = {}
        for photograph, targets in wanted.items():
            for operator, side in sorted(targets, key=str):
                jobs.setdefault((operator, photograph.path), []).append(side)
        each = [(operator, path, sides) for (operator, path), sides in jobs.items()]
        return prepare_targets(self.targets, each, processes, reporter)

    def every_target(self) -> dict[Photograph, list[Wanted]]:
        """All that any run can draw: of each photograph, at every size, of every operator or strength.

        Raises:
            BadFiles: photographs whose size cannot be read: all of them.
        """
        wanted: dict[Photograph, list[Wanted]] = {}
        bad: list[str] = []
        for number, photograph in enumerate(self.photographs):
            try:
                sides = self.sides(number * max(1, len(self._positions)))
            except BadFiles as error:
                bad += error.problems
                continue
            wanted[photograph] = [
                (operator, side) for operator in self._operators(photograph) for side in sides
            ]
        if bad:
            raise BadFiles(*bad)
        return wanted

    def _operators(self, photograph: Photograph) -> list[str | None]:
        """All that a photograph is a sample of."""
        if self.conditions is None:
            return [self.targets.operator_text]
        told = self._positions or self.conditions.of_photograph(hash_of(photograph.path.stem))
        return [operator for one in told for operator in one.operators]

    def _wanted(self, keys: Iterable[Key]) -> tuple[dict[Photograph, set[Wanted]], dict[Photograph, str]]:
        """The targets that each photograph is drawn with, and what is wrong with those without a size."""
        wanted: dict[Photograph, set[Wanted]] = {}
        bad: dict[Photograph, str] = {}
        kinds = len(self._operators(self.photographs[0])) if self.photographs else 0
        for key in keys:
            photograph = self._photograph(key.index)
            targets = wanted.setdefault(photograph, set())
            if photograph in bad:
                continue
            try:
                if len(targets) < kinds * len(self.sides(key.index)):
                    told = self._told(key)
                    operators = (self.targets.operator_text,) if told is None else told.operators
                    side = self._side(key, self._random(key))
                    targets.update((operator, side) for operator in operators)
            except BadFiles as error:
                bad[photograph] = str(error)
        return wanted, bad

    def collate(self, samples: list[ImagePair]) -> ImageBatch:
        return collate_pairs(samples)

    def sides(self, index: int) -> list[int]:
        """Every short side that a photograph is drawn at."""
        short_side = self._short_side(index)
        if self.train:
            return self.sizes.training_sides(self._photograph(index).path.stem, short_side)
        return [self.sizes.evaluation_side(short_side)]

    def facts(self) -> dict[str, Any]:
        facts = {"count": len(self), "fingerprint": fingerprint(self.photographs), **self._about}
        references = [digest for text in self._imitated for digest in self.targets.by(text).references()]
        # By content: targets that were made with another reference are other data.
        return facts | ({"references": [digest[:16] for digest in references]} if references else {})

    def _random(self, key: Key) -> np.random.Generator:
        return generator(self.seed, key.epoch, key.index, key.draw)

    def _side(self, key: Key, random: np.random.Generator) -> int:
        sides = self.sides(key.index)
        return sides[int(random.integers(len(sides)))]

    def _short_side(self, index: int) -> int:
        path = self._photograph(index).path
        if path not in self._short_sides:
            try:
                self._short_sides[path] = min(image_size(path))
            except CompressnetError as error:
                raise BadFiles(str(error)) from None
        return self._short_sides[path]


def crop_both(
    input_: np.ndarray, target: np.ndarray, side: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same square of two (H, W, C) arrays; what there is of it where they are smaller."""
    height, width = input_.shape[:2]
    top = int(random.integers(max(height - side, 0) + 1))
    left = int(random.integers(max(width - side, 0) + 1))
    window = (slice(top, top + side), slice(left, left + side))
    return input_[window], target[window]


def fingerprint(photographs: Iterable[Photograph]) -> str:
    """Identifies a collection of files by their names and sizes."""
    digest = hashlib.sha256()
    for photograph in sorted(photographs, key=lambda photograph: photograph.name):
        digest.update(_bytes(f"{photograph.name}\0{photograph.path.stat().st_size}\n"))
    return digest.hexdigest()[:16]


def unreadable(
    photographs: Iterable[Photograph],
    headers: bool = False,
    reporter: Reporter | None = None,
    processes: int | None = None,
) -> list[str]:
    """One line for each file that cannot be read.

    Args:
        headers: read no more than headers: quick, and blind to what is truncated.
        processes: how many files are decoded at once (default: one a processor).
    """
    paths = [photograph.path for photograph in photographs]
    if not headers:
        return undecodable(paths, reporter or Silent(), processes)
    problems = []
    for path in paths:
        try:
            image_size(path)
        except CompressnetError as error:
            problems.append(str(error))
    return problems


def left_out(folders: Iterable[Path]) -> list[str]:
    """One line for each folder that holds pictures of kinds that are not read."""
    counts = [(folder, unread_pictures(folder)) for folder in folders if folder.is_dir()]
    return [f"{folder}: {words}" for folder, words in counts if words]


def tell_left_out(lines: Iterable[str], reporter: Reporter | None) -> None:
    """Pictures that nobody uses are no defect, but may be a surprise."""
    for line in lines:
        (reporter or Silent()).note("warning", line)
