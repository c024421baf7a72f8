"""YAML as data, with the line of every key. Scalars follow YAML 1.2: `1e-4` is a float, `no` is a text.

text -> events -> nodes, at most `_MAX_DEPTH` deep -> data, at most `_MAX_NODES` with aliases expanded

Recipes, `--set` and the names inside weights files come from strangers, and a few bytes of YAML can stand for
gigabytes: what is read is bounded before it is parsed, while it is, and when aliases are expanded.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from compressnet.errors import RecipeError, escaped, short

Path = tuple["str | int", ...]

MAX_BYTES = 64 * 1024  # PyYAML takes 0.7 s for so much
_MAX_DEPTH = 32
_MAX_VALUE_DEPTH = 24  # of `--set a.b.c=VALUE`, which keys of their own stand around
_MAX_NODES = 20_000
_MAX_INT = 2**63
_TAG = "tag:yaml.org,2002:"
_INT = r"[-+]?(0|[1-9][0-9]*)"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"  # unlike int's
# What a text may be without quotes or a tag, and with what it begins then.
_IMPLICIT = {
    "bool": ("true|false", "tf"),
    "null": ("null|~|", ["n", "~", ""]),
    "int": (_INT, "-+0123456789"),
    "float": (_FLOAT, "-+.0123456789"),
}
_PATTERNS = {
    **{tag: re.compile(f"(?:{pattern})$") for tag, (pattern, _) in _IMPLICIT.items()},
    "float": re.compile(f"(?:{_FLOAT}|{_INT})$"),  # `!!float 3`
}


class _Refused(Exception):
    """Why a text is not read.

    Args:
        problems: each with its line, from 1.
    """

    def __init__(self, *problems: tuple[int, str]) -> None:
        super().__init__()
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """The nodes of a text, without making anything of them.

    PyYAML composes collections by recursion; here it ends at `depth`.
    """

    def __init__(self, text: str, depth: int) -> None:
        super().__init__(text)
        self.most = self.left = depth

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.left < 0:
            raise _Refused((_line(self.peek_event()), f"nested more than {self.most} deep"))
        self.left -= 1
        node = super().compose_node(parent, index)
        self.left += 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes a text that would be something else when it is read here or by a reader of YAML 1.1."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {}
for _reader_or_writer in (_Loader, _Dumper):
    for _kind, (_text_of, _first) in _IMPLICIT.items():
        _reader_or_writer.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_text_of})$"), list(_first))


def loads(text: str, name: str) -> tuple[Any, dict[Path, int]]:
    """Parse a YAML document.

    Args:
        text: the document.
        name: what to call it in messages.

    Returns:
        The data, in which keys are texts and no two places share an object, and the line (from 1) of every
        key and list item by its path.

    Raises:
        RecipeError: bad syntax, a key given twice, a tag or value that is no data, more than is read here.
    """
    try:
        return _read(text, _MAX_DEPTH)
    except _Refused as error:
        raise RecipeError([f"{name}:{line}: {message}" for line, message in error.problems]) from None


def scalar(text: str) -> Any:
    """The value of `text` as a YAML value would be read (`--set lr=1e-4`, `root=[a, b]`).

    Raises:
        RecipeError: not a YAML value; the message says why.
    """
    if any("\udc80" <= letter <= "\udcff" for letter in text):
        return text  # the name of a file that is no text: YAML knows no such letters
    try:
        return _read(text, _MAX_VALUE_DEPTH)[0]
    except _Refused as error:
        reason = error.problems[0][1].removeprefix("not YAML: ")
        raise RecipeError([f"'{short(text)}' is not a YAML value: {reason}"]) from None


def dumps(value: Any) -> str:
    """The text that `loads` reads as `value`: mappings with texts as keys, lists, texts, numbers, None."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=2**31)
    return text


def _read(text: str, depth: int) -> tuple[Any, dict[Path, int]]:
    size = len(text) if len(text) > MAX_BYTES else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise _Refused((1, f"longer than {MAX_BYTES // 1024} kB"))
    node = _compose(text, depth)
    if node is None:
        return None, {}
    data = _Data(depth)
    value = data.of(node, ())
    if data.repeated:
        raise _Refused(*data.repeated)
    return value, data.lines


