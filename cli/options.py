"""Flags that several commands share: one name, one meaning, everywhere."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

from compressnet.errors import RecipeError, UsageError, short
from compressnet.places import CACHE_VARIABLE, DATA_VARIABLE

from . import console

if TYPE_CHECKING:
    from compressnet.run import Run


def _set_data_root(path: Optional[Path]) -> Optional[Path]:
    if path is not None:
        os.environ[DATA_VARIABLE] = str(path.absolute())
    return path


def look_where(run: Run) -> None:
    """Relative roots of a run's data are looked up where its training found them, unless told otherwise."""
    root = run.facts.get("data_root")
    if root and DATA_VARIABLE not in os.environ and os.path.isdir(root):
        os.environ[DATA_VARIABLE] = root


def _set_cache(path: Optional[Path]) -> Optional[Path]:
    if path is not None:
        os.environ[CACHE_VARIABLE] = str(path.absolute())
    return path


def _set_threads(count: Optional[int]) -> Optional[int]:
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)  # read when torch is imported, here and in children
    return count


Overrides = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key, e.g. --set train.lr=1e-4. Repeatable."),
]
ListOptions = Annotated[bool, typer.Option("--options", help="List the keys that --set takes here.")]
InputSize = Annotated[
    Optional[str],
    typer.Option(
        "--input-size",
        metavar="WxH|N",
        help="Size of images, 1920x1080 or 256, or length of sequences in steps (default: a usual size).",
    ),
]
Inputs = Annotated[
    Optional[list[str]],
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Shape of an input of py:FILE.py:NAME, 1x3x224x224 or 1x35:int64; once for each input.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto (a GPU if there is one), cpu, cuda or cuda:N.")
]
_LARGEST = 1_000_000  # of an image's sides: what is above is a slip of the keyboard
THREADS_HELP = "CPU threads (default: torch's choice); for bench a list (default: 1,all)."
PROCESSES_HELP = (
    "How many processes: bench takes them one after the other (1: this one), data targets at once (default: "
    "as many as there are processors)."
)
Threads = Annotated[Optional[int], typer.Option("--threads", min=1, callback=_set_threads, help=THREADS_HELP)]
DataRoot = Annotated[
    Optional[Path],
    typer.Option(
        "--data-root", callback=_set_data_root,
        help=f"Where relative data roots are looked up (default: ${DATA_VARIABLE}, else the current folder).",
    ),
]  # fmt: skip
CacheDir = Annotated[
    Optional[Path],
    typer.Option(
        "--cache", callback=_set_cache,
        help=f"Where derived data is kept (default: ${CACHE_VARIABLE}, else ~/.cache/compressnet).",
    ),
]  # fmt: skip
OtherData = Annotated[
    Optional[str],
    typer.Option(
        "--data", metavar="NAME:KEY=VALUE,...", help="Other data, e.g. photo_folder:test_root=DIR,root=DIR."
    ),
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder that holds the runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
_OUTPUT = typer.Option("-o", "--output", metavar="OUT", help="Where to write: a file or folder.")
Output = Annotated[Optional[Path], _OUTPUT]
Split = Annotated[
    Optional[str], typer.Option(help="train, val or test (default: the one the data set is scored on).")
]
OutputText = Annotated[Optional[str], _OUTPUT]  # of `apply`, where - is stdout, and ./- a file


T = TypeVar("T")
Shard = tuple[int, int]
ShardText = Annotated[
    Optional[str],
    typer.Option(
        "--shard",
        metavar="K/N",
        help="Process every N-th input, from the K-th on: eight processes share a folder with 1/8 to 8/8.",
    ),
]


def parse_shard(text: Optional[str]) -> Shard:
    """`2/8` as (2, 8); nothing as (1, 1).

    Raises:
        UsageError: not of that form.
    """
    if text is None:
        return 1, 1
    number, slash, count = text.partition("/")
    digits = all(part.isascii() and part.isdecimal() and len(part) <= 6 for part in (number, count))
    if not slash or not digits or not 1 <= int(number) <= int(count):
        raise UsageError(f"--shard {short(text)}: write it as K/N, from 1/N to N/N")
    return int(number), int(count)


def share(inputs: Sequence[T], shard: Shard) -> Sequence[T]:
    """Which of the sorted inputs a shard does."""
    return inputs[shard[0] - 1 :: shard[1]]


def command_line(context: typer.Context) -> str:
    """What was typed, for a record, without the options that later ones have overridden."""
    command = context.command
    replaced: dict[str, str] = {}  # the options of which the last one counts -> their parameters
    valued = set()
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.multiple:
            names = [*parameter.opts, *parameter.secondary_opts]
            replaced |= dict.fromkeys(names, str(parameter.name))
            valued |= set() if parameter.is_flag else set(names)  # type: ignore[attr-defined]
    parts: dict[object, list[str]] = {}
    words = iter(sys.argv[1:])
    for number, word in enumerate(words):
        name, equals, _ = word.partition("=")
        part = [word]
        if name in valued and not equals:
            part += [next(words, "")]
        key = replaced.get(name, number)
        parts.pop(key, None)
        parts[key] = part
        if word == "--":
            break
    return shlex.join(["compressnet", *(word for part in parts.values() for word in part), *words])


def complete_subject(incomplete: str) -> list[str]:
    """Names that a subject can begin with, for the shell."""
    from compressnet.subject import KINDS, names

    known = {name for kind in ("recipe", "model", "layer") for name in names(kind)}
    known |= {f"{kind}:{name}" for kind in KINDS for name in names(kind)}
    return sorted(name for name in known if name.startswith(incomplete))


def parse_settings(overrides: Optional[list[str]]) -> dict[str, object]:
    """`key=value` texts as a dict; values are read as YAML.

    Raises:
        UsageError: not of that form.
    """
    from compressnet.yaml_file import scalar

    settings: dict[str, object] = {}
    for text in overrides or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {short(text)}: write it as key=value")
        try:
            settings[key] = scalar(value)
        except RecipeError as error:
            raise UsageError(f"--set {short(text)}: {error}") from error
    return settings


def parse_size(text: Optional[str]) -> int | tuple[int, int] | None:
    """`1920x1080` as (1080, 1920), height first; `256` as 256.

    Raises:
        UsageError: not of that form, or not between 1 and 1,000,000.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise UsageError(f"--input-size {text}: write it as 1920x1080 or 256")
    if not all(len(part) <= 7 and 0 < int(part) <= _LARGEST for part in parts):
        raise UsageError(f"--input-size {text}: sizes are between 1 and {_LARGEST:,}")
    return int(text) if len(parts) == 1 else (int(parts[1]), int(parts[0]))


def note_assumed(name: str, sizes: Mapping[str, object]) -> None:
    """Say which sizes of a recipe's model are only its defaults, because its data is not there."""
    if sizes:
        text = ", ".join(f"{key}={value}" for key, value in sizes.items())
        console.note(f"note: {name}: its data is not there; the model has the defaults {text}")


def show_settings(what: str, target: Callable[..., object], json: bool) -> None:
    """List the keys that `--set` takes, with their types, ranges and defaults.

    Args:
        what: they are, for the title.
        target: takes them.
    """
    from compressnet.signature import json_schema

    known, _ = json_schema(target)
    if json:
        console.print_json(known)
    else:
        print_keys(f"{what} of this subject (--set KEY=VALUE)", known)


def keys_of_operator(name: str) -> str:
    """The title of a table of these."""
    return f"keys (operator:{name}:KEY=VALUE,...)"


def print_keys(title: str, known: Mapping[str, dict[str, Any]]) -> None:
    """A table of keys.

    Args:
        known: the JSON schema of each; where one has `about`, there is a column for what they mean.
    """
    about = ["about"] if any("about" in entry for entry in known.values()) else []
    rows = [
        [key, *(entry.get(column) for column in about), entry.get("type"), _range(entry),
         written(entry.get("default"))]
        for key, entry in ((key, _plain(entry)) for key, entry in known.items())
    ]  # fmt: skip
    columns = ["key", *about, "type", "range", "default"]
    console.print_table(title, columns, rows, numeric=len(columns) - 1)


def written(value: object) -> str | None:
    """A default as it is typed, None if there is none: a figure would be rounded, 1e-05 to 0.0000."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Of `an integer or nothing` the integer; of several kinds all types and ranges."""
    some = [entry for entry in schema.get("anyOf", ()) if entry.get("type") != "null"]
    if len(some) < 2:
        return {**some[0], **schema} if some else schema
    ranges = [text for text in map(_range, some) if text]
    types = dict.fromkeys(str(entry.get("type", "-")) for entry in some)
    return {**schema, "type": " or ".join(types), "enum": [" or ".join(ranges)]}


def _range(schema: dict[str, Any]) -> str:
    """Of a JSON schema: what a value may be."""
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "prefixItems" in schema:  # of so many values, of one kind
        return f"each {_range(schema['prefixItems'][0])}"
    if "items" in schema and (each := _range(schema["items"])):
        return f"each {each}"
    if "examples" in schema:
        return f"as {written(schema['examples'][0])}"
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return " ".join(f"{word} {_number(schema[key])}" for key, word in words.items() if key in schema)


def _number(value: float) -> str:
    """1000000, not 1000000.0; whole numbers with all their digits."""
    return str(value) if isinstance(value, int) else f"{value:.15g}"
