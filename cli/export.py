"""`compressnet export`: a network as an ONNX file, for runtimes without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compressnet.errors import UsageError

from . import console, options

if TYPE_CHECKING:
    from compressnet.export import Exported

_DEFAULT_OPSET = 18


def export(
    subject: Annotated[
        str,
        typer.Argument(
            help="A run, a weights file or zoo:NAME; a model, layer, recipe or py:FILE.py:NAME is "
            "exported with the weights it is made with.",
            autocompletion=options.complete_subject,
        ),
    ],
    output: options.Output = None,
    set_: options.Overrides = None,
    inputs: options.Inputs = None,
    opset: Annotated[
        int, typer.Option(metavar="N", help="Version of the ONNX operators, 18 to 23; most runtimes read 18.")
    ] = _DEFAULT_OPSET,
    state: Annotated[
        bool,
        typer.Option(
            "--state",
            help="For streams: inputs state_0, state_1, ... and outputs next_state_0, ... are added.",
        ),
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write a network as an ONNX file, checked against torch in ONNX Runtime.

    Batch, height and width, or batch and time, are open: the file takes any size. It holds the network
    in float32, and not what `apply` does around it. Recurrent layers are exported without lengths; without
    --state they start from zero and return no state. Needs the extra `export`.

    Example: compressnet export zoo:rof -o rof.onnx
    """
    if output is None:
        raise UsageError("name the file to write: -o NAME.onnx")
    from compressnet.export import export as write_onnx

    done = write_onnx(
        subject,
        output,
        settings=options.parse_settings(set_),
        inputs=inputs or (),
        opset=opset,
        state=state,
        force=force,
        reporter=console.Screen(),
    )
    if json:
        console.print_json(done.as_dict())
    else:
        _show(done)
    options.note_assumed(done.name, done.assumed)
    if done.weights == "random":
        console.note(
            f"note: {done.name}: its weights are random; those of a run, a weights file or zoo:NAME are not"
        )


def _show(done: Exported) -> None:
    console.print_text(
        f"{done.output}: {done.name}, {done.parameters:,} parameters, opset {done.opset}, "
        f"{console.short(done.bytes, 'B')}"
    )
    for kind in ("inputs", "outputs"):
        for port in getattr(done, kind):
            shape = ", ".join(map(str, port.shape))
            console.print_text(f"  {kind[:-1]:6}  {port.name}  {port.dtype} ({shape})")
    if done.values:
        console.print_text(f"  {done.values}")
    console.print_text(
        f"  checked: ONNX Runtime {done.runtime} differs from torch by {done.difference:.1e} of the largest "
        f"value at most, at {len(done.checks) - 1} sizes besides the exported one"
    )