def _compose(text: str, depth: int) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text, depth)
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _Refused((line, f"not YAML: {_cut(error.problem or 'bad syntax')}")) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Refused((line, f"not YAML: the character {_code(error.character)} is not allowed")) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # "\UFFFFFFFF", %YAML of 5,000 digits
        line = loader.line + 1 if loader else 1
        raise _Refused((line, f"not YAML: {_cut(str(error))}")) from error
    return node


class _Data:
    """What nodes stand for.

    Attributes:
        lines: of every key and list item, by its path.
        repeated: keys that are given twice.
    """

    def __init__(self, depth: int) -> None:
        self.lines: dict[Path, int] = {}
        self.repeated: list[tuple[int, str]] = []
        self._depth, self._nodes = depth, 0
        self._open: set[int] = set()

    def of(self, node: yaml.Node, path: Path) -> Any:
        """The value of `node` at `path`, made anew wherever an alias stands for it."""
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _refused(node, f"more than {_MAX_NODES:,} values with aliases expanded")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self._open:
            raise _refused(node, "an alias of what it stands in: it would have no end")
        if len(path) >= self._depth:
            raise _refused(node, f"nested more than {self._depth} deep with aliases expanded")
        self._open.add(id(node))
        value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        self._open.remove(id(node))
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        _check_tag(node, "map")
        value = {}
        for key_node, value_node in node.value:
            key, line = self._key(key_node), key_node.start_mark.line + 1
            place = (*path, key)
            if key in value:
                first = self.lines[place]
                self.repeated.append((line, f"key '{short(key)}' is given twice (first in line {first})"))
            self.lines[place] = line
            value[key] = self.of(value_node, place)
        return value

    def _list(self, node: yaml.Node, path: Path) -> list[Any]:
        _check_tag(node, "seq")
        value = []
        for index, item in enumerate(node.value):
            self.lines[(*path, index)] = item.start_mark.line + 1
            value.append(self.of(item, (*path, index)))
        return value

    def _key(self, node: yaml.Node) -> str:
        self._nodes += 1
        key = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            text = f"'{short(node.value)}'" if isinstance(node, yaml.ScalarNode) else "a list or mapping"
            raise _refused(node, f"a key is a text, not {text} (which may stand in quotes)")
        if key == "<<":
            raise _refused(node, "merge keys (<<) are not read: write the keys out, once for each place")
        return key


def _scalar(node: yaml.ScalarNode) -> Any:
    """A text, number, truth value or None."""
    text, kind = node.value, node.tag.removeprefix(_TAG)
    if kind == "str":
        return _text(node)
    if kind not in _PATTERNS:
        raise _no_data(node)
    if not _PATTERNS[kind].match(text):
        raise _refused(node, f"'{short(text)}' is no {kind}")
    if kind == "int":
        # Python is slow with, or refuses, integers of thousands of digits.
        value = int(text) if len(text) <= 20 else _MAX_INT
        if not -_MAX_INT <= value < _MAX_INT:
            raise _refused(node, f"{short(text, 24)} has more than the 64 bits of an integer here")
        return value
    if kind == "float":
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text == "true" if kind == "bool" else None


def _text(node: yaml.ScalarNode) -> str:
    text: str = node.value
    strange = next((letter for letter in text if letter == "\0" or _is_half(letter)), None)
    if strange is not None:
        raise _refused(node, f"the character {_code(ord(strange))} is no text")
    return text


def _is_half(letter: str) -> bool:
    """Half a character; but for those that Python has for the bytes of file names that are no text."""
    return "\ud800" <= letter <= "\udfff" and not "\udc80" <= letter <= "\udcff"


def _check_tag(node: yaml.Node, kind: str) -> None:
    if node.tag != _TAG + kind:
        raise _no_data(node)


def _no_data(node: yaml.Node) -> _Refused:
    tag = short(node.tag.replace(_TAG, "!!"))
    return _refused(node, f"a recipe is data: the tag {tag} does not fit here")


def _refused(node: yaml.Node, message: str) -> _Refused:
    return _Refused((_line(node), message))


def _line(place: Any) -> int:
    """Of a node or event."""
    line: int = place.start_mark.line
    return line + 1


def _code(character: int) -> str:
    return f"U+{character:04X}"


def _cut(message: str) -> str:
    """PyYAML's words; they repeat names of anchors and tags in full."""
    return " ".join(escaped(message).split())[:160]
