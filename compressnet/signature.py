"""Arguments of recipes and subjects, checked against the signature of what they are for.

The signature is the only place that knows a key, its type, its default and its range: recipes, `--set`,
subjects and the editor schema are all checked against it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from compressnet import registry, yaml_file
from compressnet.errors import RecipeError, UsageError, short, shown
from compressnet.registry import suggestion

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_MOST_ARGUMENTS = 100
_NESTED = 8  # names within names: recurrent_stack:cell=lstm:peepholes=false


class Derived:
    """Marks a parameter that follows from the data: `Annotated[int, DERIVED]`. Recipes must not write it."""


DERIVED = Derived()


@dataclass(frozen=True)
class Named:
    """Marks a text parameter that names something of a registry: `Annotated[str, Named("operator")]`.

    Attributes:
        given: arguments of what is named that its owner gives.
    """

    kind: str
    given: tuple[str, ...] = ()


class File:
    """Marks a text parameter that is a file's name: `Annotated[str, FILE]`. What the file holds counts."""


FILE = File()


class Parameter(NamedTuple):
    """One argument as YAML writes it.

    Attributes:
        python_name: the name in the signature, with its trailing underscore if it has one.
        annotation: its type, with metadata.
        default: its default, or `inspect.Parameter.empty`.
        derived: whether it follows from the data.
        named: what its value names something of, or None.
        file: whether its value is a file's name.
    """

    python_name: str
    annotation: Any
    default: Any
    derived: bool
    named: Named | None
    file: bool

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


class Problem(NamedTuple):
    """A mistake in one argument: its key and what is wrong with it."""

    key: str
    message: str


