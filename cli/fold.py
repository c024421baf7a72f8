"""`compressnet fold`: a network for inference, without the layers that others can take up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressnet.errors import CompressnetError, UsageError

from . import console, options

if TYPE_CHECKING:
    from compressnet.analysis.fold import Folded
    from compressnet.side import Side
    from compressnet.weights import Architecture

_COUNTED = {"parameters": "parameters", "macs": "MACs", "elementwise": "elementwise operations"}


def fold(
    subject: Annotated[
        str,
        typer.Argument(
            help="A run, a weights file or zoo:NAME; for others (py:FILE.py:NAME, a model) only the report.",
            autocompletion=options.complete_subject,
        ),
    ],
    output: options.Output = None,
    set_: options.Overrides = None,
    inputs: options.Inputs = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Fold batch normalisation and frozen adaptive normalisation into the layers before them, and linear
    layers in a row, or a convolution and a 1x1 convolution, into one.

    The outputs stay the same, to 1e-5 of the largest value: this is checked on several inputs before the file
    is written. Every command can open the file. Without -o, only what would change is shown.

    Example: compressnet fold runs/fip_sample-1 -o folded.safetensors
    """
    from compressnet.analysis.fold import folded
    from compressnet.side import read_sides

    (side,) = read_sides([subject], options.parse_settings(set_), inputs or ())
    if output is not None:
        _check_target(side, output, force, json)
    if "operator" in (side.subject.kind, side.subject.name):
        raise CompressnetError(f"{side.text}: a classical operator is not a network: nothing to fold")
    module, architecture = _opened(side)
    done = folded(module, side.text)
    if output is not None:
        from compressnet import weights

        assert architecture is not None
        edits = [*architecture.edits, done.folding.edit]
        weights.save(output, done.module, replace(architecture, edits=edits), replace=force)
    _report(side.text, done, output, json)
    options.note_assumed(side.text, side.assumed())


def _opened(side: Side) -> tuple[Any, Architecture | None]:
    from compressnet.subject import load

    if not side.is_stored:
        return side.module(), None
    loaded = load(side.subject)
    return loaded.model, loaded.architecture


def _check_target(side: Side, output: Path, force: bool, json: bool) -> None:
    from compressnet import files
    from compressnet.user_module import PREFIX

    if not (output.suffix == ".safetensors" or files.is_stream(output)):
        raise UsageError(f"{output}: name the weights file to write NAME.safetensors")
    if side.subject.kind == PREFIX:
        raise UsageError(
            f"{side.text}: a weights file describes networks of this project only: in Python, "
            "compressnet.fold(module) returns the folded one"
        )
    if not side.is_stored:
        raise UsageError(
            f"{side.text}: its weights are random: a file is made of a run, a weights file or zoo:NAME"
        )
    if json and files.is_stdout(output):
        raise UsageError(f"--json and -o {output}: both are written to stdout; choose one")
    _refuse_inside_run(output)
    files.refuse_to_overwrite(output, force)


def _refuse_inside_run(output: Path) -> None:
    """A run's own weights are no longer those of its training state, once they are replaced."""
    for folder in output.absolute().parents:
        if (folder / "run.json").is_file():
            raise UsageError(f"{output}: it is inside the run {folder.name}: name a file outside of it")


def _report(name: str, done: Folded, output: Path | None, json: bool) -> None:
    before, after = ({key: counted.total(key) for key in _COUNTED} for counted in (done.before, done.after))
    if json:
        console.print_json(
            {
                "name": name,
                "output": None if output is None else str(output),
                "folded": [list(paths) for paths in done.folding.groups],
                "before": before,
                "after": after,
                "difference": done.difference,
                "guess": done.is_guess,
                "checks": [checked._asdict() for checked in done.checks],
            }
        )
        return
    shapes = " + ".join("x".join(map(str, shape)) for shape in done.checks[0].inputs)
    rows = [[label, f"{before[key]:,}", f"{after[key]:,}"] for key, label in _COUNTED.items()]
    console.print_table(f"{name}, {shapes}", ["", "before", "after"], rows)
    groups = done.folding.groups
    count, (layer, first, *_) = sum(len(paths) - 1 for paths in groups), groups[0]
    console.print_text(f"modules folded away: {count} ({first} into {layer}{', ...' if count > 1 else ''})")
    console.print_text(
        f"outputs differ by {done.difference:.1e} of the largest value at most, on {len(done.checks)} inputs"
    )
    if done.is_guess:
        console.note(
            "note: its forward cannot be traced: what stands in an nn.Sequential was taken to follow each "
            "other in every call; compare the outputs on inputs of your own"
        )
    if output is not None:
        console.print_text(f"{output}: {after['parameters']:,} parameters")
    else:
        console.note("note: nothing is written without -o NAME.safetensors")
