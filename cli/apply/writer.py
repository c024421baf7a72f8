"""The one writer of what `apply` makes: owns names, folders and the refusal to overwrite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from compressnet import files
from compressnet.errors import CompressnetError, UsageError

from .. import console, options


class Writer:
    """Decides, before anything is computed, where the result of every input goes.

        photo.jpg        -o out.png    out.png
        photo.jpg ...    -o OUT        OUT/photo.jpg
        folder           -o OUT        OUT/<below folder>

    Args:
        inputs: files and folders.
        output: a file for one file, else a folder.
        force: overwrite what exists (never an input).
        skip_existing: leave what exists out of `sources`; it is listed in `skipped`.
        shard: (k, n): of the sorted inputs the k-th, the k + n-th, ...; others do the others.

    Attributes:
        sources: what is to be computed.
        skipped: results that exist and are left.
        failed: inputs that can have no result, known before: missing, or a folder has the result's name.

    Raises:
        UsageError: two results would have one name; `output` cannot hold them.
        CompressnetError: an output exists; the only input is missing.
    """

    def __init__(
        self,
        inputs: list[Path],
        output: Path,
        force: bool,
        skip_existing: bool = False,
        shard: options.Shard = (1, 1),
    ) -> None:
        from compressnet.data.images import RASTER_SUFFIXES

        self.output, self.force = output, force
        self.is_stream = files.is_stream(output)
        one = len(inputs) == 1 and not os.path.isdir(inputs[0])
        single = one and bool(output.suffix) and not os.path.isdir(output) and not self.is_stream
        named = output.suffix.lower() in RASTER_SUFFIXES and not os.path.isdir(output)
        if named and not (single or self.is_stream):
            raise UsageError(f"{output}: several inputs, or a folder, need a folder: -o {output.stem}")
        if single and output.suffix.lower() not in RASTER_SUFFIXES:
            raise UsageError(f"{output}: cannot write this format; use one of {' '.join(RASTER_SUFFIXES)}")
        self.failed: list[tuple[Path, CompressnetError]] = []
        pairs = [pair for given in inputs for pair in self._found(given, alone=len(inputs) == 1)]
        self._targets = {source: output / target for source, target in _writable(pairs).items()}
        if single:
            self._targets = dict.fromkeys(self._targets, output)
        mine = set(options.share(sorted(self._targets), shard))
        there = [
            target for source, target in self._targets.items() if source in mine and os.path.exists(target)
        ]
        self.skipped = there if skip_existing and not self.is_stream else []
        if not self.is_stream:
            self._refuse_collisions(mine, alone=one)
        done = {*self.skipped, *(self._targets.get(source) for source, _ in self.failed)}
        self.sources = [s for s, target in self._targets.items() if s in mine and target not in done]

    def write(self, source: Path, artefact: Any) -> tuple[Path, list[str]]:
        """Write the artefact of `source`; returns where, and what the format could not hold.

        Raises:
            CompressnetError: it cannot be written; `files.WriteError` says whether others can.
        """
        from compressnet.data.images import write_image

        target = self._targets[source]
        if self.is_stream:
            return self.output, write_image(artefact, self.output, suffix=target.suffix)
        make_folder(target.parent)
        try:
            return target, write_image(artefact, target)
        except OSError as error:
            raise files.write_error(target, error) from error

    def _found(self, given: Path, alone: bool) -> list[tuple[Path, Path]]:
        """The images of an input, with their names below the output; of several inputs one may have none."""
        try:
            return _below(given)
        except CompressnetError as error:
            if alone:
                raise
            self.failed.append((given, error))
            return []

    def _refuse_collisions(self, mine: set[Path], alone: bool) -> None:
        taken: dict[str, Path] = {}
        inputs = {os.path.realpath(source) for source in self._targets}
        existing: list[CompressnetError] = []
        for source, target in self._targets.items():
            place = os.path.realpath(target)
            if place in taken:
                raise UsageError(
                    f"{taken[place]} and {source} would both be written to {target}: apply them apart"
                )
            taken[place] = source
            if place in inputs:
                raise UsageError(f"{target} is an input: choose another -o")
            if source not in mine:
                continue
            if os.path.isdir(target):
                problem = UsageError(f"{target} is a folder: name a file in it")
                if alone:
                    raise problem
                self.failed.append((source, CompressnetError(f"cannot write {target}: it is a folder")))
            elif target not in self.skipped:
                try:
                    files.refuse_to_overwrite(target, self.force)
                except CompressnetError as error:
                    existing.append(error)
            self._refuse_linked_folders(target)
        if existing:
            more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
            other = ", or --skip-existing to do the rest" if len(self._targets) > 1 else ""
            raise CompressnetError(f"{existing[0]}{more}{other}")

    def _refuse_linked_folders(self, target: Path) -> None:
        """A link below the output may lead to where nobody meant to write."""
        if self.force or target == self.output:
            return
        for folder in target.parents:
            if folder == self.output:
                return
            inside = os.path.realpath(folder).startswith(os.path.realpath(self.output) + os.sep)
            if os.path.islink(folder) and not (inside and os.path.isdir(folder)):
                raise CompressnetError(
                    f"{folder} is a link to {os.readlink(folder)}, outside of {self.output}: "
                    "add --force to write there"
                )


def _below(given: Path) -> list[tuple[Path, Path]]:
    """The images that an input means, and their names below the output."""
    from compressnet.data.images import find_images, unread_pictures

    if not os.path.exists(given):
        raise CompressnetError(f"{given}: no such file or folder")
    if not os.path.isdir(given):
        return [(given, Path(given.name))]
    found, left_out = find_images(given), unread_pictures(given)
    if not found:
        also = f"; {left_out}" if left_out else ""
        raise CompressnetError(f"{given}: no images in this folder{also}")
    if left_out:
        console.note(f"warning: {given}: {left_out}")
    return [(path, path.relative_to(given)) for path in found]


def make_folder(folder: Path) -> None:
    """Make a folder to write into, with its parents.

    Raises:
        WriteError: the disk is full or read-only, or a file stands in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        way = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
        raise files.WriteError(f"cannot write {folder}: {way} is not a folder", error) from error
    except OSError as error:
        raise files.write_error(folder, error) from error


def _writable(pairs: list[tuple[Path, Path]]) -> dict[Path, Path]:
    """The names of results: those of the inputs, as PNG where we read a format but do not write it (raw).

    `cat.gif` beside `cat.png` becomes `cat.gif.png`.
    """
    from compressnet.data.images import RASTER_SUFFIXES

    names, taken = dict(pairs), {name for _, name in pairs}
    for source, name in pairs:
        if name.suffix.lower() not in RASTER_SUFFIXES:
            plain = name.with_suffix(".png")
            names[source] = plain if plain not in taken else name.with_name(f"{name.name}.png")
            taken.add(names[source])
    return names
