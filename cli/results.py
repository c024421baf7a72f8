"""`compressnet results`: tables from recorded evaluations and benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressnet.errors import CompressnetError

from . import console, options


def results(
    folder: Annotated[Path, typer.Argument(help="The folder of recorded results.")] = Path("results"),
    write: Annotated[
        bool,
        typer.Option("--write", help="Write RESULTS.md and the tables in README.md and docs/."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Print the recorded results as Markdown, or write them into RESULTS.md, README.md and docs/.

    Example: compressnet results --write
    """
    from compressnet.results.blocks import write_pages
    from compressnet.results.pages import results_page
    from compressnet.results.records import read_published, read_records

    if not folder.is_dir():
        raise CompressnetError(
            f"{folder}: no such folder; compressnet eval (or bench) SUBJECT --record NAME makes it"
        )
    records = read_records(folder)
    written = [str(path) for path in write_pages(folder)] if write else []
    if json:
        console.print_json({"records": records, "written": written})
    elif write:
        for path in written:
            console.print_text(path)
    else:
        console.print_text(results_page(records, read_published(folder)).rstrip())
