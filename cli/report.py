"""`compressnet report`: a run as one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from compressnet.errors import UsageError

from . import console, options


def report(
    run: Annotated[str, typer.Argument(help="A run (RUN@last, RUN@step-500).")],
    output: options.Output = None,
    results: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", help="The folder of recorded results."),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write one HTML page that shows a run: figures, curves, pictures, layers, recipe, environment.

    It is made of what the run's folder holds, needs no network and no data, and is RUN/report.html unless
    -o names another file. Figures on test data are those of `compressnet eval RUN`; published ones come from
    --results.

    Example: compressnet report runs/fip_sample-1 -o report.html
    """
    from compressnet import files
    from compressnet.report.contents import choose, read_contents
    from compressnet.report.page import page

    chosen = choose(run)  # refuses before the work, not after it
    output = output or chosen.run.folder / "report.html"
    if output.is_dir():
        raise UsageError(f"{output} is a folder: name the file to write, -o {output / 'report.html'}")
    if output.suffix.lower() not in (".html", ".htm") and not files.is_stream(output):
        raise UsageError(f"{output}: name the page NAME.html")
    files.refuse_to_overwrite(output, force)
    data = page(read_contents(chosen, results)).encode()
    files.write_bytes(output, data, replace=force)
    if json:
        console.print_json({"output": str(output), "bytes": len(data)})
    elif not files.is_stdout(output):
        console.print_path(output)
