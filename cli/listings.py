"""`compressnet models|layers|operators|zoo ls`, `compressnet operators|zoo show` and `--version`."""

from __future__ import annotations

import inspect
from itertools import starmap
from typing import Annotated

import typer

from compressnet.errors import UsageError

from . import console, options

models = typer.Typer(help="The networks that recipes can name.", no_args_is_help=True)
layers = typer.Typer(help="The layers that can be counted and timed by themselves.", no_args_is_help=True)
operators = typer.Typer(help="The classical image operators.", no_args_is_help=True)
zoo = typer.Typer(help="Trained networks that ship with compressnet.", no_args_is_help=True)


@models.command("ls")
def list_models(json: options.Json = False) -> None:
    """List the networks with their arguments and defaults.

    Example: compressnet models ls
    """
    _list("model", json)


@layers.command("ls")
def list_layers(json: options.Json = False) -> None:
    """List the layers with their arguments and defaults.

    Example: compressnet layers ls
    """
    _list("layer", json)


@operators.command("ls")
def list_operators(json: options.Json = False) -> None:
    """List the operators with their arguments and defaults.

    Example: compressnet operators ls
    """
    _list("operator", json)


@operators.command("show")
def show_operator(
    operator: Annotated[str, typer.Argument(help="The name of an operator.")], json: options.Json = False
) -> None:
    """Show an operator: its paper, its keys with their ranges and defaults, and an example.

    It also says whether its settings are those of the authors of fast image processing, as far as their
    released networks can tell.

    Example: compressnet operators show dark_channel
    """
    from compressnet.operators.described import CONFIRMED, described
    from compressnet.subject import parse

    subject = parse(f"operator:{operator.removeprefix('operator:')}", ("operator",))
    if subject.arguments:
        raise UsageError(f"{operator}: give the name alone, {subject.name}")
    found = described(subject.name)
    if json:
        console.print_json({**found._asdict(), "confirmed": not found.unconfirmed})
        return
    console.print_text("\n".join([f"{found.name}: {found.about}", *found.notes]))
    console.print_text(f"source: {found.source}")
    state = f"not confirmed: {found.unconfirmed}" if found.unconfirmed else f"confirmed: {CONFIRMED}"
    console.print_text(f"settings {state}")
    options.print_keys(options.keys_of_operator(found.name), found.keys)
    console.print_text(f"example: {found.example}")


@zoo.command("ls")
def list_zoo(json: options.Json = False) -> None:
    """List the trained networks with their results.

    Example: compressnet zoo ls
    """
    from compressnet.subject import names, zoo_card

    cards = {name: zoo_card(name) for name in names("zoo")}
    if json:
        console.print_json(cards)
        return
    rows = [[f"zoo:{name}", card["about"], card["result"]] for name, card in cards.items()]
    console.print_table("", ["network", "about", "result"], rows, numeric=3)


@zoo.command("show")
def show_network(
    network: Annotated[str, typer.Argument(help="The name of a network of the zoo.")],
    json: options.Json = False,
) -> None:
    """Show a trained network: what it does, how well, what it learned from, and an example.

    Example: compressnet zoo show rtv
    """
    from compressnet.report.figures import duration
    from compressnet.subject import parse, zoo_card

    subject = parse(f"zoo:{network.removeprefix('zoo:')}", ("zoo",))
    card = zoo_card(subject.name)
    if json:
        console.print_json(card)
        return
    training = card["training"]
    began = f", from the weights of {training['parent']['run']}" if training.get("parent") else ""
    lines = [
        f"zoo:{subject.name}: {card['about']}",
        f"result: {card['result']}",
        f"network: {card['model']}, {card['parameters']:,} parameters",
        f"learned from: {card['data']}",
        f"trained: {training['step']:,} steps in {duration(training['train_seconds'])}, {training['device']}"
        + began,
        f"command: {training['command']}",
        *(f"went on with: {command}" for command in training["resumed_with"]),
        f"licence: {card['licence']}",
        f"example: {card['example']}",
    ]
    console.print_text("\n".join(lines))


def _list(kind: str, json: bool) -> None:
    from compressnet import registry, signature

    found = {name: registry.find(kind, name) for name in sorted(registry.REGISTRIES[kind])}
    known = {name: signature.parameters(target) for name, target in found.items()}
    required = {name: [key for key, p in keys.items() if p.required] for name, keys in known.items()}
    arguments = {
        name: {key: p.default for key, p in keys.items() if not p.required and not p.derived}
        for name, keys in known.items()
    }
    about = {name: (inspect.getdoc(target) or "").splitlines()[0] for name, target in found.items()}
    if json:
        console.print_json(
            {
                name: {"about": about[name], "required": required[name], "arguments": arguments[name]}
                for name in found
            }
        )
        return
    rows = [
        [
            name,
            about[name],
            ", ".join([*required[name], *starmap(_argument, arguments[name].items())]),
        ]
        for name in found
    ]
    console.print_table("", [kind, "about", "arguments"], rows, numeric=3)


def _argument(key: str, default: object) -> str:
    return f"{key}={'null' if default is None else options.written(default)}"


def print_version(asked: bool) -> None:
    """`--version`: ours, torch's, and what they can run on."""
    if not asked:
        return
    from importlib.metadata import version

    import torch

    from compressnet.kernels.library import NONE_BUILT, built
    from compressnet.training import device as devices

    chosen = devices.choose("auto")
    console.print_text(f"compressnet {version('compressnet')}")
    console.print_text(f"torch {torch.__version__}")
    console.print_text(f"device {devices.name(chosen)} ({chosen})")
    console.print_text(f"kernels {', '.join(built()) or NONE_BUILT}")
    raise typer.Exit
