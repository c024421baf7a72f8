"""What is drawn on the screen: tables and JSON on stdout, progress, notes and errors on stderr.

What a terminal is shown goes through `shown`; what a pipe or a file gets of a model's text is exact.
"""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from . import streams

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from tqdm import tqdm

    from compressnet.reporter import Level

_QUIET_STAGE_SECONDS = 2.0  # a shorter stage shows no bar
# C0, DEL and C1, what turns the direction of text, what parts lines, and bytes that are no text.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_told: set[str] = set()  # Python's warnings


def is_main_process() -> bool:
    """Whether this process speaks: under torchrun only rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def shown(text: str, keep: str = "") -> str:
    """`text` as a terminal may have it: what would steer it is escaped as Python does, `\\x1b`.

    Args:
        keep: of line breaks and tabs, those that are the text's own.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode()


def _line(text: str) -> str:
    """A message: one line. Names that look alike and are not differ in it: loose accents are escaped."""
    if unicodedata.is_normalized("NFC", text):
        return shown(text)
    parts, last = [], ""
    for letter in text:
        if unicodedata.normalize("NFC", last + letter) == last + letter:
            parts.append(letter)
            last = letter
        else:
            parts.append(_escaped(letter))
    return shown("".join(parts))


def print_json(value: Any) -> None:
    """One JSON document on stdout, nothing else; figures that are not finite become texts."""
    if is_main_process():
        from compressnet.files import json_text

        streams.write("stdout", json_text(value, plain=not streams.is_utf8("stdout")) + "\n")


def print_text(text: str) -> None:
    """Lines on stdout."""
    if is_main_process():
        streams.write("stdout", (shown(text, "\n\t") if streams.is_terminal("stdout") else text) + "\n")


def print_path(path: Path | str) -> None:
    """The name of a file, a line on stdout."""
    print_text(shown(str(path)) if streams.is_terminal("stdout") else str(path))


def print_styled(text: Text) -> None:
    """A line on stdout with rich's colours, where the terminal has them."""
    if is_main_process():
        _print(_console(), _styled(text), highlight=False)


def _print(console: Console, thing: Text | Table, **options: Any) -> None:
    with streams.guarded("stdout"):
        console.print(thing, **options)


def _styled(text: Text) -> Text:
    """The same colours at the same places: a control character becomes one other."""
    clean = text.copy()
    clean.plain = _UNSAFE.sub("\ufffd", text.plain)
    return clean


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    numeric: int = 1,
    optional: Sequence[str] = (),
) -> None:
    """A table on stdout; columns from `numeric` on are figures and stand to the right.

    Args:
        optional: columns that a terminal too narrow for all goes without, the first of them first.
    """
    if not is_main_process():
        return
    console, rows, left_out = _console(), list(rows), []
    unbounded = console.options.update(max_width=10_000)
    table = _table(title, columns, rows, numeric)
    for name in optional:
        if console.measure(table, options=unbounded).maximum <= console.width:
            break
        place = list(columns).index(name)
        columns = [*columns[:place], *columns[place + 1 :]]
        rows = [[*row[:place], *row[place + 1 :]] for row in rows]
        left_out.append(name)
        table = _table(title, columns, rows, numeric)
    _print(console, table)
    if left_out:
        print_text(f"left out on a terminal of {console.width} columns: {', '.join(left_out)}")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], numeric: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(shown(title)) if title else None, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(
            Text(shown(column)), justify="right" if index >= numeric else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(_styled(cell) if isinstance(cell, Text) else Text(_cell(cell)) for cell in row))
    return table


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)  # a pipe has no width: cut nothing


def print_markdown(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    numeric: int = 1,
    optional: Sequence[str] = (),
) -> None:
    """The table as Markdown, for reports."""
    rules = ["---:" if index >= numeric else "---" for index in range(len(columns))]
    cells = ([_cell(value).replace("|", "\\|") for value in row] for row in (columns, rules, *rows))
    lines = [f"| {' | '.join(row)} |" for row in cells]
    print_text("\n".join([*([f"**{title}**", ""] if title else []), *lines, ""]))


def _cell(value: Any) -> str:
    return shown(figure(value), "\t")


def figure(value: Any) -> str:
    """A cell as people read it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)


def short(value: float, unit: str = "") -> str:
    """Four digits and a prefix: 37.01 G; whole numbers below a thousand as they are."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:#.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}".rstrip()


def note(text: str) -> None:
    """A line for the person, on stderr."""
    if is_main_process():
        streams.write("stderr", _line(text) + "\n")


def fail(*problems: str) -> None:
    """The error that ends the program: one line a problem, on stderr."""
    colour = streams.is_terminal("stderr") and "NO_COLOR" not in os.environ
    mark = "\033[1;31merror:\033[0m" if colour else "error:"
    streams.write("stderr", "".join(f"{mark} {_line(problem)}\n" for problem in problems or ("",)))


def show_traceback() -> None:
    """The error that is being handled, for developers."""
    import traceback

    streams.write("stderr", shown(traceback.format_exc(), "\n\t"))


def warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In the place of `warnings.showwarning`: one line, once; none of what only concerns developers."""
    if issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning | ResourceWarning):
        return
    text = " ".join(re.sub(r"\(Triggered internally.*", "", str(message), flags=re.DOTALL).split())
    if text not in _told:
        _told.add(text)
        note(f"warning: {text}")


class Screen:
    """The reporter of the command line: tqdm bars on a terminal, notes on stderr."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def stage(self, name: str, total: int | None, unit: str, initial: int = 0) -> None:
        from tqdm import tqdm

        self.close()
        name = _line(name)
        silent = True if not is_main_process() else None  # None: silent where stderr is no terminal
        with streams.guarded("stderr"):
            self._bar = tqdm(
                desc=name, total=total, unit=f" {unit}", initial=initial, disable=silent,
                delay=_QUIET_STAGE_SECONDS, dynamic_ncols=True, leave=False, smoothing=0.05,
            )  # fmt: skip

    def advance(self, n: int = 1, **scalars: float) -> None:
        if self._bar is None:
            return
        if scalars and not self._bar.disable and time.time() - self._bar.last_print_t > self._bar.mininterval:
            words = {
                name.replace("samples_per_s", "samples/s"): f"{value:.3g}" for name, value in scalars.items()
            }
            self._bar.set_postfix(words, refresh=False)
        with streams.guarded("stderr"):
            self._bar.update(n)

    def note(self, level: Level, text: str) -> None:
        self.close()
        note(f"{level}: {text}" if level == "warning" else text)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            with streams.guarded("stderr"):
                self._bar.close()
            self._bar = None
