"""What `apply` is given: files, folders that are searched, and stdin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from compressnet.errors import CompressnetError, UsageError
from compressnet.source import PLURALS, STDIN, Source, find, left_out

from .. import console

_WOUND_BACK = {"image", "video"}  # their readers go back and forth


class Inputs(NamedTuple):
    """What was found.

    Attributes:
        names: of each source, what its result is called below a folder, before its suffix is chosen.
        failed: what was named and has nothing that can be read.
        alone: whether one file was named, and nothing else.
    """

    names: dict[Source, Path]
    failed: list[tuple[Source, CompressnetError]]
    alone: bool


def gather(given: Sequence[str], kinds: Sequence[str]) -> Inputs:
    """Find the sources; of several inputs one may have none.

    Args:
        given: as they were typed: `./-` is a file, `-` is not.
        kinds: what the task reads, of `source.SUFFIXES`.

    Raises:
        UsageError: stdin is named twice.
        CompressnetError: the only input is missing, or a folder without any.
    """
    if given.count(STDIN) > 1:
        raise UsageError(f"{STDIN} is named twice: what is piped in can be read once")
    names: dict[Source, Path] = {}
    failed: list[tuple[Source, CompressnetError]] = []
    for text in given:
        try:
            names.update(_found(text, kinds))
        except CompressnetError as error:
            if len(given) == 1:
                raise
            failed.append((Source.of(text), error))
    alone = len(given) == 1 and not os.path.isdir(given[0])
    return Inputs(names, failed, alone)


def _found(text: str, kinds: Sequence[str]) -> dict[Source, Path]:
    if text == STDIN:
        return {Source(STDIN, seekable=bool(_WOUND_BACK.intersection(kinds))): Path("stdin")}
    given = Path(text)
    if not os.path.exists(given):
        raise CompressnetError(f"{given}: no such file or folder")
    if not os.path.isdir(given):
        return {Source.of(given): Path(given.name)}
    paths, others = find(given, kinds), left_out(given, kinds)
    if not paths:
        what = " or ".join(PLURALS[kind] for kind in kinds)
        raise CompressnetError(f"{given}: no {what} in this folder{f'; {others}' if others else ''}")
    if others:
        console.note(f"warning: {given}: {others}")
    return {Source.of(path): path.relative_to(given) for path in paths}
