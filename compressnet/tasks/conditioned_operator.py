"""Image processing by a network of several operators, or of one with a dial: a condition tells which.

Chen, Xu, Koltun, "Fast Image Processing with Fully-Convolutional Networks", ICCV 2017, arXiv 1709.00643: one
network for ten operators, chosen by one-hot planes, and one for L0 smoothing of any strength.

    operators: [rof, l0, rtv]             condition (1, 0, 0), (0, 1, 0), (0, 0, 1); blends are between them
    operators: [l0]                       condition (lambda / 0.01), 0.01 being the operator's default
    dial: {lambda: [0.002, 0.02]}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import make_dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, ConfigDict, Field
from torch import Tensor, nn

from compressnet import json_file, signature
from compressnet.bounds import Positive
from compressnet.data.conditions import Choice, Dial, Told, conditions_of
from compressnet.data.protocol import Split
from compressnet.errors import CompressnetError, UsageError
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.signature import Named
from compressnet.source import Source
from compressnet.tasks.dial_metrics import DialMetrics
from compressnet.tasks.image_apply import Options
from compressnet.tasks.image_metrics import ImageMetrics
from compressnet.tasks.image_processing import ImageTranslation, Measures
from compressnet.tasks.protocol import Answers
from compressnet.weights import Architecture

_MOST = 100  # operators
_TOLERANCE = 5e-3  # of the sum of a blend, so that three may have 0.333 each

Operators = Annotated[list[str], Field(min_length=1, max_length=_MOST)]
Weights = Annotated[list[Positive], Field(max_length=_MOST)]


def _is_list(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"is a list: write [{value if ':' in value else 'NAME:SHARE, NAME:SHARE'}]")
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
        raise ValueError("is a list of NAME:SHARE, without a space behind the colon")
    return value


Blend = Annotated[list[str], BeforeValidator(_is_list)]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Assets(json_file.Form):
    """What is stored with weights: the operators in the order of the condition, or the range of the dial."""

    # Assets are handed to data sets, to which other keys than these would mean something.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    operators: Operators
    weights: Weights | None = None
    dial: dict[str, Range] | None = None


class ConditionedOperator(ImageTranslation):
    """Imitate several classical image operators, or one at any strength.

    Args:
        operators: as subjects, e.g. `rof:weight=0.1`; their order is that of the condition.
        weights: how often each is drawn in training; equally often without.
        dial: a setting of the only operator, and its range: `{lambda: [0.002, 0.02]}`.

    Raises:
        UsageError: an operator is unknown or named twice, or weights or the dial do not fit.
    """

    sample_types: ClassVar[tuple[str, ...]] = ("photograph",)
    size_names: ClassVar[tuple[str, ...]] = ("in_channels", "out_channels", "conditions")

    def __init__(
        self,
        operators: Operators,
        weights: Weights | None = None,
        dial: dict[str, Range] | None = None,
    ) -> None:
        _check(operators, weights, dial)
        self._assets: dict[str, Any] = {"operators": list(operators)}
        self._assets |= {"weights": list(weights)} if weights else {}
        self._assets |= {"dial": {key: list(ends) for key, ends in dial.items()}} if dial else {}
        self.conditions: Choice | Dial = conditions_of(self._assets)  # type: ignore[assignment]
        self.asked: dict[str, Any] = {}  # of data sets, beside the assets: what `measure` chose

    def prepare(
        self, train_data: Split, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if model is not None and model.arguments.get("condition", "none") == "none":
            raise UsageError(
                "model.condition: a network that is told what to do takes planes (as published) or film"
            )
        return dict(self._assets), self.sizes()

    def use(self, assets: Mapping[str, Any]) -> None:
        """The operators that the targets were made with are those of the task, in the same order."""
        stored = json_file.check(Assets, assets, "the stored assets")
        try:
            _check(stored.operators, stored.weights, stored.dial)
        except UsageError as error:
            raise CompressnetError(f"the stored assets: {error}") from None
        mine = Assets(**self._assets)
        if [*map(_canonical, stored.operators)] != [*map(_canonical, mine.operators)]:
            raise CompressnetError("the stored assets: operators: they are not those of the task")
        if stored.dial != mine.dial:
            raise CompressnetError("the stored assets: dial: it is not that of the task")

    def sizes(self) -> dict[str, Any]:
        return {"in_channels": 3, "out_channels": 3, "conditions": self.conditions.count}

    @property
    def options(self) -> type:  # type: ignore[override]
        """Of photographs, and which operator, which blend of them, or which strength."""
        return make_dataclass("Options", self._choice(needed=True), bases=(Options,), frozen=True)

    @property
    def measures(self) -> type:  # type: ignore[override]
        """Of photographs, and which operator, blend or strength alone is measured; all without."""
        return make_dataclass("Measures", self._choice(needed=False), bases=(Measures,), frozen=True)

    def _choice(self, *, needed: bool) -> list[Any]:
        """Fields of a dataclass: which operator or blend, or which strength (with a default where needed)."""
        if isinstance(self.conditions, Dial):
            dial = self.conditions
            kind: Any = Positive if needed else Positive | None
            shown = Annotated[kind, Field(json_schema_extra=_shown_range(dial))]
            return [(f"{dial.key}_", shown, _middle(dial) if needed else None), ("force", bool, False)]
        names = tuple(told.name for told in self.conditions.positions())
        one = Literal[names]  # type: ignore[valid-type]
        example = Field(json_schema_extra={"examples": [[f"{names[0]}:0.5", f"{names[-1]}:0.5"]]})
        return [("operator", one | None, None), ("blend", Annotated[Blend | None, example], None)]

    def measure(self, settings: Mapping[str, Any]) -> None:
        self._measures = self.measures(**settings)
        if all(settings.get(key) is None for key in ("operator", "blend", f"{self.conditions.key}_")):
            self.asked = {}
            return
        told = self.told(self._measures)
        for operator in told.operators:  # a strength beyond training may be beyond the operator's own range
            if problems := signature.check_named(Named("operator"), operator):
                raise UsageError(problems[0])
        self.asked = {"asked": [told]}

    def metrics(self) -> ImageMetrics:
        return DialMetrics(self.conditions) if isinstance(self.conditions, Dial) else ImageMetrics()

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        told = self.told(self.options(**options))
        what = "" if isinstance(self.conditions, Dial) else "operator: "
        reporter.note("info", f"{what}{told.name}")
        return super().apply(model, inputs, options, reporter)

    @property
    def told_as(self) -> str:
        """What an exported file says of its second input."""
        return f"the condition: {self.conditions.meaning}"

    def condition(self, settings: Any) -> Tensor:
        """(K,): what is asked for; as of `told`."""
        return torch.tensor(self.told(settings).numbers)

    def told(self, settings: Any) -> Told:
        """What is asked for, by `options` or `measures`.

        Raises:
            UsageError: neither an operator nor a blend, both, shares that do not add to 1; a strength outside
                of the range of training.
        """
        if isinstance(self.conditions, Dial):
            return _strength(self.conditions, settings)
        names = [told.name for told in self.conditions.positions()]
        if settings.operator is not None and settings.blend is not None:
            raise UsageError("operator and blend: choose one")
        if settings.operator is None and settings.blend is None:
            raise UsageError(
                f"name the operator, as in --set operator={names[0]} (there are: {', '.join(names)}), or a "
                f"blend of them, as in --set blend=[{names[0]}:0.5,{names[-1]}:0.5]"
            )
        shares = {settings.operator: 1.0} if settings.blend is None else _shares(settings.blend, names)
        return self.conditions.blend(shares)


def _middle(dial: Dial) -> float:
    return dial.unit if dial.low <= dial.unit <= dial.high else (dial.low * dial.high) ** 0.5


def _check(operators: list[str], weights: list[float] | None, dial: Mapping[str, list[float]] | None) -> None:
    for text in operators:
        if problems := signature.check_named(Named("operator"), text):
            raise UsageError(f"operators: {problems[0]}")
    _refuse_twice(operators)
    if weights is not None and (len(weights) != len(operators) or dial):
        raise UsageError(f"weights: one for each of {len(operators)} operators, and none with a dial")
    if dial is None and len(operators) == 1:
        raise UsageError("operators: name several, or a dial; of one operator the task is image_operator")
    if dial is not None:
        _check_dial(operators, dial)


def _check_dial(operators: list[str], dial: Mapping[str, list[float]]) -> None:
    if len(operators) != 1 or len(dial) != 1:
        raise UsageError(
            "dial: one setting of one operator, as in operators: [l0], dial: {lambda: [0.002, 0.02]}"
        )
    ((key, (low, high)),) = dial.items()
    name, given = signature.read_named(operators[0].removeprefix("operator:"))
    if key in given:
        raise UsageError(f"dial.{key}: '{operators[0]}' sets it already")
    if not 0 < low < high:
        raise UsageError(f"dial.{key}: [{low:g}, {high:g}] is no range from a number above 0 to a larger one")
    for value in (low, high):
        text = signature.write_named(name, {**given, key: value})
        if problems := signature.check_named(Named("operator"), text):
            raise UsageError(f"dial.{key}: {problems[0]}")


def _refuse_twice(operators: list[str]) -> None:
    seen: set[str] = set()
    for text in operators:
        if (same := _canonical(text)) in seen:
            raise UsageError(f"operators: '{text}' is named twice")
        seen.add(same)


def _canonical(text: str) -> str:
    return signature.canonical("operator", text)


def _shown_range(dial: Dial) -> Callable[[dict[str, Any]], None]:
    """For `--options`: the range of training; what is outside takes `force`."""

    def write(schema: dict[str, Any]) -> None:
        for entry in schema.get("anyOf", [schema]):
            if entry.get("type") != "null":
                entry.pop("exclusiveMinimum", None)
                entry.update(minimum=dial.low, maximum=dial.high)

    return write


def _strength(dial: Dial, settings: Any) -> Told:
    value = getattr(settings, f"{dial.key}_")
    if not dial.low <= value <= dial.high and not settings.force:
        raise UsageError(
            f"{dial.key}={value:g}: the network was trained from {dial.low:g} to {dial.high:g}; "
            "--set force=true takes it as it is"
        )
    return dial.told(value)


def _shares(blend: list[str], names: list[str]) -> dict[str, float]:
    """`[rtv:0.5, rof:0.5]`, by the names of operators."""
    shares: dict[str, float] = {}
    for text in blend:
        name, colon, number = text.rpartition(":")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not colon or not 0 <= share <= 1:
            raise UsageError(f"blend: '{text:.80}' is not NAME:SHARE with a share from 0 to 1")
        if name not in names:
            raise UsageError(
                f"blend: '{name:.80}' is no operator of this network (there are: {', '.join(names)})"
            )
        if name in shares:
            raise UsageError(f"blend: '{name}' is named twice")
        shares[name] = share
    if abs(sum(shares.values()) - 1) > _TOLERANCE:
        raise UsageError(f"blend: the shares add up to {sum(shares.values()):g}, not to 1")
    return {name: share / sum(shares.values()) for name, share in shares.items()}
