"""A recipe: YAML and overrides, checked whole; every mistake is told at once, with its line.

file.yaml --+
smoke block-+-> one tree with the origin of every key -> settings (pydantic)      -> Recipe
--set a.b=v-+                                         -> task, model, data against
                                                         the signatures they name
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compressnet import bounds, registry, signature, yaml_file
from compressnet.bounds import Batch, Count, Factor, Piece, Positive, Probability, Steps, Workers
from compressnet.errors import CompressnetError, RecipeError, UsageError, short

_COMPONENTS = {"task": "task", "model": "model", "data": "data"}
_SET = "--set"
_DEEPEST_KEY = 8  # of `--set`: smoke.train.stop.metric has 4
_SURELY_SHORT = 2048  # as JSON: no such tree comes near the limits of a YAML file when it is written out


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Stop(_Settings):
    """End training as soon as `metric` of the validation data reaches `threshold`.

    `direction` is needed for metrics other than the one that the task calls its best.
    """

    metric: str
    threshold: float
    direction: Literal["max", "min"] | None = None


class Distill(_Settings):
    """Learn from what another network of the same task says, too.

    The loss is (1 - `weight`) x the task's + `weight` x the distance from `teacher`, a run, a weights file or
    zoo:NAME: `temperature`^2 x KL divergence of the softmax at that temperature, or the mean square of
    values.
    """

    teacher: Annotated[str, Field(min_length=1, max_length=4096)]
    weight: bounds.Share = 0.5
    temperature: bounds.Softening = 2.0


class Train(_Settings):
    """How to train. One of `steps` and `epochs` is given; the loop counts steps.

    `batch` is the global batch of a step: each process computes batch / processes samples of it,
    in `accumulate` pieces.
    """

    steps: Steps | None = None
    epochs: Positive | None = None
    batch: Batch = 1
    accumulate: Batch = 1
    # soap: Adam in the basis that fits the gradients (arXiv 2409.11321).
    optimizer: Literal["adam", "adamw", "sgd", "soap"] = "adam"
    lr: Positive = 1e-3
    # None: those of the optimiser's paper, 0.9 and 0.999 of Adam, 0.95 and 0.95 of SOAP.
    betas: Annotated[list[Probability], Field(min_length=2, max_length=2)] | None = None
    eps: Positive = 1e-8
    momentum: Probability = 0.0
    weight_decay: Factor = 0.0
    # decay: lr x `decay` at the end of every epoch from the `decay_from`-th on; rise: lr x `decay` after each
    # validation that is worse than the one before; poly: lr x (1 - progress) ** `power`, down to `final_lr`;
    # pieces: `pieces`, [steps, lr] each, in the place of `lr`.
    schedule: Literal["constant", "linear", "cosine", "decay", "rise", "poly", "pieces"] = "constant"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.5
    decay_from: Steps = 1
    power: Positive = 0.9
    pieces: Annotated[list[Piece], Field(max_length=1000)] = []
    warmup_steps: bounds.OptionalSteps = 0
    final_lr: Factor = 0.0
    clip_norm: Positive | None = None
    ema: bounds.Fraction | None = None
    # Averaged SGD: once a validation is worse than the best of those up to so many before it, the mean of all
    # weights from there on is evaluated and saved (Merity et al. 2017: "non-monotonically triggered").
    average_after: Steps | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    # float32 products on a CPU: auto takes torch's fast way where a probe finds it accurate and faster.
    cpu_matmul: Literal["auto", "exact", "fast"] = "auto"
    # Networks that can (can24, can32) train in C kernels of their own on a CPU, several times as fast.
    cpu_kernels: Literal["auto", "off"] = "auto"
    workers: Workers = 0
    log_every: Steps = 50
    evaluate_every: Steps = 1000
    checkpoint_every: Steps | None = 1000
    checkpoint_minutes: Positive | None = 10.0
    keep: Count = 3
    previews: Annotated[int, Field(ge=0, le=1000)] = 2
    stop: Stop | None = None
    distill: Distill | None = None
    # The log also as TensorBoard's event files in RUN/tensorboard (extra `track`).
    track: Literal["none", "tensorboard"] = "none"


class Eval(_Settings):
    """How to evaluate: samples a batch, worker processes."""

    batch: Batch = 1
    workers: Workers = 0


class Component(BaseModel):
    """A name of a registry with the arguments to call it with (names as YAML writes them)."""

    model_config = ConfigDict(frozen=True)
    kind: str
    name: str
    arguments: dict[str, Any]

    @classmethod
    def parse(cls, kind: str, text: str) -> Component:
        """`photo_folder:root=DIR`, as options name a data set.

        Raises:
            UsageError: its arguments are not of that form.
        """
        name, _, arguments = text.partition(":")
        return cls(kind=kind, name=name, arguments=signature.split_arguments(arguments))

    def build(self, **more: Any) -> Any:
        """Call what the name stands for."""
        return signature.build(self.kind, self.name, {**self.arguments, **more})

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **self.arguments}


class Recipe(_Settings):
    """A checked recipe. `Recipe.load` is the way in."""

    version: bounds.One
    task: Component
    model: Component
    data: Component
    train: Train
    eval: Eval = Eval()
    seed: bounds.Seed = 0
    init: str | None = None
    init_skip: list[str] = []
    init_only: list[str] = []
    smoke: dict[str, Any] | None = None
    name: str = "recipe"
    is_smoke: bool = False

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = (), *, smoke: bool = False) -> Recipe:
        """Read, override and check a recipe.

        Args:
            path: the YAML file.
            overrides: `a.b=value`, applied last; values are read as YAML.
            smoke: apply the recipe's `smoke` block first.

        Raises:
            RecipeError: every mistake, each with its line or its override.
            CompressnetError: the file cannot be read.
        """
        try:
            if path.exists() and not path.is_file():
                raise CompressnetError(f"cannot read the recipe {path}: not a file")
            with open(path, "rb") as file:
                text = file.read(yaml_file.MAX_BYTES + 1).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CompressnetError(
                f"cannot read the recipe {path}: not UTF-8, save it as that ({error})"
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CompressnetError(f"cannot read the recipe {path}: {reason}") from error
        return cls.parse(text, str(path), overrides, smoke=smoke)

    @classmethod
    def parse(cls, text: str, source: str, overrides: Sequence[str] = (), *, smoke: bool = False) -> Recipe:
        """`load` of a text that came from `source`."""
        tree = _Tree.read(text, source)
        # The smoke block is checked without --smoke too: a mistake in it must not wait for CI to find it.
        problems = [] if smoke else tree.smoke_problems(source)
        if smoke and "smoke" not in tree.data:
            problems.append(f"{source}: the recipe has no 'smoke' block")
        tree = tree.with_smoke() if smoke else tree
        problems += tree.override(overrides)
        checked, found = _validate(tree, source)
        contradicted = tree.smoke_problems(source) if overrides else []
        found += [problem for problem in contradicted if problem.startswith("--set smoke.")]
        problems = list(dict.fromkeys([*problems, *found]))
        if problems or checked is None:
            raise RecipeError(problems)
        if contradicted:
            # What is resolved loads again; there is no smoke run of it once a --set contradicts the block.
            checked = checked.model_copy(update={"smoke": None})
        name = Path(source).stem + ("-smoke" if smoke else "")
        checked = checked.model_copy(update={"name": name, "is_smoke": smoke})
        if len(json.dumps(checked.to_dict())) > _SURELY_SHORT:
            yaml_file.loads(checked.to_yaml(), f"{source}, with aliases and overrides written out")
        return checked

    def to_yaml(self) -> str:
        """The recipe as it was resolved: loads again to the same run."""
        return yaml_file.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The data of `to_yaml`."""
        data = self.model_dump(exclude={"task", "model", "data", "name", "is_smoke"})
        data = {key: value for key, value in data.items() if value is not None}
        if self.train.pieces:
            del data["train"]["lr"]
        order = ["version", "task", "model", "data", "train", "eval", "seed"]
        order += ["init", "init_skip", "init_only", "smoke"]
        data |= {key: getattr(self, key).to_dict() for key in _COMPONENTS}
        return {key: data[key] for key in order if key in data}

    def total_steps(self, samples: int) -> int:
        """The steps of the whole training, with `samples` in the training data."""
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.epochs is not None
        return max(1, math.ceil(self.train.epochs * samples / self.train.batch))


