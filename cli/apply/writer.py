"""Where what `apply` makes goes: names, folders and the refusal to overwrite, decided before it is made.

photo.jpg        -o out.png    Apart      out.png
photo.jpg ...    -o OUT        Apart      OUT/photo.jpg
folder           -o OUT        Apart      OUT/<below folder>
a.txt ...                      Printed    texts and rows of figures
a.txt ...        -o out.tsv    Together   all in one file; `-o -`: stdout
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from compressnet import files
from compressnet.errors import CompressnetError, CutShort, UsageError
from compressnet.source import STDIN, Source

from .. import options
from . import report
from .inputs import Inputs

if TYPE_CHECKING:
    from compressnet.tasks.artefacts import Artefact

STDOUT = Path("/dev/stdout")


class Rules(NamedTuple):
    """What may be written.

    Attributes:
        force: over what exists (never over an input).
        skip_existing: not over what exists; it is left, and its source not computed.
        shard: (k, n): of the sorted sources the k-th, the k + n-th, ...; others do the others.
    """

    force: bool = False
    skip_existing: bool = False
    shard: options.Shard = (1, 1)


class Makes(NamedTuple):
    """What comes of inputs.

    Attributes:
        usual: where nothing is known of an input.
        each: by source.
    """

    usual: type[Artefact]
    each: Mapping[Source, type[Artefact]]


class Writer(Protocol):
    """Takes results.

    Attributes:
        sources: what is to be computed.
        skipped: results that exist and are left.
        failed: inputs that have no result, with the reason.
    """

    sources: list[Source]
    skipped: list[Path]
    failed: list[tuple[Source, CompressnetError]]

    def take(self, source: Source, artefact: Artefact) -> dict[str, Any] | None:
        """Keep a result, on the disk or to print it: what `--json` tells of where it is.

        Of one that ends before it should, `cut_short` is the reason. None: its file has appeared meanwhile,
        and is skipped.

        Raises:
            CompressnetError: it cannot be written; `files.WriteError` says whether others can.
        """

    def finish(self) -> list[tuple[Source, Artefact]]:
        """Write what waited for the last one; what is left to print."""


def make_writer(inputs: Inputs, output: Path | None, makes: Makes, rules: Rules) -> Writer:
    """The writer that `-o` means.

    Raises:
        UsageError: two results would have one name; `output` cannot hold them.
        CompressnetError: an output exists.
    """
    if output is None:
        return Printed(inputs, rules)
    stream, folder = files.is_stream(output), os.path.isdir(output)
    if stream and files.is_stdout(output) and os.isatty(1):
        if makes.usual.printed:  # as a terminal may have it
            return Printed(inputs, rules)
        raise UsageError(f"-o {output}: no picture is shown on a terminal: pipe it on, or name a file")
    if stream or folder or not output.suffix:
        return (
            Together(inputs, output, rules)
            if stream and makes.usual.printed
            else Apart(inputs, output, makes, rules)
        )
    if not inputs.alone and not makes.usual.printed:
        raise UsageError(f"{output}: several inputs need an output folder: -o {output.stem}")
    suffixes = next(iter(makes.each.values()), makes.usual).suffixes if inputs.alone else makes.usual.suffixes
    if output.suffix.lower() not in suffixes:
        raise UsageError(f"{output}: cannot write this format; use one of {' '.join(suffixes)}")
    if makes.usual.printed:
        return Together(inputs, output, rules)
    return Apart(inputs, output, makes, rules)


class Printed:
    """Everything is shown when all is done; what is heard in a stream at once, where `at_once` is set."""

    at_once = False

    def __init__(self, inputs: Inputs, rules: Rules) -> None:
        if rules.skip_existing:
            raise UsageError("--skip-existing: it is for results in files: name a folder with -o")
        mine = _share(inputs, rules.shard)
        self.sources = [source for source in inputs.names if source in mine]
        self.skipped: list[Path] = []
        self.failed = inputs.failed
        self._kept: list[tuple[Source, Artefact]] = []

    def take(self, source: Source, artefact: Artefact) -> dict[str, Any]:
        if self.at_once and artefact.live and source.name == STDIN:
            report.show_live(artefact)
        else:
            self._kept.append((source, artefact))
        return {}

    def finish(self) -> list[tuple[Source, Artefact]]:
        return self._kept


class Together:
    """All results in one file, which is there when all is done."""

    def __init__(self, inputs: Inputs, output: Path, rules: Rules) -> None:
        if rules.shard != (1, 1):
            raise UsageError(f"--shard: {output} is one file for all inputs: name a folder")
        self.output, self.rules = output, rules
        self.sources = list(inputs.names)
        self.skipped: list[Path] = []
        self.failed = inputs.failed
        self._kept: list[tuple[Source, Artefact]] = []
        paths = [source.path for source in inputs.names if source.path is not None]
        if any(os.path.realpath(output) == os.path.realpath(path) for path in paths):
            raise UsageError(f"{output} is an input: choose another -o")
        if rules.skip_existing and os.path.exists(output) and not files.is_stream(output):
            self.sources, self.skipped = [], [output]
        else:
            files.refuse_to_overwrite(output, rules.force)

    def take(self, source: Source, artefact: Artefact) -> dict[str, Any]:
        self._kept.append((source, artefact))
        return {"output": str(self.output)}

    def finish(self) -> list[tuple[Source, Artefact]]:
        from compressnet.tasks.artefacts import write_together

        if not self._kept:
            return []
        try:
            make_folder(self.output.parent)
            with files.whole_file(self.output, replace=self.rules.force) as temporary:
                write_together(self._kept, temporary)
        except CompressnetError as error:
            if isinstance(error, files.Appeared) and self.rules.skip_existing:
                self.skipped.append(self.output)
                return []
            self.failed += [(source, error) for source, _ in self._kept]
            # On the screen, then: what was computed is not lost.
            return [] if files.is_stdout(self.output) else self._kept
        return []


class Apart:
    """A file of its own for each result."""

    def __init__(self, inputs: Inputs, output: Path, makes: Makes, rules: Rules) -> None:
        self.output, self.rules = output, rules
        self.is_stream = files.is_stream(output)
        self.failed = inputs.failed
        single = inputs.alone and bool(output.suffix) and not os.path.isdir(output) and not self.is_stream
        self._targets = {
            source: output if single else output / name
            for source, name in _with_suffixes(inputs.names, makes).items()
        }
        if output == STDOUT and len(self._targets) > 1:
            raise UsageError(f"-o -: it takes one result, and there are {len(self._targets)} inputs")
        mine = _share(inputs, rules.shard)
        there = [t for source, t in self._targets.items() if source in mine and os.path.exists(t)]
        self.skipped = there if rules.skip_existing and not self.is_stream else []
        if not self.is_stream:
            self._refuse_collisions(mine, alone=inputs.alone)
        done = {*self.skipped, *(self._targets.get(source) for source, _ in self.failed)}
        self.sources = [s for s, target in self._targets.items() if s in mine and target not in done]

    def take(self, source: Source, artefact: Artefact) -> dict[str, Any] | None:
        target = self._targets[source]
        if self.is_stream:
            fits = self.output != STDOUT and target.suffix.lower() in artefact.suffixes
            suffix = target.suffix if fits else artefact.suffixes[0]
            with files.whole_file(self.output, suffix) as temporary:
                told = _write(artefact, temporary)
            return {"output": str(self.output), **told}
        if target.suffix.lower() not in artefact.suffixes:  # of what was piped in, or has no suffix
            raise UsageError(
                f"{target}: cannot write what {source} holds in this format; name a file with one of "
                f"{' '.join(artefact.suffixes)}"
            )
        make_folder(target.parent)
        try:
            with files.whole_file(target, replace=self.rules.force) as temporary:
                told = _write(artefact, temporary)
        except files.Appeared:
            if not self.rules.skip_existing:
                raise
            self.skipped.append(target)
            return None
        return {"output": str(target), **told}

    def finish(self) -> list[tuple[Source, Artefact]]:
        return []

    def _refuse_collisions(self, mine: set[Source], alone: bool) -> None:
        taken: dict[str, Source] = {}
        inputs = {os.path.realpath(source.path) for source in self._targets if source.path is not None}
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
                if alone:
                    raise UsageError(f"{target} is a folder: name a file in it")
                self.failed.append((source, CompressnetError(f"cannot write {target}: it is a folder")))
            elif target not in self.skipped:
                try:
                    files.refuse_to_overwrite(target, self.rules.force)
                except CompressnetError as error:
                    existing.append(error)
            self._refuse_linked_folders(target)
        if existing:
            more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
            other = ", or --skip-existing to do the rest" if len(self._targets) > 1 else ""
            raise CompressnetError(f"{existing[0]}{more}{other}")

    def _refuse_linked_folders(self, target: Path) -> None:
        """A link below the output may lead to where nobody meant to write."""
        if self.rules.force or target == self.output:
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


def _share(inputs: Inputs, shard: options.Shard) -> set[Source]:
    return set(options.share(sorted(inputs.names, key=lambda source: Path(source.name)), shard))


def _write(artefact: Artefact, path: Path) -> dict[str, Any]:
    """What a format has lost, and the reason why the file ends before it should, if it does."""
    try:
        return {"lost": artefact.write(path)}
    except CutShort as error:
        return {"lost": [], "cut_short": error}


def _with_suffixes(names: dict[Source, Path], makes: Makes) -> dict[Source, Path]:
    """The names of results: those of the inputs, in the first format where theirs is none (raw photographs).

    `cat.gif` beside `cat.png` becomes `cat.gif.png`.
    """
    chosen, taken = dict(names), set(names.values())
    for source, name in names.items():
        suffixes = makes.each.get(source, makes.usual).suffixes
        if name.suffix.lower() not in suffixes:
            plain = name.with_suffix(suffixes[0])
            chosen[source] = plain if plain not in taken else name.with_name(f"{name.name}{suffixes[0]}")
            taken.add(chosen[source])
    return chosen
