"""Small damages that campaigns share: of bytes, and of values as JSON has them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]

EVIL: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 10**6, 10**9, 2**31, 2**63, 10**19, -(10**19), 10**400, 0.5, -0.0,
    1e308, float("nan"), float("inf"),
    "", " ", "x", "../../../etc/passwd", "/etc/passwd", "rof", "l0:lambda=1e9", "operator:l0", "lstm",
    "lstm:hidden_size=9", "identity",
    "a" * 100_000, "\x1b[31mred", "[red]x[/]", "[/]", "line\nbreak", "\0", "\ud800", "é" * 50, "__class__",
    "__init__", "..", ".", "&a [*a]", "nan", "-inf",
    [], [[]], [1], [1, 2, 3], ["x"], [None], [10**9] * 3, list(range(1000)), {}, {"x": 1},
    {"layer": "identity"}, {"": {}}, {"__class__": "x"},
]  # fmt: skip
"""Values that no field of a file of ours has, and some that it might."""

BAD_JSON = ["", "x", "[]", "{}", "null", "1", '"x"', "{", '{"a": 1, "a": 1}', '{"a": NaN}', '{"a": 1e999}',
            '{"a": ' + "9" * 5000 + "}", "[" * 100_000 + "]" * 100_000,
            '{"a":' * 5000 + "1" + "}" * 5000, " " * 10**6, "\ufeff{}"]  # fmt: skip


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """Where something stands in a value: its keys and indices, the whole first."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:5]):
            yield from places(item, (*path, index))


def put(value: Any, place: Place, new: Any) -> Any:
    """A copy of `value` with something else in one place."""
    if not place:
        return new
    value = copy.deepcopy(value)
    _holder(value, place)[place[-1]] = new
    return value


def without(value: Any, place: Place) -> Any:
    """A copy of `value` without what stands in one place."""
    value = copy.deepcopy(value)
    if place:
        del _holder(value, place)[place[-1]]
    return value


def damaged(value: Any, rng: random.Random) -> tuple[str, Any]:
    """Another value with one thing gone, one too many or one changed, and what that was."""
    place = rng.choice(list(places(value)))
    name = ".".join(map(str, place))[:40] or "all"
    how = rng.random()
    if how < 0.2 and place:
        return f"{name} gone", without(value, place)
    if how < 0.3 and isinstance(value, dict):
        return "more", {**value, rng.choice(["extra", "", "format", "seal", "\x1b[31m"]): rng.choice(EVIL)}
    return f"{name} other", put(value, place, rng.choice(EVIL))


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit the other way round."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def changed(data: bytes, rng: random.Random) -> bytes:
    """`data` with some bytes changed, cut off, more, or all ones; of one that is empty nothing changes."""
    if not data:
        return data
    how, at, new = (
        rng.choice(["bytes", "bytes", "bytes", "cut", "grow", "ff"]),
        rng.randrange(len(data)),
        bytearray(data),
    )
    if how == "bytes":
        for _ in range(rng.choice([1, 1, 3, 10, 30])):
            new[rng.randrange(len(new))] = rng.randrange(256)
    elif how == "cut":
        del new[at:]
    elif how == "grow":
        new[at:at] = rng.randbytes(rng.choice([1, 5, 1000]))
    else:
        new[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(new)


def _holder(value: Any, place: Place) -> Any:
    for key in place[:-1]:
        value = value[key]
    return value
