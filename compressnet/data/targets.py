"""The targets that an image operator makes of photographs, kept in the cache as pairs (input, target).

Photographs without an operator are their own targets: entries hold the decoded and resized pixels alone.
An operator's parameters are in pixels, so a target belongs to one size and is never resized (spec fip.md,
trap 12). It depends on the file's bytes, the size and the operator (of files that are its arguments: on their
bytes), and on nothing else: runs with other seeds, splits or crops find it again.

Entries are read whole and checked each time. Mapped files would let a crop read its rows only (0.3 ms in the
place of 2.2 for 880 x 1320 pixels), but those are checked by the process that starts the workers: here the
workers alone open them, and nobody would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from compressnet.data.cache import Cache
from compressnet.data.images import read_image, resize_short_side, to_uint8
from compressnet.errors import BadFiles, CompressnetError, NotFinite
from compressnet.operators.protocol import Operator
from compressnet.signature import canonical, make

# Raised when decoding, resizing or rounding changes: older cache entries are then left alone.
READER_VERSION = 2
# Files above this are hashed once and the digest is cached: raw photographs take long to read.
_LARGE_FILE = 4_000_000


class Targets:
    """The pairs of one operator, or of none.

    Args:
        operator_text: the operator as a subject; None: a photograph is its own target.
        cache: where pairs are kept; default the user's cache.
    """

    def __init__(self, operator_text: str | None, cache: Cache | None = None) -> None:
        self.operator_text = operator_text
        self.cache = cache if cache is not None else Cache()
        self._digests: dict[tuple[str, int, int], str] = {}
        self._others = {operator_text: self}

    def by(self, operator_text: str | None) -> Targets:
        """Those of another operator in the same cache, which look at each file's bytes once for all."""
        if operator_text not in self._others:
            other = Targets(operator_text, self.cache)
            other._digests, other._others = self._digests, self._others
            self._others[operator_text] = other
        return self._others[operator_text]

    def references(self) -> list[str]:
        """Digests of the files that are arguments of the operator; a missing one is told where it is used."""
        found: list[str] = []

        def digest(path: Path) -> str:
            with suppress(OSError, CompressnetError):
                if path.is_file():  # a pipe would be waited for
                    found.append(self._digest(path))
            return ""

        if self.operator_text is not None:
            canonical("operator", self.operator_text, digest)
        return found

    @cached_property
    def operator(self) -> Operator:
        return cast(Operator, make("operator", self._text))

    def get(self, path: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Input and target, uint8 (H, W, 3), at a short side that is not above the file's own.

        Without an operator both are one array.

        Raises:
            BadFiles: the photograph cannot be read.
            CompressnetError: the cache cannot be written.
        """
        return self._get(path, side, lambda: _read(path))

    def fill(self, path: Path, sides: list[int]) -> None:
        """See that the pairs are in the cache; the photograph is decoded once."""
        decoded: list[np.ndarray] = []

        def pixels() -> np.ndarray:
            if not decoded:
                decoded.append(_read(path))
            return decoded[0]

        for side in sides:
            self._get(path, side, pixels)

    def has(self, path: Path, side: int) -> bool:
        """Whether the pair is in the cache."""
        return self.cache.has(self._key(path, side))

    @cached_property
    def _canonical(self) -> str:
        return canonical("operator", self._text, self._digest)

    @property
    def _text(self) -> str:
        assert self.operator_text is not None
        return self.operator_text

    def _key(self, path: Path, side: int) -> dict[str, Any]:
        pixels = {"reader": READER_VERSION, "source": self._digest(path), "side": side}
        if self.operator_text is None:
            return {"kind": "photograph", **pixels}
        # The operator first: it says more of a file that it cannot read.
        operator = {"operator_version": self.operator.version, "operator": self._canonical}
        return {"kind": "operator-target", **pixels, **operator}

    def _get(self, path: Path, side: int, pixels: Callable[[], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        try:
            arrays = self.cache.get(self._key(path, side), lambda: self._compute(pixels(), side))
        except NotFinite as error:
            raise NotFinite(f"{path}: {error}") from error
        return arrays["input"], arrays["input" if self.operator_text is None else "target"]

    def _compute(self, pixels: np.ndarray, side: int) -> dict[str, np.ndarray]:
        input_ = to_uint8(resize_short_side(pixels, side))
        if self.operator_text is None:
            return {"input": input_}
        # The operator sees what the network will see: the rounded input.
        target = self.operator(input_.astype(np.float32) / 255)
        if not (np.isfinite(target.min()) and np.isfinite(target.max())):
            raise NotFinite(f"{self._text}: the operator's output is not finite (NaN or infinite)")
        return {"input": input_, "target": to_uint8(target)}

    def _digest(self, path: Path) -> str:
        try:
            stat = path.stat()
            known = (str(path.resolve()), stat.st_mtime_ns, stat.st_size)
            if known not in self._digests:
                self._digests[known] = self._read_digest(path, known)
        except OSError as error:
            raise CompressnetError(f"{path}: cannot be read: {error.strerror}") from None
        return self._digests[known]

    def _read_digest(self, path: Path, known: tuple[str, int, int]) -> str:
        if known[2] < _LARGE_FILE:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        key = {"kind": "file-digest", "path": known[0], "mtime_ns": known[1], "size": known[2]}
        arrays = self.cache.get(key, lambda: {"sha256": _digest_of_large(path)})
        return bytes(arrays["sha256"]).hex()


def _digest_of_large(path: Path) -> np.ndarray:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return np.frombuffer(digest.digest(), np.uint8)


def _read(path: Path) -> np.ndarray:
    """float32 (H, W, 3) in [0, 1], sRGB; alpha is ignored."""
    try:
        pixels = read_image(path, srgb=True).pixels
    except CompressnetError as error:
        raise BadFiles(str(error)) from None
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
