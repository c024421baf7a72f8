"""Photographs whose targets an image operator makes: sizes, splits, and the cache of targets.

    file -> upright sRGB -> short side (one of a bounded set) -> input
                                                            `-> operator -> target     (cached pair, uint8)
    training may then crop both at one place; the operator has always seen the whole picture

An operator's parameters are in pixels, so a target belongs to one size and is never resized (spec fip.md,
trap 12). A target depends on the file's bytes, the size and the operator, and on nothing else: runs with other
seeds, splits or crops find it in the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compressnet.data.cache import Cache
from compressnet.data.image_pair import ImageBatch, ImagePair, collate_pairs, image_pair
from compressnet.data.images import image_size, read_image, resize_short_side, to_uint8
from compressnet.data.protocol import Key
from compressnet.data.sampler import generator
from compressnet.errors import CompressnetError, UsageError
from compressnet.reporter import Reporter

# Raised when decoding, resizing or rounding changes: older cache entries are then left alone.
READER_VERSION = 1
# Files above this are hashed once and the digest is cached: raw photographs take long to read.
_LARGE_FILE = 4_000_000


class Operator(Protocol):
    """An image operator: (H, W, 3) float in [0, 1] in and out."""

    @property
    def version(self) -> int: ...

    def __call__(self, image: np.ndarray, /) -> np.ndarray: ...


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
        test_side: the size for validation and test, or None for the size on disk.
    """

    min_side: int = 320
    max_side: int = 1440
    count: int = 4
    crop: int | None = None
    test_side: int | None = None

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
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def held_out(stem: str, percent: float) -> bool:
    """Whether a photograph belongs to the hashed validation split; other files do not matter."""
    return hash_of("val:" + stem) % 10_000 < percent * 100


class PhotographSplit:
    """One split of photographs, with the operator that makes the targets.

    Args:
        photographs: the files, in a fixed order.
        train: sizes drawn from the bounded set, and crops; otherwise one size each, whole.
        operator_text: the operator as a canonical subject: a part of the cache's key.
        operator: what the text stands for.
        seed: of the draws.
        about: further facts.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        sizes: Sizes,
        train: bool,
        operator_text: str,
        operator: Operator,
        seed: int,
        cache: Cache | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.photographs = list(photographs)
        self.sizes = sizes
        self.train = train
        self.seed = seed
        self.targets = Targets(operator_text, operator, cache if cache is not None else Cache())
        self._about = dict(about or {})
        self._short_sides: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, key: Key) -> ImagePair:
        photograph = self.photographs[key.index]
        side, random = self._draw(key)
        input_, target = self.targets.get(photograph.path, side)
        if self.train and self.sizes.crop is not None:
            input_, target = crop_both(input_, target, self.sizes.crop, random)
        return image_pair(input_, target, photograph.name, key.index)

    def name(self, index: int) -> str:
        return self.photographs[index].name

    def prepare(self, keys: Sequence[Key], processes: int, reporter: Reporter) -> None:
        from compressnet.data.prepare import compute_missing

        wanted = dict.fromkeys((self.photographs[key.index].path, self._draw(key)[0]) for key in keys)
        compute_missing(self.targets, list(wanted), processes, reporter)

    def collate(self, samples: list[ImagePair]) -> ImageBatch:
        return collate_pairs(samples)

    def sides(self, index: int) -> list[int]:
        """Every short side at which a photograph may be asked for."""
        short_side = self._short_side(index)
        if self.train:
            return self.sizes.training_sides(self.photographs[index].path.stem, short_side)
        return [self.sizes.evaluation_side(short_side)]

    def _draw(self, key: Key) -> tuple[int, np.random.Generator]:
        """The short side of a sample, and the generator for what else is drawn."""
        random = generator(self.seed, key.epoch, key.index, key.draw)
        sides = self.sides(key.index)
        side = sides[int(random.integers(len(sides)))]
        return side if key.size is None else min(key.size, self._short_side(key.index)), random

    def facts(self) -> dict[str, Any]:
        return {"count": len(self), "fingerprint": fingerprint(self.photographs), **self._about}

    def _short_side(self, index: int) -> int:
        if index not in self._short_sides:
            self._short_sides[index] = min(image_size(self.photographs[index].path))
        return self._short_sides[index]


@dataclass
class Targets:
    """The cached pairs (input, target) of one operator; given to worker processes as it is."""

    operator_text: str
    operator: Operator
    cache: Cache
    _digests: dict[tuple[str, int, int], str] = field(default_factory=dict, repr=False)

    def get(self, path: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Input and target, uint8 (H, W, 3), at a short side that is not above the file's own."""
        arrays = self.cache.get(self._key(path, side), lambda: self._compute(path, side))
        return arrays["input"], arrays["target"]

    def has(self, path: Path, side: int) -> bool:
        """Whether the pair is in the cache."""
        return self.cache.has(self._key(path, side))

    def _key(self, path: Path, side: int) -> dict[str, Any]:
        return {
            "kind": "operator-target",
            "reader": READER_VERSION,
            "operator": self.operator_text,
            "operator_version": self.operator.version,
            "source": self._digest(path),
            "side": side,
        }

    def _compute(self, path: Path, side: int) -> dict[str, np.ndarray]:
        pixels = resize_short_side(read_image(path, srgb=True).pixels, side)
        input_ = to_uint8(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        # The operator sees what the network will see: the rounded input.
        target = to_uint8(self.operator(input_.astype(np.float32) / 255))
        if target.shape != input_.shape:
            raise CompressnetError(f"operator {self.operator_text} made {target.shape} of {input_.shape}")
        return {"input": input_, "target": target}

    def _digest(self, path: Path) -> str:
        try:
            stat = path.stat()
        except OSError as error:
            raise CompressnetError(f"{path}: cannot be read: {error.strerror}") from None
        known = (str(path.resolve()), stat.st_mtime_ns, stat.st_size)
        if known not in self._digests:
            self._digests[known] = self._read_digest(path, known)
        return self._digests[known]

    def _read_digest(self, path: Path, known: tuple[str, int, int]) -> str:
        def compute() -> dict[str, np.ndarray]:
            with path.open("rb") as file:
                return {"sha256": np.frombuffer(_sha256(file), np.uint8)}

        if known[2] < _LARGE_FILE:
            return bytes(compute()["sha256"]).hex()
        key = {"kind": "file-digest", "path": known[0], "mtime_ns": known[1], "size": known[2]}
        return bytes(self.cache.get(key, compute)["sha256"]).hex()


def _sha256(file: Any) -> bytes:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()


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
        digest.update(f"{photograph.name}\0{photograph.path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


class NoOperator:
    """Stands where no operator was named: the photographs can be counted, but have no targets."""

    @property
    def version(self) -> int:
        raise CompressnetError("photographs need an operator that makes their targets (task.operator)")

    def __call__(self, image: np.ndarray, /) -> np.ndarray:
        raise CompressnetError("photographs need an operator that makes their targets (task.operator)")


def named_operator(assets: Mapping[str, Any]) -> tuple[str, Operator]:
    """The operator that the task has put among its assets, as canonical text and as a callable."""
    from compressnet.subject import canonical_operator, make_operator

    text = assets.get("operator")
    return (canonical_operator(text), make_operator(text)) if text else ("", NoOperator())


def unreadable(photographs: Iterable[Photograph]) -> list[str]:
    """One line for each file that is no image, by its header."""
    problems = []
    for photograph in photographs:
        try:
            image_size(photograph.path)
        except CompressnetError as error:
            problems.append(str(error))
    return problems
