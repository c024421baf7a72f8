"""JSON that others may have written: bounded, strict, and checked against one form; every fault is one line.

    FILE --read--> plain values --checked against a form (pydantic, strict)--> values that code may rely on

Refused are: more than 16 MB or 32 levels, numbers that are not finite or have more than 64 bits, and a key
that is given twice.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from compressnet.errors import CompressnetError, named, short
from compressnet.regular_file import open_regular
from compressnet.signature import describe

T = TypeVar("T")
MAX_BYTES = 16 << 20
MAX_DEPTH = 32
_SHOWN = 120  # characters of a reason


class Form(BaseModel):
    """What a JSON object must look like. Keys that a form does not name are kept and mean nothing."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


def read(path: Path, limit: int = MAX_BYTES) -> Any:
    """The values of a JSON file.

    Raises:
        CompressnetError: missing, too large, or not JSON in the sense above; the message names the file.
    """
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise CompressnetError(f"{path}: cannot be read: {reason}") from error
    return parse(data, str(path), limit)


def parse(text: str | bytes, source: str, limit: int = MAX_BYTES) -> Any:
    """The values of a JSON text.

    Args:
        source: what to call it in messages.

    Raises:
        CompressnetError: too large, or not JSON in the sense above.
    """
    if len(text) > limit:
        raise CompressnetError(f"{source}: more than {limit / 1e6:.0f} MB of JSON: not a file of compressnet")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_constant,
        )
    except RecursionError:
        raise CompressnetError(_too_deep(source)) from None
    except ValueError as error:  # of JSON's syntax, of UTF-8, and of the hooks
        raise CompressnetError(f"{source}: damaged, not JSON: {_first_line(error)}") from None
    if _is_deep(value):
        raise CompressnetError(_too_deep(source))
    return value


def check(form: TypeAdapter[T] | type[T], value: Any, source: str) -> T:
    """`value` as a form has it.

    Raises:
        CompressnetError: it does not fit; the message names the source and the first field that is wrong.
    """
    try:
        if isinstance(form, type) and dataclasses.is_dataclass(form) and isinstance(value, dict):
            return form(**value)  # pydantic's; in strict mode a TypeAdapter would ask for an instance
        adapter = form if isinstance(form, TypeAdapter) else TypeAdapter(form)
        return adapter.validate_python(value)
    except ValidationError as error:
        first = dict(error.errors(include_url=False)[0])
        place = ".".join(named(part) for part in error.errors()[0]["loc"])
        if first["type"] == "missing":
            raise CompressnetError(f"{source}: damaged: '{place}' is missing") from None
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            raise CompressnetError(f"{source}: damaged: there is no field '{place}'") from None
        which = f"'{place}' " if place else ""
        raise CompressnetError(f"{source}: damaged: {which}{describe(first)}") from None


def read_form(form: TypeAdapter[T] | type[T], path: Path) -> T:
    """`read` and `check`."""
    return check(form, read(path), str(path))


def _first_line(error: ValueError) -> str:
    text = " ".join(str(error).split())
    return short(text, _SHOWN)


def _too_deep(source: str) -> str:
    return f"{source}: damaged: more than {MAX_DEPTH} levels of nesting"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"the key '{named(twice)}' is given twice")
    return found


def _whole(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError(f"the number {named(text)} has more than 64 bits")
    return number


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {named(text)} is not finite")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"the number {text} is not finite")


def _is_deep(value: Any) -> bool:
    """Whether containers lie in each other deeper than allowed; level by level, which needs no stack."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [each for each in item.values() if isinstance(each, dict | list)]
            elif isinstance(item, list):
                inner += [each for each in item if isinstance(each, dict | list)]
        if not inner:
            return False
        level = inner
    return True
