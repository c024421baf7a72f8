"""The ranges of what recipes, `--set`, subjects and weights files may say, as types of parameters.

`hidden_size: Size` is all that a signature says: its check and the schema for editors follow from it.
The bounds are wide: what lies outside could only hang or overflow.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

_SIZE = 2**24
_LARGE = 1e6


def _int(value: object) -> object:
    if type(value) is not int:
        raise ValueError("should be an integer")
    return value


def _no_overflow(value: float) -> float:
    if 0 < value < 1e-6:
        raise ValueError("should be 0 or at least 1e-06")
    return value


def three(value: object) -> object:
    """Of a tuple that YAML writes as a list."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("should be three numbers, [a, b, c]")
    return value


Size = Annotated[int, Field(gt=0, le=_SIZE)]  # units, channels, sides of pictures, steps of a window
OptionalSize = Annotated[int, Field(ge=0, le=_SIZE)]  # 0: none of it
Layers = Annotated[int, Field(gt=0, le=100)]
Kernel = Annotated[int, Field(gt=0, le=1000)]
Steps = Annotated[int, Field(gt=0, le=10**9)]
OptionalSteps = Annotated[int, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(ge=1, le=10**9)]  # of samples, or of what occurs in them
Repeats = Annotated[int, Field(ge=1, le=10**5)]  # of something slow
Batch = Annotated[int, Field(gt=0, le=2**20)]
Workers = Annotated[int, Field(ge=0, le=256)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]

Positive = Annotated[float, Field(gt=0, le=_LARGE)]
# A piece of a schedule: steps and learning rate. YAML has lists, where strict checks want a tuple.
Piece = Annotated[
    tuple[Annotated[Steps, Field(strict=True)], Annotated[Positive, Field(strict=True)]], Field(strict=False)
]
Factor = Annotated[float, Field(ge=0, le=_LARGE)]
Real = Annotated[float, Field(ge=-_LARGE, le=_LARGE)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
HeldOut = Annotated[float, Field(ge=0, le=50)]  # percent of the training data
Temperature = Annotated[float, Field(ge=0, le=_LARGE), AfterValidator(_no_overflow)]
# Of softened distributions (distillation): what lies outside makes them one-hot or uniform.
Softening = Annotated[float, Field(ge=0.01, le=1000)]

One = Annotated[Literal[1], BeforeValidator(_int)]  # the 1 of a Literal is True and 1.0 to pydantic
UpToTwo = Annotated[Literal[0, 1, 2], BeforeValidator(_int)]
OneOrTwo = Annotated[Literal[1, 2], BeforeValidator(_int)]
ShuffleGroups = Annotated[Literal[1, 2, 3, 4, 8], BeforeValidator(_int)]  # with which ShuffleNet was tried
