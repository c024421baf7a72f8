"""`compressnet data`: look at data before training on it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated

import typer

from compressnet.errors import CompressnetError

from . import console, options

if TYPE_CHECKING:
    from compressnet.recipe import Component

app = typer.Typer(help="Check data sets; get the built-in samples.", no_args_is_help=True)


@app.command("check")
def check(
    source: Annotated[
        str,
        typer.Argument(metavar="RECIPE|NAME:KEY=VALUE,...", help="A recipe, or a data set with arguments."),
    ],
    data_root: options.DataRoot = None,
    json: options.Json = False,
) -> None:
    """Check the data of a recipe: counts, missing pairs, unreadable files, all listed.

    Example: compressnet data check photo_folder:root=photos
    """
    from compressnet.data.protocol import NoSuchSplit

    component = _component(source)
    data_set = component.build()
    problems = data_set.check()
    counts = {}
    for split in ("train", "val", "test") if not problems else ():
        try:
            counts[split] = _count(data_set, split)
        except (NoSuchSplit, CompressnetError) as error:
            counts[split] = f"none: {error}"
    if json:
        console.print_json({"data": component.to_dict(), "splits": counts, "problems": problems})
        if problems:
            raise typer.Exit(1)
        return
    if problems:
        raise CompressnetError("\n".join(problems))
    console.print_table(component.name, ["split", "samples"], counts.items())


@app.command("samples")
def samples(output: options.Output = None, force: options.Force = False, json: options.Json = False) -> None:
    """List the built-in photographs with their rights, or copy them with -o.

    Example: compressnet data samples -o photos
    """
    from compressnet.data import sample

    written = []
    for split in ("train", "test"):
        for photograph in sample.photographs(split):
            if output is not None:
                target = output / photograph.path.name
                if target.exists() and not force:
                    raise CompressnetError(f"{target} exists: add --force to overwrite it")
                output.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(photograph.path, target)
                written.append(str(target))
    if json:
        console.print_json({"credits": sample.credits(), "files": written})
        return
    for line in written or sample.credits():
        console.print_text(line)


def _component(source: str) -> Component:
    from compressnet import registry
    from compressnet.recipe import Component, Recipe
    from compressnet.signature import split_arguments
    from compressnet.subject import parse

    name, _, arguments = source.partition(":")
    if name in registry.DATASETS:
        return Component(kind="data", name=name, arguments=split_arguments(arguments))
    subject = parse(source)
    if subject.kind == "recipe" and subject.path:
        return Recipe.load(subject.path).data
    if subject.kind == "run" and subject.path:
        from compressnet.run import Run

        return Run.open(subject.path).recipe.data
    from compressnet.errors import UsageError

    raise UsageError(
        f"'{source}' is neither a data set nor a recipe{registry.suggestion(name, registry.DATASETS)}"
    )


def _count(data_set: object, split: str) -> int:
    photographs = getattr(data_set, "photographs", None)
    if photographs is not None:
        return len(photographs(split))
    return len(data_set.open(split, {}, 0))  # type: ignore[attr-defined]
