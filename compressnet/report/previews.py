"""What a run has kept of its previews: pictures, cut into panes and small enough to be sent, and texts.

RUN/previews/step-<n>-<name>.png, .txt -> those of one step -> panes as data URIs, texts
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image as PILImage

from compressnet.data.limits import refuse_many_pixels
from compressnet.data.pillow_files import explained, opened
from compressnet.errors import CompressnetError, CompressnetNote
from compressnet.regular_file import open_regular

T = TypeVar("T")
_FILE = re.compile(r"step-(\d{1,18})-(.+)\.(png|txt)", re.ASCII | re.DOTALL)
_MOST_PICTURES, _MOST_TEXTS = 12, 12
_BUDGET = 2_600_000  # bytes of all pictures together; as text they take a third more
_LARGEST_SHARE = 1_300_000  # of one sample
_MAX_PIXELS = 60_000_000  # of a strip
_MAX_TEXT = 8000  # bytes
_JPEG_QUALITY = 93
_EXACT_PIXELS = 4  # that a byte may hold where exact files are tried: of photographs it is about one


@dataclass(frozen=True)
class Pane:
    """A picture of a sample.

    Attributes:
        size: width and height of the original in pixels.
        uri: a data URI.
    """

    name: str
    size: tuple[int, int]
    uri: str


@dataclass(frozen=True)
class Pictures:
    """The panes of a sample, all of one size; `note` says how they differ from the run's own."""

    name: str
    panes: Sequence[Pane]
    note: str


@dataclass(frozen=True)
class Previews:
    """What the network did to samples after `step`.

    Attributes:
        left_out: how many there are beside these.
        unread: how many of these could not be read; each was told by a `CompressnetNote`.
    """

    step: int
    pictures: Sequence[Pictures] = ()
    texts: Sequence[tuple[str, str]] = ()
    left_out: int = 0
    unread: int = 0


def read_previews(folder: Path, step: int | None, task: type, *, exactly: bool = False) -> Previews | None:
    """The previews of a run after `step`, its last ones if there are none of it; None: there are none.

    Args:
        folder: `RUN/previews`.
        task: the class of its task: it knows how its strips are cut.
        exactly: those of `step` or none.
    """
    by_step = _by_step(folder)
    if not by_step or (exactly and step not in by_step):
        return None
    chosen = step if step is not None and step in by_step else max(by_step)
    files = by_step[chosen]
    pictures = [(name, path) for name, path in files if path.suffix == ".png"]
    texts = [(name, path) for name, path in files if path.suffix == ".txt"]
    shown = pictures[:_MOST_PICTURES]
    share = min(_LARGEST_SHARE, _BUDGET // max(1, len(shown)))
    seen = [read_whole(path, partial(_pictures, name, path, task, share)) for name, path in shown]
    read = [(name, read_whole(path, partial(_text, path))) for name, path in texts[:_MOST_TEXTS]]
    whole = [sample for sample in seen if sample is not None]
    words = [(name, text) for name, text in read if text is not None]
    unread = len(seen) - len(whole) + len(read) - len(words)
    left_out = max(0, len(pictures) - _MOST_PICTURES) + max(0, len(texts) - _MOST_TEXTS)
    return Previews(chosen, whole, words, left_out, unread)


def read_whole(path: Path, read: Callable[[], T]) -> T | None:
    """None: it cannot be read, which is no reason to show nothing of the run."""
    try:
        return read()
    except CompressnetError as error:
        warnings.warn(CompressnetNote(f"{error}; the page is without it"), stacklevel=2)
        return None


def _by_step(folder: Path) -> Mapping[int, list[tuple[str, Path]]]:
    """{step: [(name of the sample, file), ...]}, by name."""
    found: dict[int, list[tuple[str, Path]]] = {}
    # What a link leads to is not the run's: a page is made to be sent.
    for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []:
        if (match := _FILE.fullmatch(path.name)) and path.is_file() and not path.is_symlink():
            found.setdefault(int(match[1]), []).append((match[2], path))
    return found


def _pictures(name: str, path: Path, task: type, budget: int) -> Pictures:
    with explained(path), opened(path, ("PNG",)) as handle:
        refuse_many_pixels(path, handle.size, _MAX_PIXELS)
        strip = handle.convert("RGB")
    panes = _cut(strip, path, task)
    encoded = _encoded(list(panes.values()), budget)
    shown = [
        Pane(pane, picture.size, f"data:image/{encoded.kind};base64,{base64.b64encode(data).decode()}")
        for (pane, picture), data in zip(panes.items(), encoded.files, strict=True)
    ]
    return Pictures(name, shown, encoded.note)


def _cut(strip: PILImage.Image, path: Path, task: type) -> dict[str, PILImage.Image]:
    from compressnet.tasks.image_processing import ImageTranslation, panes_of

    if not issubclass(task, ImageTranslation):
        return {"": strip}
    try:
        return panes_of(strip)
    except CompressnetError as error:
        raise CompressnetError(f"{path}: {error}; delete it, or the folder it is in") from error


class _Encoded(NamedTuple):
    """Files of one kind, and what they lack beside their originals."""

    kind: str
    files: list[bytes]
    note: str


def _encoded(pictures: Sequence[PILImage.Image], budget: int) -> _Encoded:
    """Files of at most `budget` bytes together: exact ones, else JPEG, smaller and smaller."""
    pixels = sum(picture.width * picture.height for picture in pictures)
    if pixels <= budget * _EXACT_PIXELS:
        exact = [_file(picture, "WEBP", lossless=True, method=2) for picture in pictures]
        if sum(map(len, exact)) <= budget:
            return _Encoded("webp", exact, "")
    divisor = 1
    while True:
        small = [picture.reduce(divisor) for picture in pictures] if divisor > 1 else pictures
        found = [_file(picture, "JPEG", quality=_JPEG_QUALITY, subsampling=0) for picture in small]
        if sum(map(len, found)) <= budget or divisor >= min(pictures[0].size):
            sizes = f", 1/{divisor} of the width" if divisor > 1 else ""
            note = f"as JPEG of quality {_JPEG_QUALITY}{sizes}; the picture in the run's folder is exact"
            return _Encoded("jpeg", found, note)
        divisor *= 2


def _file(picture: PILImage.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_TEXT + 1)
    except OSError as error:
        raise CompressnetError(f"cannot read {path}: {error.strerror}") from error
    cut = " ..." if len(data) > _MAX_TEXT else ""
    return data[:_MAX_TEXT].decode("utf-8", "replace") + cut
