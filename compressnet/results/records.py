"""Records of what was measured: one JSON file each, with the command that makes it and no place of a machine.

eval --record NAME, bench --record NAME -> results/NAME.json -> RESULTS.md (`results.py`)
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compressnet import files
from compressnet.errors import UsageError
from compressnet.places import CACHE_VARIABLE, DATA_VARIABLE, cache_dir, data_root

PUBLISHED = "published.json"


def record_path(folder: Path, name: str, *, overwrite: bool) -> Path:
    """Where the record `name` goes.

    Raises:
        UsageError: not a plain name.
        CompressnetError: it exists and is not to be overwritten.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or f"{name}.json" == PUBLISHED:
        raise UsageError(f"--record {name}: use lower-case letters, digits, '-' and '_'")
    path = folder / f"{name}.json"
    files.refuse_to_overwrite(path, overwrite)
    return path


def store(path: Path, record: Mapping[str, Any], *, overwrite: bool = True) -> None:
    """Write a record; its folder appears where it is missing.

    Raises:
        CompressnetError: it cannot be written, or is there and not to be overwritten.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(path.parent, error) from error
    files.write_json(path, record, replace=overwrite)


def symbolic(command: str) -> str:
    """A command line with this machine's roots replaced by the variables that name them."""
    words = shlex.split(command)
    for flag in ("--data-root", "--cache"):
        words = [word for word in words if not word.startswith(f"{flag}=")]
        while flag in words:
            place = words.index(flag)
            del words[place : place + 2]
    return _symbolic_text(shlex.join(words))


def without_places(value: Any) -> Any:
    """`value`, as JSON has it, with this machine's roots replaced in every text as in `symbolic`."""
    if isinstance(value, Mapping):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    return _symbolic_text(value) if isinstance(value, str) else value


def _symbolic_text(text: str) -> str:
    for variable, folder in ((DATA_VARIABLE, data_root()), (CACHE_VARIABLE, cache_dir())):
        if str(folder) != ".":
            text = _hidden(text, folder, f"${variable}")
    return _hidden(_hidden(text, Path.cwd(), ""), Path.home(), "~")


def _hidden(text: str, folder: Path, symbol: str) -> str:
    """`text` with a folder, however it was typed, replaced by its symbol (none: paths become relative)."""
    forms = {os.path.normpath(folder), os.path.abspath(folder), os.path.realpath(folder)}
    for path in sorted(forms, key=len, reverse=True):
        if path.strip("/."):
            whole = rf"(?<![\w./~-]){re.escape(path)}"
            text = re.sub(rf"{whole}/(?=\w)", f"{symbol}/" if symbol else "", text)
            text = re.sub(rf"{whole}(?![\w.-])", symbol or ".", text)
    return text


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder, by name, with None or nothing for what an older one lacks.

    Raises:
        CompressnetError: one is damaged.
    """
    from compressnet import json_file  # forms take time to make, and `--help` comes past here
    from compressnet.json_file import Form
    from compressnet.results.forms import CompressionRecord, Evaluation, SpeedRecord

    records = []
    for path in sorted(folder.glob("*.json")):
        if path.name == PUBLISHED:
            continue
        record = json_file.read(path)
        kind = record.get("kind") if isinstance(record, dict) else None
        form: type[Form] = Evaluation if kind is None else SpeedRecord
        form = CompressionRecord if kind == "compression" else form
        records.append(json_file.check(form, record, str(path)).model_dump(by_alias=True))
    return records


def read_published(folder: Path) -> list[dict[str, Any]]:
    """Others' figures: `{operator, psnr, ssim, ...}` or `{recipe, figure, ...}`, with `what` and `source`."""
    from compressnet import json_file
    from compressnet.results.forms import Published

    path = folder / PUBLISHED
    if not path.exists():
        return []
    entries: list[dict[str, Any]] = json_file.read(path)
    json_file.check(list[Published], entries, str(path))
    return entries


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
