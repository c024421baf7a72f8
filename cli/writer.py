"""The one writer of what `apply` makes: owns names, folders and the refusal to overwrite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressnet import files
from compressnet.errors import CompressnetError, UsageError

from . import console


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

    Raises:
        UsageError: two results would have one name; `output` cannot hold them.
        CompressnetError: an input is missing, an output exists.
    """

    def __init__(self, inputs: list[Path], output: Path, force: bool, skip_existing: bool = False) -> None:
        from compressnet.data.images import RASTER_SUFFIXES, find_images, unread_pictures

        pairs: list[tuple[Path, Path]] = []
        single = len(inputs) == 1 and not inputs[0].is_dir() and output.suffix and not output.is_dir()
        if single and output.suffix.lower() not in RASTER_SUFFIXES:
            raise UsageError(f"{output}: cannot write this format; use one of {' '.join(RASTER_SUFFIXES)}")
        for given in inputs:
            if not given.exists():
                raise CompressnetError(f"{given}: no such file or folder")
            if given.is_dir():
                found, left_out = find_images(given), unread_pictures(given)
                if not found:
                    also = f"; {left_out}" if left_out else ""
                    raise CompressnetError(f"{given}: no images in this folder{also}")
                if left_out:
                    console.note(f"warning: {given}: {left_out}")
                pairs += [(path, output / path.relative_to(given)) for path in found]
            else:
                pairs.append((given, output if single else output / given.name))
        self._targets = {source: target if single else _writable(target) for source, target in pairs}
        self.skipped = [target for target in self._targets.values() if skip_existing and target.exists()]
        self._refuse_collisions(force or skip_existing)
        done = set(self.skipped)
        self.sources = [source for source, target in self._targets.items() if target not in done]

    def write(self, source: Path, artefact: Any) -> tuple[Path, list[str]]:
        """Write the artefact of `source`; returns where, and what the format could not hold."""
        from compressnet.data.images import write_image

        target = self._targets[source]
        make_folder(target.parent)
        return target, write_image(artefact, target)

    def _refuse_collisions(self, force: bool) -> None:
        taken: dict[Path, Path] = {}
        inputs = {source.resolve() for source in self._targets}
        for source, target in self._targets.items():
            if target in taken:
                raise UsageError(
                    f"{taken[target]} and {source} would both be written to {target}: apply them apart"
                )
            taken[target] = source
            if target.resolve() in inputs:
                raise UsageError(f"{target} is an input: choose another -o")
            if target.is_dir():
                raise UsageError(f"{target} is a folder: name a file in it")
            if target.exists() and not force:
                raise CompressnetError(f"{target} exists: add --force to overwrite it")


def make_folder(folder: Path) -> None:
    """Make a folder to write into, with its parents.

    Raises:
        CompressnetError: the disk is full or read-only, or a file stands in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(folder, error) from error


def _writable(target: Path) -> Path:
    """The same name, as PNG where we read a format but do not write it (raw)."""
    from compressnet.data.images import RASTER_SUFFIXES

    return target if target.suffix.lower() in RASTER_SUFFIXES else target.with_suffix(".png")
