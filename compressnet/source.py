"""What `apply` is given: files by the kinds that tasks read, and what is piped in.

photo.jpg -> Source     its file
-         -> Source     stdin: of pictures and clips a copy that can be wound back, of sound and text itself
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

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


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        name: for messages; the file as it was named, or `-`.
        path: the file; None of what is piped in, or given as words.
        seekable: whether `open` has to return what can be wound back.
    """

    name: str
    path: Path | None = None
    seekable: bool = True

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
        if self.path is not None:
            yield self.path
            return
        with tempfile.NamedTemporaryFile(prefix="compressnet-") as copy:
            self._fill(copy)
            try:
                yield Path(copy.name)
            except CompressnetError as error:
                error.args = tuple(text.replace(copy.name, self.name) for text in error.problems)
                raise

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

    Beside pictures lie files of any kind: of these only pictures that are not read are told.

    Raises:
        CompressnetError: no such folder.
    """
    suffixes = {suffix for kind in kinds for suffix in SUFFIXES[kind]}
    pictures = tuple(kinds) == ("image",)
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
