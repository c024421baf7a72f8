"""`compressnet import`: other people's weights as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from compressnet.errors import UsageError

from . import console, options


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="A TensorFlow checkpoint (its folder, prefix or .index file) or an .npz of arrays."
        ),
    ],
    output: options.Output = None,
    operator: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="The operator it imitates, for `eval`, e.g. l0.")
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Turn the authors' released networks into a weights file. Needs no TensorFlow.

    Example: compressnet import CAN24_AN/L0_smoothing -o l0_released.safetensors
    """
    from compressnet import files, weights
    from compressnet.models.can import CAN
    from compressnet.models.can_released import released_kind
    from compressnet.signature import Named, check_named
    from compressnet.tf_bundle import read_arrays

    if output is None or not (output.suffix == ".safetensors" or files.is_stream(output)):
        raise UsageError("name the weights file to write: -o NAME.safetensors")
    files.refuse_to_overwrite(output, force)
    if operator and (problems := check_named(Named("operator"), operator)):
        raise UsageError(f"--operator {operator}: {problems[0]}")
    arrays = read_arrays(source)
    name, arguments = released_kind(arrays)
    network = CAN.from_released(arrays)
    architecture = weights.Architecture(
        task="image_operator" if operator else "image_translation",
        task_args={"operator": operator} if operator else {},
        model=name,
        model_args=arguments,
        assets={"operator": operator} if operator else {},
        data={"name": "released"},
    )
    weights.save(output, network, architecture)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if json:
        console.print_json(
            {"output": str(output), "model": name, "arguments": arguments, "parameters": parameters}
        )
    else:
        console.print_text(f"{output}: {name}, {parameters:,} parameters")
