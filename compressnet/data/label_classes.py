"""What the values of label maps mean: class files, and the outputs of a network that follow from them.

    id,name,colour,ignore          labels            outputs
    0,void,#000000,1               0                 255, ignored
    7,road,#804080,0       ->      7         ->      0
    26,car,#00008e,0               26                1

The outputs are the rows that are not ignored, in their order: no id has to be 0, none has to be missing.
Two more columns, `category` and `instances` (0 or 1), are those of Cityscapes. Rows that are ignored may
share a colour or have none: only labels that are stored as colours need it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from compressnet import json_file
from compressnet.data.class_image import check_classes
from compressnet.data.limits import read_text_file
from compressnet.errors import CompressnetError, named, short
from compressnet.registry import suggestion

IGNORED = 255  # of labels as networks are trained on them
MOST = 254  # outputs
_FOLDER = Path(__file__).parent / "class_files"
_NEEDED = ("id", "name", "colour", "ignore")
_KNOWN = (*_NEEDED, "category", "instances")
_WHOLE = re.compile("[0-9]{1,3}")
_COLOUR = re.compile("#[0-9a-fA-F]{6}")
_WORDS = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True, "": False}
_LONGEST = 100  # characters of a name
_LARGEST = 1 << 20  # bytes of a class file

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LabelClasses:
    """The classes of label maps; `names[k]`, `ids[k]` and so on are of output k.

    Attributes:
        names: of the outputs.
        ids: their values in label maps, 0 to 255.
        colours: (red, green, blue), 0 to 255, all different.
        ignored_ids: values that are no output: they are neither learnt nor scored.
        ignored_colours: those of ignored rows that have one.
        categories: each output's, or None.
        instances: whether single objects of each output are told apart in Cityscapes' measure, or None.
        source: the class file, for messages.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    colours: tuple[Colour, ...]
    ignored_ids: tuple[int, ...] = ()
    ignored_colours: tuple[Colour, ...] = ()
    categories: tuple[str, ...] | None = None
    instances: tuple[bool, ...] | None = None
    source: str = field(default="the class file", compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def to_assets(self) -> dict[str, Any]:
        """What weights store: `classes` (the names), `ids`, `colours` and so on, lists of plain values."""
        values = asdict(self)
        values["classes"] = values.pop("names")
        del values["source"]
        return {key: _listed(value) for key, value in values.items() if value is not None}

    @classmethod
    def from_assets(cls, assets: Mapping[str, Any]) -> LabelClasses:
        """The classes that weights store; other keys do not matter.

        Raises:
            CompressnetError: they are not what `to_assets` makes: weights may come from strangers.
        """
        stored = json_file.check(_Stored, dict(assets), "assets")
        found = cls(
            names=tuple(stored.classes),
            ids=tuple(stored.ids),
            colours=tuple(_rgb(colour) for colour in stored.colours),
            ignored_ids=tuple(stored.ignored_ids),
            ignored_colours=tuple(_rgb(colour) for colour in stored.ignored_colours),
            categories=None if stored.categories is None else tuple(stored.categories),
            instances=None if stored.instances is None else tuple(stored.instances),
            source="assets",
        )
        each = [found.names, found.ids, found.colours, found.categories, found.instances]
        if any(values is not None and len(values) != len(found) for values in each):
            raise CompressnetError("assets: damaged: not every class has an id and a colour")
        for what, values in (("id", (*found.ids, *found.ignored_ids)), ("name", found.names)):
            if len(set(values)) < len(values):
                raise CompressnetError(f"assets: damaged: two classes have one {what}")
        if not all(name.isprintable() for name in (*found.names, *(found.categories or ()))):
            raise CompressnetError("assets: damaged: a name that cannot be printed")
        return found

    def check(self, assets: Mapping[str, Any]) -> None:
        """Refuse stored assets of other classes.

        Raises:
            CompressnetError: they are others.
        """
        if "classes" in assets:
            check_classes(self.names, assets)

    def renumbered(self) -> LabelClasses:
        """The same outputs of label maps that hold them as they are, and 255 (Cityscapes' trainIds)."""
        return replace(self, ids=tuple(range(len(self))), ignored_ids=(IGNORED,))


_Byte = Annotated[int, Field(ge=0, le=255)]
_Rgb = Annotated[list[_Byte], Field(min_length=3, max_length=3)]
_Name = Annotated[str, Field(min_length=1, max_length=_LONGEST)]


class _Stored(json_file.Form):
    classes: Annotated[list[_Name], Field(min_length=1, max_length=MOST)]
    ids: list[_Byte]
    colours: list[_Rgb]
    ignored_ids: list[_Byte]
    ignored_colours: list[_Rgb]
    categories: list[_Name] | None = None
    instances: list[bool] | None = None


class _Row(NamedTuple):
    """A line of a class file."""

    line: int
    id: int
    name: str
    colour: Colour | None
    ignored: bool
    category: str
    instances: bool


def label_classes(text: str, root: Path) -> LabelClasses:
    """The classes that `data.classes` names.

    Args:
        text: one of `shipped()`, or a class file, below `root` where its path is relative.

    Raises:
        CompressnetError: no such name or file, or the file has mistakes: all of them, with their lines.
    """
    if Path(text).suffix.lower() == ".csv" or "/" in text:
        return read_class_file(root / text, text)
    if text not in shipped():
        raise CompressnetError(
            f"data.classes '{named(text)}' is none of the class files that are built in"
            f"{suggestion(text, shipped())}; a file of yours has the suffix .csv"
        )
    return read_class_file(_FOLDER / f"{text}.csv", text)


def shipped() -> list[str]:
    """The names of the class files that are built in."""
    return sorted(path.stem for path in _FOLDER.glob("*.csv"))


def read_class_file(path: Path, source: str) -> LabelClasses:
    """The classes of a file.

    Args:
        source: what later messages call it.

    Raises:
        CompressnetError: it cannot be read, or has mistakes: all of them, with their lines.
    """
    try:
        data = read_text_file(path) if path.stat().st_size <= _LARGEST else b"\xff"
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise CompressnetError(f"{path}: the class file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CompressnetError(f"{path}: is no class file: not a small CSV in UTF-8") from None
    problems: list[str] = []
    rows = [row for row in _rows(path, text, problems) if row is not None]
    problems += _repeated(path, rows)
    outputs = [row for row in rows if not row.ignored]
    if not problems and not 1 <= len(outputs) <= MOST:
        problems.append(f"{path}: {len(outputs)} classes are not ignored: there have to be 1 to {MOST}")
    if problems:
        raise CompressnetError(*problems)
    return _classes(rows, outputs, source)


def _classes(rows: Sequence[_Row], outputs: Sequence[_Row], source: str) -> LabelClasses:
    ignored = [row for row in rows if row.ignored]
    categories = tuple(row.category for row in outputs)
    instances = tuple(row.instances for row in outputs)
    return LabelClasses(
        names=tuple(row.name for row in outputs),
        ids=tuple(row.id for row in outputs),
        colours=tuple(row.colour for row in outputs if row.colour is not None),
        ignored_ids=tuple(row.id for row in ignored),
        ignored_colours=tuple(dict.fromkeys(row.colour for row in ignored if row.colour is not None)),
        categories=categories if all(categories) else None,
        instances=instances if any(instances) else None,
        source=source,
    )


def _rows(path: Path, text: str, problems: list[str]) -> Iterator[_Row | None]:
    """Each line that is not empty; None of what is wrong."""
    reader = csv.reader(io.StringIO(text, newline=None), skipinitialspace=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if missing := [name for name in _NEEDED if name not in header]:
            problems.append(
                f"{path}:1: has to be the header `{','.join(_NEEDED)}` (`category` and `instances` may "
                f"follow): '{missing[0]}' is missing"
            )
            return
        if len(set(header)) < len(header):
            problems.append(f"{path}:1: the header has a column twice")
            return
        if unknown := [name for name in header if name not in _KNOWN]:
            problems.append(f"{path}:1: unknown column '{named(unknown[0])}'{suggestion(unknown[0], _KNOWN)}")
            return
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _row(f"{path}:{reader.line_num}", reader.line_num, header, cells, problems)
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}: {error}")


def _row(
    place: str, line: int, header: Sequence[str], cells: Sequence[str], problems: list[str]
) -> _Row | None:
    if len(cells) != len(header):
        problems.append(f"{place}: {len(cells)} cells, the header has {len(header)}")
        return None
    cell = {name: value.strip() for name, value in zip(header, cells, strict=True)}
    before = len(problems)
    if not (_WHOLE.fullmatch(cell["id"]) and int(cell["id"]) <= 255):
        problems.append(f"{place}: id '{short(cell['id'])}' is no whole number from 0 to 255")
    if not 1 <= len(cell["name"]) <= _LONGEST or not cell["name"].isprintable():
        problems.append(f"{place}: the name has to have 1 to {_LONGEST} printable characters")
    category = cell.get("category", "")
    if category and not (len(category) <= _LONGEST and category.isprintable()):
        problems.append(f"{place}: the category has to have up to {_LONGEST} printable characters")
    flags = {}
    for key in ("ignore", "instances"):
        flags[key] = _WORDS.get(cell.get(key, "").lower())
        if flags[key] is None:
            problems.append(f"{place}: {key} '{short(cell[key])}' is neither 0 nor 1")
    colour = cell["colour"]
    if not _COLOUR.fullmatch(colour) and (colour or not flags["ignore"]):
        problems.append(f"{place}: colour '{short(colour)}' is not written as #rrggbb")
    if len(problems) > before:
        return None
    own = _rgb(bytes.fromhex(colour[1:])) if colour else None
    ignored, instances = bool(flags["ignore"]), bool(flags["instances"])
    return _Row(line, int(cell["id"]), cell["name"], own, ignored, category, instances)


def _repeated(path: Path, rows: Sequence[_Row]) -> list[str]:
    """One line for each id, name or colour that two rows have."""
    problems = []
    seen: dict[tuple[str, Any], _Row] = {}
    for row in rows:
        colour = None if row.colour is None else f"#{bytes(row.colour).hex()}"
        for what, value in (("id", row.id), ("name", row.name), ("colour", colour)):
            first = seen.setdefault((what, value), row)
            both_ignored = first.ignored and row.ignored
            if first is row or value is None or (what == "colour" and both_ignored):
                continue
            owner = f"'{named(first.name)}' in line {first.line}"
            problems.append(f"{path}:{row.line}: {what} '{named(value)}' is that of {owner}")
    return problems


def _rgb(values: Sequence[int]) -> Colour:
    red, green, blue = values
    return red, green, blue


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple | list) else value
