"""`compressnet runs`: what has been trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from compressnet.errors import CompressnetError

from . import console, options

app = typer.Typer(help="What has been trained.", no_args_is_help=True)


@app.command("ls")
def list_runs(runs: options.Runs = Path("runs"), json: options.Json = False) -> None:
    """List runs with their state and best figure.

    Example: compressnet runs ls --runs runs
    """
    rows = [_row(folder) for folder in sorted(runs.glob("*")) if (folder / "run.json").is_file()]
    if json:
        console.print_json(rows)
        return
    if not rows:
        console.print_text(f"no runs in {runs}; start with: compressnet train fip_sample")
        return
    columns = ["run", "status", "step", "of", "best", "started"]
    console.print_table("", columns, [[row[column] for column in columns] for row in rows], numeric=2)


def _row(folder: Path) -> dict[str, Any]:
    from compressnet.run import Run

    try:
        opened = Run.open(folder)
        facts, evaluations = opened.facts, opened.metrics("evaluation")
        status = facts["status"] + (" (smoke)" if facts.get("smoke") else "")
    except CompressnetError as error:  # one damaged run must not hide the others
        reason = " ".join(str(error).removeprefix(f"{folder}").lstrip("/: ").split())
        reason = reason.replace(" damaged,", "", 1).replace(" damaged:", "", 1)
        nothing = dict.fromkeys(("step", "of", "best", "started"))
        return {"run": str(folder), "status": f"damaged: {reason}", **nothing}
    return {
        "run": str(folder),
        "status": status,
        "step": facts.get("step", evaluations[-1]["step"] if evaluations else None),
        "of": facts.get("total_steps"),
        "best": facts.get("best"),
        "started": facts.get("started"),
    }
