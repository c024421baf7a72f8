"""What `apply` is given: files by the kinds that tasks read, and what is piped in.

photo.jpg -> Source     its file
-         -> Source     stdin: of pictures and clips a copy that can be wound back, of sound and text itself
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

from compressnet.errors import CompressnetError
from compressnet.regular_file import open_regular

STDIN = "-"
RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")  # what can be written
RAW_SUFFIXES = (".dng", ".nef")
SUFFIXES = {
    "image": (*RASTER_SUFFIXES, ".jfif", ".jpe", ".gif", ".avif", ".jp2", ".tga", *RAW_SUFFIXES),
    "video": (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".y4m"),
    "audio": (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au"),
    "text": (".txt", ".md"),
    "rows": (".csv", ".tsv", ".txt"),
}
"""What is taken from a folder, by kind; a file that is named may have any suffix."""
PLURALS = {
    "image": "images",
    "video": "clips",
    "audio": "sound files",
    "text": "text files",
    "rows": "files of rows",
}
# Not read: they are counted, not passed over without a word.
_OTHER_PICTURES = """
.heic .heif .hif .jxl .psd .psb .xcf .kra .exr .hdr .dds .svg .svgz .eps .ai .ico .j2k .jpx .jpf .jxr .wdp
.pcx .ppm .pgm .pbm .pnm .pfm .qoi .sgi .fits .fit .emf .wmf .apng .mpo .bpg .flif .icns .cur
.cr2 .cr3 .crw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .x3f .3fr .iiq .erf .mrw .nrw .raw .rwl .kdc .dcr
.mef .mos .gpr .fff
"""
OTHER_PICTURES = tuple(_OTHER_PICTURES.split())
_LOOKED_AT = {"image", "video"}
# How films and sound begin. Photographs are named by their own reader.
_FILM = re.compile(
    rb"\x1a\x45\xdf\xa3|RIFF....(AVI |WAVE)|OggS|ID3|fLaC|FLV\x01|\0\0\x01[\xb3\xba]|YUV4MPEG2 "
    rb"|....ftyp(?!avif|avis|heic|heix|heim|mif1|msf1|miaf)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        name: for messages; the file as it was named, or `-`.
        path: the file; None of what is piped in, or given as words.
        seekable: whether `open` has to return what can be wound back.
        copy: of what was piped in, which is gone when this source is (see `held`).
    """

    name: str
    path: Path | None = None
    seekable: bool = True
    copy: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, path: Path | str) -> Source:
        """A file."""
        return cls(str(path), Path(path))

    def __str__(self) -> str:
        return self.name

    def open(self) -> BinaryIO:
        """The bytes, to be read once; close it.

        Raises:
            OSError: missing, unreadable, a pipe or device that was named as a file.
            CompressnetError: nothing is piped in.
        """
        if self.path is not None:
            return open_regular(self.path)
        if not self.seekable:
            return _stdin()
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        self._fill(copy)
        copy.seek(0)
        return copy

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The file, or a temporary one that holds what is piped in, for readers that take names alone.

        Raises:
            CompressnetError: nothing is piped in; of what is raised within, messages name the source.
        """
        held = self.held()
        assert held.path is not None
        try:
            yield held.path
        except CompressnetError as error:
            if held.copy is not None:
                error.args = tuple(text.replace(str(held.path), self.name) for text in error.problems)
            raise
        finally:
            if held is not self:
                held.copy.close()

    def held(self) -> Source:
        """This source as a file, which can be read more than once: what is piped in is copied.

        Raises:
            CompressnetError: nothing is piped in.
        """
        if self.path is not None:
            return self
        copy = tempfile.NamedTemporaryFile(prefix="compressnet-")  # noqa: SIM115 - lives as long as the source
        try:
            self._fill(copy)
        except CompressnetError:
            copy.close()
            raise
        return Source(self.name, Path(copy.name), self.seekable, copy)

    def kind(self, kinds: Sequence[str]) -> str:
        """Which of `kinds` it is: by its suffix, or by how it begins; the first where neither tells."""
        if len(kinds) == 1:
            return kinds[0]
        suffix = Path(self.name).suffix.lower()
        for kind in kinds:
            if suffix in SUFFIXES[kind]:
                return kind
        return "video" if "video" in kinds and _FILM.match(self._beginning()) else kinds[0]

    def _beginning(self) -> bytes:
        if self.path is None:
            return b""
        try:
            with open_regular(self.path) as file:
                return file.read(16)
        except OSError:
            return b""

    def _fill(self, copy: IO[bytes]) -> None:
        try:
            shutil.copyfileobj(_stdin(), copy)
            copy.flush()
        except OSError as error:
            raise CompressnetError(
                f"{self.name}: what is piped in cannot be kept in {tempfile.gettempdir()} (TMPDIR names "
                f"another place): {error.strerror}"
            ) from error
        if not copy.tell():
            raise CompressnetError(f"{self.name}: nothing was piped in")


def find(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Every file of these kinds below a folder, sorted; hidden ones (macOS writes `._a.jpg`) are left out.

    Raises:
        CompressnetError: no such folder.
    """
    suffixes = {suffix for kind in kinds for suffix in SUFFIXES[kind]}
    found = [path for path in _files(folder) if path.suffix.lower() in suffixes]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def left_out(folder: Path, kinds: Sequence[str]) -> str:
    """What else is below a folder, in words (`3 files of other kinds left out: 2 .pdf, 1 .doc`), or nothing.

    Beside pictures and clips lie files of any kind: of these only pictures that are not read are told.

    Raises:
        CompressnetError: no such folder.
    """
    suffixes = {suffix for kind in kinds for suffix in SUFFIXES[kind]}
    pictures = "image" in kinds and _LOOKED_AT.issuperset(kinds)
    counts = Counter(
        suffix or "without a suffix"
        for path in _files(folder)
        if (suffix := path.suffix.lower()) not in suffixes and (not pictures or suffix in OTHER_PICTURES)
    )
    if not counts:
        return ""
    listed = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(10))
    total = sum(counts.values())
    what = f"{'picture' if pictures else 'file'}{'s' if total > 1 else ''}"
    advice = " (convert them to PNG or TIFF)" if pictures else ""
    return f"{total} {what} of other kinds left out: {listed}{advice}"


def _stdin() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise CompressnetError(f"{STDIN}: nothing is piped in")
    if sys.stdin.isatty():
        raise CompressnetError(f"{STDIN}: nothing is piped in: stdin is a terminal")
    return sys.stdin.buffer


def _files(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden, linked folders included."""
    if not folder.is_dir():
        raise CompressnetError(f"{folder}: {'a file, not a folder' if folder.exists() else 'no such folder'}")
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))