def parameters(target: Callable[..., Any]) -> dict[str, Parameter]:
    """The arguments of a class or function by the name that YAML uses."""
    # Of a dataclass the fields themselves: those that it inherits have names of another module.
    is_plain = inspect.isclass(target) and not is_dataclass(target)
    hints = get_type_hints(target.__init__ if is_plain else target, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue  # torch.nn.Identity takes and ignores anything
        annotation = hints.get(name, Any)
        metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
        derived = any(isinstance(item, Derived) for item in metadata)
        named = next((item for item in metadata if isinstance(item, Named)), None)
        file = any(isinstance(item, File) for item in metadata)
        found[name.removesuffix("_")] = Parameter(name, annotation, parameter.default, derived, named, file)
    return found


def check(
    target: Callable[..., Any], arguments: Mapping[str, Any], *, from_recipe: bool = False
) -> tuple[dict[str, Any], list[Problem]]:
    """Check `arguments` (YAML names) against the signature of `target`.

    Args:
        target: a class or function.
        arguments: values as YAML gives them.
        from_recipe: refuse parameters that follow from the data.

    Returns:
        The keyword arguments to call `target` with, and every problem found.
    """
    known = parameters(target)
    keywords, problems = {}, []
    for key, value in arguments.items():
        parameter = known.get(key)
        if parameter is None:
            problems.append(Problem(key, f"unknown key '{short(key)}'{suggestion(key, known)}"))
        elif parameter.derived and from_recipe:
            problems.append(Problem(key, f"'{key}' follows from the data: remove it from the recipe"))
        else:
            problems += [Problem(key, message) for message in _value_problems(parameter, value)]
            keywords[parameter.python_name] = value
    missing = [key for key, parameter in known.items() if parameter.required and key not in arguments]
    if from_recipe:
        missing = [key for key in missing if not known[key].derived]
    problems += [Problem(key, f"'{key}' is missing") for key in missing]
    return keywords, problems


def build(kind: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """Call what `name` of `kind` (a key of `registry.REGISTRIES`) stands for.

    Raises:
        UsageError: unknown name or argument, or a value out of its range.
    """
    target = registry.find(kind, name)
    keywords, problems = check(target, arguments)
    if problems:
        raise UsageError("; ".join(f"{kind} {name}: {problem.message}" for problem in problems))
    try:
        return target(**keywords)
    except (ValueError, OverflowError) as error:
        reason = str(error).removeprefix(f"{name}: ")  # layers name themselves, for those within a network
        raise UsageError(f"{kind} {name}: {short(reason, 500)}") from error
    except RuntimeError as error:
        if "overflow" not in str(error):  # torch: sizes whose product has more than 64 bits
            raise
        raise UsageError(
            f"{kind} {name}: too large for any memory: {' '.join(str(error).split())}"
        ) from error


def misfit(model: str, task: str, sizes: Iterable[str]) -> str | None:
    """Why a model is not for a task: which of its arguments follow from data differs. None: it is.

    Args:
        sizes: the names of those that the task gives.
    """
    known = parameters(registry.find("model", model))
    takes = {key for key, parameter in known.items() if parameter.derived}
    needs = {key for key in takes if known[key].default is not None}
    if needs <= set(sizes) <= takes:
        return None
    return (
        f"the model '{model}' is not for the task '{task}': it takes {', '.join(sorted(takes)) or 'nothing'} "
        f"from data, the task gives {', '.join(sorted(sizes))}"
    )


def json_schema(target: Callable[..., Any]) -> tuple[dict[str, Any], list[str]]:
    """JSON schema of the arguments that a recipe may write, and which of them it must."""
    properties, required = {}, []
    for key, parameter in parameters(target).items():
        if parameter.derived:
            continue
        entry = TypeAdapter(parameter.annotation).json_schema()
        if parameter.required:
            required.append(key)
        elif parameter.default is not None:
            entry["default"] = parameter.default
        properties[key] = entry
    return properties, required


def describe(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in our words: what was expected, and what was found."""
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return f"{message[0].lower()}{message[1:]} (got {shown(error['input'])})"


def _value_problems(parameter: Parameter, value: Any) -> list[str]:
    key = parameter.python_name.removesuffix("_")
    try:
        _checker(parameter.annotation).validate_python(value)
    except ValidationError as error:
        # A union reports one error per member; that of the kind which was given says enough.
        found = error.errors()
        said = next((one for one in found if _is_of(one["type"], value)), found[0])
        return [f"'{key}' {describe(dict(said))}"]
    if parameter.named is None or value is None:
        return []
    return check_named(parameter.named, value)


def _is_of(kind: str, value: Any) -> bool:
    """Whether an error is of a number where one was given, of words where these were."""
    return (kind == "literal_error") == isinstance(value, str)


@lru_cache(maxsize=256)
def _checker(annotation: Any) -> TypeAdapter[Any]:
    """Kept: to fold a network, hundreds of layers are described, and to make one takes a millisecond."""
    return TypeAdapter(annotation, config=_STRICT)


def read_named(text: str) -> tuple[str, dict[str, Any]]:
    """`NAME[:key=value,...]` as name and arguments.

    Raises:
        UsageError: not of that form.
    """
    name, _, arguments = text.partition(":")
    return name, split_arguments(arguments)


def write_named(name: str, arguments: Mapping[str, Any]) -> str:
    """The text that `read_named` reads."""
    written = ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(arguments.items()))
    return f"{name}:{written}" if written else name


def make(kind: str, text: str) -> Any:
    """What `rof:weight=0.1` stands for, as one of `kind`.

    Raises:
        UsageError: unknown name or argument.
    """
    return build(kind, *read_named(text.removeprefix(f"{kind}:")))


def canonical(kind: str, text: str, digest: Callable[[Path], str] | None = None) -> str:
    """The text with all arguments written out: the same for every way to write the same thing.

    Args:
        digest: of a file, in the place of its name; None: names stay.
    """
    name, given = read_named(text.removeprefix(f"{kind}:"))
    known = parameters(registry.find(kind, name))
    values = {key: given.get(key, parameter.default) for key, parameter in known.items()}
    for key, value in values.items():
        if digest is not None and known[key].file and value is not None:
            values[key] = f"sha256:{digest(Path(value).expanduser())}"
    return write_named(name, values)


def check_named(named: Named, text: str) -> list[str]:
    """What is wrong with `NAME[:key=value,...]` as a name of its kind."""
    kind = named.kind
    if text.count(":") > _NESTED:
        return [f"{kind} {short(text)}: names within names, more than {_NESTED} deep"]
    try:
        name, arguments = read_named(text.removeprefix(f"{kind}:"))
        target = registry.find(kind, name)
        _, problems = check(target, arguments)
    except UsageError as error:
        return [str(error)]
    if not set(named.given) <= parameters(target).keys():
        return [f"{kind} {name}: does not fit here: it takes no {' and '.join(named.given)}"]
    problems = [problem for problem in problems if problem.key not in named.given]
    written = [key for key in named.given if key in arguments]
    problems += [Problem(key, f"'{key}' follows from the rest: leave it out") for key in written]
    return [f"{kind} {name}: {problem.message}" for problem in problems]


def split_arguments(text: str) -> dict[str, Any]:
    """`a=1,b=[2, 3]` as a dict; values are read as YAML.

    Raises:
        UsageError: not of that form, or a key that is given twice.
    """
    if len(text) > yaml_file.MAX_BYTES:
        raise UsageError(f"'{short(text)}': longer than {yaml_file.MAX_BYTES // 1024} kB")
    parts, depth, begin = [], 0, 0
    for index, letter in enumerate(text + ","):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and (depth == 0 or index == len(text)):
            parts.append(text[begin:index])
            begin = index + 1
    arguments: dict[str, Any] = {}
    for part in filter(str.strip, parts):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"'{short(part)}': write arguments as key=value,key=value")
        if key in arguments or len(arguments) == _MOST_ARGUMENTS:
            wrong = "is given twice" if key in arguments else f"is more than the {_MOST_ARGUMENTS}th argument"
            raise UsageError(f"'{short(part)}': '{short(key)}' {wrong}")
        try:
            arguments[key] = yaml_file.scalar(value)
        except RecipeError as error:
            raise UsageError(f"'{short(part)}': {error}") from error
    return arguments
