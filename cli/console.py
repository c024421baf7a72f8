"""What is drawn on the screen: tables and JSON on stdout, progress, notes and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from tqdm import tqdm

    from compressnet.reporter import Level

_QUIET_STAGE_SECONDS = 2.0  # a shorter stage shows no bar


def is_main_process() -> bool:
    """Whether this process speaks: under torchrun only rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def print_json(value: Any) -> None:
    """One JSON document on stdout, nothing else; figures that are not finite become texts."""
    if is_main_process():
        from compressnet.files import finite

        plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        sys.stdout.write(json.dumps(finite(value), indent=2, ensure_ascii=plain, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """A line on stdout."""
    if is_main_process():
        sys.stdout.write(text + "\n")


def print_styled(text: Text) -> None:
    """A line on stdout with rich's colours, where the terminal has them."""
    if is_main_process():
        _console().print(text, highlight=False)


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
    console.print(table)
    if left_out:
        print_text(f"left out on a terminal of {console.width} columns: {', '.join(left_out)}")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], numeric: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if index >= numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(figure(cell)) for cell in row))
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
    lines = [f"| {' | '.join(map(_cell, cells))} |" for cells in (columns, rules, *rows)]
    print_text("\n".join([*([f"**{title}**", ""] if title else []), *lines, ""]))


def _cell(value: Any) -> str:
    return figure(value).replace("|", "\\|")


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
        sys.stderr.write(text + "\n")


def fail(message: str) -> None:
    """The error that ends the program: one line a problem, on stderr."""
    lines = message.splitlines() or [""]
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    mark = "\033[1;31merror:\033[0m" if colour else "error:"
    sys.stderr.write("".join(f"{mark} {line}\n" for line in lines))


class Screen:
    """The reporter of the command line: tqdm bars on a terminal, notes on stderr."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def stage(self, name: str, total: int | None, unit: str, initial: int = 0) -> None:
        from tqdm import tqdm

        self.close()
        silent = True if not is_main_process() else None  # None: silent where stderr is no terminal
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
        self._bar.update(n)

    def note(self, level: Level, text: str) -> None:
        self.close()
        note(f"{level}: {text}" if level == "warning" else text)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
