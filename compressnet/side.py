"""The sides of a comparison: subjects, the settings that apply to them, and the networks they mean.

"lstm vs runs/lm-1" + {hidden_size: 750} -> [Side, Side] -> terms (no torch), or module (on meta: no memory)
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet import registry, signature, user_module
from compressnet.cost import Term
from compressnet.errors import CompressnetError, UsageError
from compressnet.places import DATA_VARIABLE
from compressnet.subject import STORED, Subject, parse, weights_path

if TYPE_CHECKING:
    from torch import nn

    from compressnet.recipe import Recipe
    from compressnet.weights import Architecture

SEPARATOR = "vs"


@dataclass(frozen=True)
class Side:
    """A subject with the settings that apply to it.

    Attributes:
        settings: of a model or layer its arguments by name, of a recipe `model.key`.
        inputs: of a module of the user's, the shapes that `--input` gives.
    """

    subject: Subject
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What a person types to mean it, without the kind in front: can24:norm="bn"."""
        given = {**self.subject.arguments, **self.settings}
        if self.subject.kind in ("model", "layer"):
            return signature.write_named(self.subject.name, given)
        if self.subject.kind == "operator":
            return f"operator:{signature.write_named(self.subject.name, given)}"
        if self.subject.kind == "recipe":
            return signature.write_named(self.subject.name, self.settings)
        if self.subject.kind == user_module.PREFIX:
            return signature.write_named(f"py:{self.subject.name}", given)
        return self.subject.text

    @property
    def cpu_matmul(self) -> str:
        """What its recipe asks for: auto, exact or fast."""
        from compressnet.run import Run

        if self.subject.kind == "recipe":
            return _recipe(self.subject).train.cpu_matmul
        if self.subject.kind == "run" and self.subject.path is not None:
            return Run.open(self.subject.path).recipe.train.cpu_matmul
        return "auto"

    @property
    def is_stored(self) -> bool:
        """Whether it has weights in a file."""
        return self.subject.kind in STORED

    @property
    def has_formula(self) -> bool:
        """Whether its cost is known as formulas, without building it."""
        return self.subject.kind == "layer" and self.subject.name in registry.FORMULAS

    @property
    def keys(self) -> set[str]:
        """What `--set` may set of it."""
        if self.subject.kind in ("model", "layer", "operator"):
            return set(signature.parameters(self._target()))
        if self.subject.kind == "recipe":
            known = signature.parameters(registry.find("model", _recipe(self.subject).model.name))
            return {f"model.{key}" for key in known}
        if self.subject.kind == user_module.PREFIX:
            return user_module.keys(*self._of_user())
        return set()

    def arguments(self) -> dict[str, Any]:
        """All arguments of the model or layer with defaults; of weights those they were built with."""
        if self.is_stored:
            return dict(self.architecture().model_args)
        if self.subject.kind == "recipe":
            return self._recipe_arguments()[1]
        if self.subject.kind == user_module.PREFIX:
            return {**self.subject.arguments, **self.settings}
        known = signature.parameters(self._target())
        defaults = {key: p.default for key, p in known.items() if not p.required}
        return {**defaults, **self.subject.arguments, **self.settings}

    def terms(self) -> list[Term]:
        """The cost of a layer of `registry.FORMULAS`: no torch, nothing built.

        Raises:
            UsageError: an argument out of range.
        """
        terms: list[Term] = self._checked(signature.build, "formula")
        return terms

    def module(self, device: str = "cpu", *, with_weights: bool = False) -> nn.Module:
        """The network, freshly initialised.

        Args:
            device: "meta" allocates nothing.
            with_weights: read the weights of a run or file; without, only what they say of themselves.

        Raises:
            UsageError: an argument out of range; a layer of which there are formulas only; a recipe whose
                sizes follow from data that is not there.
            CompressnetError: files are missing or damaged.
        """
        import torch

        if with_weights and self.is_stored:
            from compressnet.subject import load

            return load(self.subject).model.to(device)
        with torch.device(device):
            return self._build()

    def architecture(self) -> Architecture:
        """What the weights of a run or file say of themselves."""
        from compressnet.weights import read_architecture

        return read_architecture(self.weights_path())

    def weights_path(self) -> Path:
        """The weights file of a run, weights or zoo subject."""
        return weights_path(self.subject)[0]

    def assumed(self) -> dict[str, Any]:
        """Sizes of a recipe's model that follow from data that is not there, and are its defaults here."""
        found = self._recipe_arguments()[2] if self.subject.kind == "recipe" else {}
        return {key: value for key, value in found.items() if value is not None}

    def _build(self) -> nn.Module:
        from compressnet.subject import load
        from compressnet.weights import build_from

        kind, name = self.subject.kind, self.subject.name
        model: nn.Module
        if self.is_stored:
            return build_from(self.weights_path())
        if kind == user_module.PREFIX:
            return user_module.build(*self._of_user(), self.arguments(), self.inputs)
        if kind == "operator":
            arguments = {**self.subject.arguments, **self.settings}
            return load(replace(self.subject, arguments=arguments)).model
        if kind == "recipe":
            model_name, arguments, assumed = self._recipe_arguments()
            try:
                model = signature.build("model", model_name, arguments)
            except UsageError as error:
                if not assumed:
                    raise
                raise UsageError(
                    f"{name}: {', '.join(assumed)} of its model follow from data that is not there (see "
                    f"{DATA_VARIABLE}), and without there is no such model: {error}"
                ) from error
            return model
        if kind == "layer" and name not in registry.LAYERS:
            raise UsageError(f"'{name}' has formulas, which count-params shows, but no module yet")
        model = self._checked(signature.build, kind)
        return model

    def _of_user(self) -> tuple[Path, str]:
        assert self.subject.path is not None
        return self.subject.path, self.subject.name.rpartition(":")[2]

    def _target(self) -> Any:
        return registry.find("formula" if self.has_formula else self.subject.kind, self.subject.name)

    def _checked(self, make: Any, kind: str) -> Any:
        try:
            return make(kind, self.subject.name, {**self.subject.arguments, **self.settings})
        except UsageError as error:
            raise UsageError(
                str(error).replace(f"{kind} {self.subject.name}: ", f"{self.subject.name}: ")
            ) from error

    def _recipe_arguments(self) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Name and arguments of a recipe's model, and which of these are assumed.

        Those that follow from the data come from the data; where it is not there, defaults are assumed.
        """
        recipe = _recipe(self.subject)
        known = signature.parameters(registry.find("model", recipe.model.name))
        given = {key.removeprefix("model."): value for key, value in self.settings.items()}
        arguments = {**recipe.model.arguments, **given}
        assumed: dict[str, Any] = {}
        open_keys = [key for key, p in known.items() if p.derived and key not in arguments]
        if open_keys:
            try:
                sizes = _sizes(str(self.subject.path))
                arguments |= {key: value for key, value in sizes.items() if key in open_keys}
            except CompressnetError as error:
                missing = [key for key in open_keys if known[key].required]
                if missing:
                    hint = " ".join(f"--set model.{key}=N" for key in missing)
                    raise UsageError(
                        f"{self.subject.name}: sizes of the model follow from the data ({error}); "
                        f"give them: {hint}"
                    ) from error
                assumed = {key: known[key].default for key in open_keys}
                arguments |= _sizes_of_task(recipe, [key for key in open_keys if assumed[key] is None])
        defaults = {key: p.default for key, p in known.items() if not p.required}
        return recipe.model.name, {**defaults, **arguments}, assumed


def _sizes_of_task(recipe: Recipe, keys: Sequence[str]) -> dict[str, Any]:
    """What a task tells of sizes before it has seen data, as of the condition that its network takes."""
    known = recipe.task.build().sizes() if keys and recipe.task.name == "conditioned_operator" else {}
    return {key: known[key] for key in keys if key in known}


def read_sides(words: Sequence[str], settings: Mapping[str, Any], inputs: Sequence[str] = ()) -> list[Side]:
    """What `A [vs] B ...`, `--set key=value ...` and `--input SHAPE ...` mean.

    Raises:
        UsageError: nothing between two `vs`, an unknown name, a key that no side takes, inputs for none.
    """
    subjects = [parse(word) for word in _without_separators(words)]
    if inputs and not any(subject.kind == user_module.PREFIX for subject in subjects):
        raise UsageError(f"--input {inputs[0]}: it is for {user_module.FORM}; others know what they take")
    sides = []
    taken: set[str] = set()
    known: set[str] = set()
    for subject in subjects:
        keys = Side(subject).keys if settings else set()
        mine = {key: value for key, value in settings.items() if key in keys}
        taken |= mine.keys()
        known |= keys
        of_user = subject.kind == user_module.PREFIX
        sides.append(Side(subject, mine, tuple(inputs) if of_user else ()))
    for key in settings:
        if key not in taken:
            where = ", ".join(side.subject.name for side in sides)
            raise UsageError(f"--set {key}: no side takes it ({where}); {_taken_keys(key, known)}")
    return sides


def _taken_keys(key: str, known: set[str]) -> str:
    near = [f"model.{key}"] if f"model.{key}" in known else difflib.get_close_matches(key, known, 1, 0.8)
    if near:
        return f"did you mean '{near[0]}'?"
    if known:
        return f"they take: {', '.join(sorted(known))}"
    return "runs and weights are as they were built"


def _without_separators(words: Sequence[str]) -> list[str]:
    for index, word in enumerate(words):
        alone = index in (0, len(words) - 1) or words[index - 1] == SEPARATOR
        if word == SEPARATOR and alone:
            raise UsageError("'vs' stands between two sides: lstm vs lstmp")
    return [word for word in words if word != SEPARATOR]


def _recipe(subject: Subject) -> Recipe:
    from compressnet.recipe import Recipe

    assert subject.path is not None
    return Recipe.load(subject.path)


@cache
def _sizes(path: str) -> dict[str, Any]:
    """The arguments of the model that the task of a recipe finds in the training data; looked up once."""
    from compressnet.recipe import Recipe

    recipe = Recipe.load(Path(path))
    train = recipe.data.build().open("train", {}, recipe.seed)
    _, model_args = recipe.task.build().prepare(train, model=recipe.model)
    return dict(model_args)
