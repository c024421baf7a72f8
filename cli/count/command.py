"""`compressnet count-params`: what networks and cells cost, by formula and by trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from compressnet.errors import CompressnetError, UsageError

from .. import console, options
from . import formulas as of_cells

if TYPE_CHECKING:
    from compressnet.side import Side


def count_params(
    sides: Annotated[
        list[str],
        typer.Argument(
            metavar="A [vs B ...]",
            help="Models or layers (lstm:hidden_size=750), recipes, runs, weights files, zoo:NAME, "
            "py:FILE.py:NAME.",
            autocompletion=options.complete_subject,
        ),
    ],
    set_: options.Overrides = None,
    depth: Annotated[
        Optional[int], typer.Option(min=1, help="Levels of modules in the table (default: all).")
    ] = None,
    input_size: options.InputSize = None,
    inputs: options.Inputs = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 if a formula and the trace disagree or an operation is unknown."
        ),
    ] = False,
    formulas: Annotated[
        bool, typer.Option("--formulas", help="Show every layer's formulas too, with symbols and numbers.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json: options.Json = False,
) -> None:
    """Count parameters, multiply-adds (MACs) and more. Allocates nothing.

    LSTM cells are shown as the formulas of their papers, term by term; every other network as a table of
    layers, in which the formula of each layer is checked against a trace of what torch really computes.

    Example: compressnet count-params lstm vs lstmp
    """
    if json and markdown:
        raise UsageError("--json and --markdown: choose one")
    from compressnet.side import read_sides

    compared = read_sides(sides, options.parse_settings(set_), inputs or ())
    counted = [_count(side, input_size) for side in compared]
    _check_flags(compared, {"--input-size": input_size, "--depth": depth, "--formulas": formulas})
    reports = [report for report, _ in counted]
    ratios = of_cells.ratios(reports)
    for report, ratio in zip(reports[1:], ratios, strict=True):
        report["ratios"] = ratio
    if json:
        console.print_json({"sides": reports, "ratios": ratios[0] if ratios else {}})
    else:
        _show(compared, counted, ratios, depth, formulas, markdown)
    for side in compared:
        options.note_assumed(side.text, side.assumed())
    problems = [f"{report['name']}: {problem}" for report in reports for problem in report["problems"]]
    if problems and strict:
        raise CompressnetError(*problems)
    if not json:
        for problem in problems:
            console.note(f"warning: {problem}")


def _check_flags(sides: Sequence[Side], given: dict[str, Any]) -> None:
    """Refuse what would be ignored."""
    if not all(side.has_formula for side in sides):
        return
    for flag, value in given.items():
        if value:
            raise UsageError(
                f"{flag}: it is for networks; the formulas of cells are for one step, and are shown whole"
            )


def _count(side: Side, input_size: str | None) -> tuple[dict[str, Any], Any]:
    """The figures of a side for JSON and, of a network, its count by layers."""
    if side.has_formula:
        return of_cells.report(side), None
    from . import table

    counted = table.Counted(side, input_size)
    return table.report(side, counted), counted


def _show(
    sides: list[Side],
    counted: list[tuple[dict[str, Any], Any]],
    ratios: list[dict[str, float]],
    depth: int | None,
    formulas: bool,
    markdown: bool,
) -> None:
    show_table = console.print_markdown if markdown else console.print_table
    for side, (_, by_layer) in zip(sides, counted, strict=True):
        if by_layer is None:
            of_cells.show(side, show_table, colour=not markdown)
        else:
            from . import table

            table.show(side, by_layer, depth, show_table)
            if formulas:
                table.show_formulas(by_layer, show_table)
    reports = [report for report, _ in counted]
    if len(reports) > 1 or sides[0].has_formula:
        of_cells.show_summary(reports, ratios, show_table)
