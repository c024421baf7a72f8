"""YAML as data, with the line of every key. Scalars follow YAML 1.2: `1e-4` is a float, `no` is a text."""

from __future__ import annotations

import re
from typing import Any

import yaml

from compressnet.errors import RecipeError

Path = tuple["str | int", ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar types of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def loads(text: str, name: str) -> tuple[Any, dict[Path, int]]:
    """Parse a YAML document.

    Args:
        text: the document.
        name: what to call it in messages.

    Returns:
        The data, and the line (from 1) of every key and list item by its path.

    Raises:
        RecipeError: bad syntax, a key given twice, a tag that would run code.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError([f"{name}:{line}: not YAML: {error.problem}"]) from error
    except yaml.YAMLError as error:
        raise RecipeError([f"{name}: not YAML: {' '.join(str(error).split())}"]) from error
    if node is None:
        return None, {}
    lines: dict[Path, int] = {}
    problems: list[str] = []
    _walk(node, (), lines, problems, name)
    if problems:
        raise RecipeError(problems)
    try:
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError([f"{name}:{line}: a recipe is data: {error.problem}"]) from error


def scalar(text: str) -> Any:
    """The value of `text` as a YAML value would be read (`--set lr=1e-4`, `root=[a, b]`).

    Raises:
        RecipeError: not a YAML value.
    """
    if any("\udc80" <= letter <= "\udcff" for letter in text):
        return text  # the name of a file that is no text: YAML knows no such letters
    return loads(text, repr(text))[0]


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], problems: list[str], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if (*path, key) in lines:
                problems.append(
                    f"{name}:{line}: key '{key}' is given twice (first in line {lines[(*path, key)]})"
                )
            lines[(*path, key)] = line
            _walk(value_node, (*path, key), lines, problems, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _walk(item, (*path, index), lines, problems, name)
