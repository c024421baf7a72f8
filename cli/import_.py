"""`compressnet import`: other people's weights as ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from compressnet.errors import CompressnetError, UsageError

from . import console, options

if TYPE_CHECKING:
    from torch import nn

    from compressnet.weights import Architecture


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="A TensorFlow checkpoint (its folder, prefix or .index file), an .npz of arrays, or a "
            "weights file that was edited or is of an older format."
        ),
    ],
    output: options.Output = None,
    operator: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME", help="The operator that the network imitates, e.g. l0; `eval` needs it."
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Make a weights file from the authors' released networks (without TensorFlow), from a weights file that
    was edited, which all other commands refuse, or from one of version 0.1.

    Example: compressnet import CAN24_AN/L0_smoothing -o l0_released.safetensors

    Example: compressnet import edited.safetensors -o new.safetensors
    """
    from compressnet import files, weights

    if output is None or not (output.suffix == ".safetensors" or files.is_stream(output)):
        raise UsageError("name the weights file to write: -o NAME.safetensors")
    files.refuse_to_overwrite(output, force)
    if (source / "run.json").is_file():
        raise UsageError(
            f"{source} is a run: name the weights file, {source}/checkpoints/step-.../model.safetensors"
        )
    if source.suffix == ".safetensors":
        if operator:
            raise UsageError("--operator: a weights file says itself what it imitates")
        architecture, network = _weights(source)
    else:
        architecture, network = _released(source, operator)
    weights.save(output, network, architecture, replace=force)
    _report(output, architecture, network, json)


def _weights(source: Path) -> tuple[Architecture, nn.Module]:
    """A weights file of ours whose values or description may have been changed: whatever they are now."""
    from compressnet import weights
    from compressnet.subject import task_of

    architecture, network = weights.open_model(source, unchanged=False)
    task_of(architecture, str(source))
    return architecture, network


def _released(source: Path, operator: str | None) -> tuple[Architecture, nn.Module]:
    """The network of the authors of fast image processing that these arrays are."""
    from compressnet import weights
    from compressnet.models.can import CAN
    from compressnet.models.can_released import released_kind
    from compressnet.signature import Named, check_named
    from compressnet.tf_bundle import read_arrays

    if operator and (problems := check_named(Named("operator"), operator)):
        raise UsageError(f"--operator {operator}: {problems[0]}")
    arrays = read_arrays(source)
    try:
        name, arguments = released_kind(arrays)
        network = CAN.from_released(arrays)
    except CompressnetError as error:
        raise CompressnetError(f"{source}: {error}") from error
    task, task_args = _task_of(arguments, operator)
    architecture = weights.Architecture(
        task=task,
        task_args=task_args,
        model=name,
        model_args=arguments,
        assets=task_args,
        data={"name": "released"},
    )
    return architecture, network


def _task_of(arguments: Mapping[str, Any], operator: str | None) -> tuple[str, dict[str, Any]]:
    """What a released network does, by the planes that it takes, and the arguments of that task."""
    from compressnet.models.can_released import DIAL, OPERATORS

    planes = arguments.get("conditions", 0)
    if not planes:
        told = {"operator": operator} if operator else {}
        return ("image_operator" if operator else "image_translation"), told
    if operator:
        does = "ten operators" if planes > 1 else "L0 smoothing of any strength"
        raise UsageError(f"--operator: this network does {does}, which `apply --set` chooses")
    if planes == 1:
        return "conditioned_operator", {"operators": ["l0"], "dial": dict(DIAL)}
    return "conditioned_operator", {"operators": list(OPERATORS)}


def _report(output: Path, architecture: Architecture, network: nn.Module, json: bool) -> None:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if json:
        console.print_json(
            {
                "output": str(output),
                "model": architecture.model,
                "arguments": architecture.model_args,
                "parameters": parameters,
            }
        )
    else:
        console.print_text(f"{output}: {architecture.model}, {parameters:,} parameters")