class _Tree:
    """The raw data of a recipe and where each key came from."""

    def __init__(self, data: dict[str, Any], origins: dict[yaml_file.Path, str], source: str) -> None:
        self.data, self.origins, self.source = data, origins, source

    @classmethod
    def read(cls, text: str, source: str) -> _Tree:
        data, lines = yaml_file.loads(text, source)
        if not isinstance(data, dict):
            raise RecipeError([f"{source}: a recipe is a mapping that starts with 'version: 1'"])
        return cls(data, {path: f"{source}:{line}" for path, line in lines.items()}, source)

    def origin(self, path: Sequence[str | int]) -> str:
        """Where the innermost known part of `path` was written."""
        for end in range(len(path), 0, -1):
            if found := self.origins.get(tuple(path[:end])):
                return found
        inside = (origin for known, origin in self.origins.items() if known[: len(path)] == tuple(path))
        return next(inside, self.source) if path else self.source

    def smoke_problems(self, source: str) -> list[str]:
        """What is wrong with the smoke block, applied."""
        lines = {origin for path, origin in self.origins.items() if path[0] == "smoke"}
        _, found = _validate(self.with_smoke(), source)
        return [problem for problem in found if any(problem.startswith(f"{line}: ") for line in lines)]

    def with_smoke(self) -> _Tree:
        """The tree with its smoke block applied; a block that says `name` replaces the whole component."""
        merged = _Tree(copy.deepcopy(self.data), dict(self.origins), self.source)
        block = merged.data.get("smoke")
        if not isinstance(block, dict):
            return merged
        for key, value in block.items():
            if isinstance(value, dict) and isinstance(merged.data.get(key), dict) and "name" not in value:
                for inner in value:
                    merged._make_room((key, inner))
                merged.data[key].update(copy.deepcopy(value))
            else:
                merged.data[key] = copy.deepcopy(value)
        for path, origin in self.origins.items():
            if path[0] == "smoke" and len(path) > 1:
                merged.origins[path[1:]] = origin
        return merged

    def override(self, overrides: Sequence[str]) -> list[str]:
        """Apply `a.b=value` each; returns what is wrong with their form."""
        problems = []
        for text in overrides:
            keys, equals, value = text.partition("=")
            path, origin = tuple(keys.split(".")), f"{_SET} {short(text)}"
            if not equals or not all(path) or len(path) > _DEEPEST_KEY:
                problems.append(f"{origin}: write it as key.key=value")
                continue
            try:
                self._put(path, yaml_file.scalar(value))
            except RecipeError as error:
                problems.append(f"{origin}: {error}")
            except TypeError:
                problems.append(f"{origin}: '{short('.'.join(path[:-1]))}' holds no keys")
            self.origins[path] = origin
        return problems

    def _make_room(self, path: tuple[str, ...]) -> None:
        """A later layer that says how long to train, or at what rate, replaces the other way to say it."""
        others: dict[tuple[str, ...], str] = {
            ("train", "steps"): "epochs",
            ("train", "epochs"): "steps",
            ("train", "pieces"): "lr",
        }
        if (other := others.get(path)) and isinstance(self.data.get("train"), dict):
            self.data["train"].pop(other, None)

    def _put(self, path: tuple[str, ...], value: Any) -> None:
        self._make_room(path)
        place = self.data
        for key in path[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise TypeError
        place[path[-1]] = value


def _validate(tree: _Tree, source: str) -> tuple[Recipe | None, list[str]]:
    """Check a tree: the settings by pydantic, the three components by the signatures they name."""
    problems: list[str] = []
    components, raw = {}, dict(tree.data)
    for key, kind in _COMPONENTS.items():
        components[key] = _component(tree, key, kind, problems)
        raw[key] = components[key] or Component(kind=kind, name="?", arguments={})
    for key in ("name", "is_smoke"):  # ours, not a recipe's
        if key in tree.data:
            problems.append(f"{tree.origin([key])}: unknown key '{key}'")
            del raw[key]
    recipe = None
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        problems += [_explain(tree, dict(item)) for item in error.errors()]
    else:
        problems += _cross_checks(tree, recipe, components)
    return recipe, problems


def _component(tree: _Tree, key: str, kind: str, problems: list[str]) -> Component | None:
    block = tree.data.get(key)
    if not isinstance(block, dict) or not isinstance(block.get("name"), str):
        problems.append(f"{tree.origin([key])}: '{key}' must be a mapping with a 'name'")
        return None
    arguments = {k: v for k, v in block.items() if k != "name"}
    try:
        target = registry.find(kind, block["name"])
    except UsageError as error:
        problems.append(f"{tree.origin([key, 'name'])}: {error}")
        return None
    _, found = signature.check(target, arguments, from_recipe=True)
    problems += [f"{tree.origin([key, p.key])}: {key}.{short(p.key)}: {p.message}" for p in found]
    renamed = tree.origin([key, "name"])
    if renamed.startswith(_SET) and any(not tree.origin([key, p.key]).startswith(_SET) for p in found):
        whole = f'{_SET} "{key}={{name: {short(block["name"])}}}"'
        problems.append(f"{renamed}: the recipe's keys are another's; {whole} replaces them all")
    return None if found else Component(kind=kind, name=block["name"], arguments=arguments)


def _explain(tree: _Tree, error: Mapping[str, Any]) -> str:
    location = [part for part in error["loc"] if isinstance(part, str | int)]
    where, path = tree.origin(location), short(".".join(str(part) for part in location))
    if error["type"] == "extra_forbidden":
        place: Any = Recipe
        for part in location[:-1]:
            place = {"train": Train, "eval": Eval, "stop": Stop, "distill": Distill}.get(str(part), place)
        known = set(place.model_fields) - {"name", "is_smoke"}
        return f"{where}: unknown key '{path}'{registry.suggestion(str(location[-1]), known)}"
    if error["type"] == "missing":
        return f"{where}: '{path}' is missing"
    return f"{where}: {path}: {signature.describe(error)}"


def _cross_checks(tree: _Tree, recipe: Recipe, components: Mapping[str, Component | None]) -> list[str]:
    problems = []
    train = recipe.train
    if (train.steps is None) == (train.epochs is None):
        problems.append(f"{tree.origin(['train'])}: train needs one of 'steps' and 'epochs'")
    if train.batch % train.accumulate:
        problems.append(
            f"{tree.origin(['train', 'accumulate'])}: train.accumulate {train.accumulate} "
            f"does not divide train.batch {train.batch}"
        )
    problems += _schedule_problems(tree, train)
    if recipe.init_only and (recipe.init_skip or not recipe.init):
        why = (
            "init_skip says the opposite: keep one"
            if recipe.init_skip
            else "'init' says whose modules they are"
        )
        problems.append(f"{tree.origin(['init_only'])}: init_only: {why}")
    if train.average_after and train.ema:
        where = tree.origin(["train", "average_after"])
        problems.append(f"{where}: train.average_after and train.ema average both: keep one")
    task, data = components["task"], components["data"]
    if task and data:
        accepted = registry.find("task", task.name).sample_types  # type: ignore[attr-defined]
        given = registry.find("data", data.name).sample_type  # type: ignore[attr-defined]
        if given not in accepted:
            problems.append(
                f"{tree.origin(['data', 'name'])}: data set '{data.name}' gives {given} samples, "
                f"task '{task.name}' takes {' or '.join(accepted)}"
            )
    if task and (model := components["model"]):
        sizes = getattr(registry.find("task", task.name), "size_names", None)
        if sizes is not None and (problem := signature.misfit(model.name, task.name, sizes)):
            problems.append(f"{tree.origin(['model', 'name'])}: {problem}")
    return problems


def _schedule_problems(tree: _Tree, train: Train) -> list[str]:
    where = tree.origin(["train", "pieces" if train.pieces else "schedule"])
    if (train.schedule == "pieces") != bool(train.pieces):
        return [f"{where}: train.schedule: pieces and train.pieces: [[steps, lr], ...] come together"]
    if not train.pieces:
        return []
    problems = []
    if "lr" in tree.data.get("train", {}):
        problems.append(
            f"{tree.origin(['train', 'lr'])}: train.lr: train.pieces says the rates; leave lr away"
        )
    if train.steps != (total := sum(steps for steps, _ in train.pieces)):
        problems.append(f"{where}: train.pieces: they add up to {total} steps, train.steps is {train.steps}")
    return problems
