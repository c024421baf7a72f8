"""`compressnet recipes`: list, copy, show and validate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from compressnet.errors import RecipeError

from . import console, options

app = typer.Typer(help="The recipes that ship with compressnet, and yours.", no_args_is_help=True)


@app.command("ls")
def list_recipes(json: options.Json = False) -> None:
    """List the shipped recipes.

    Example: compressnet recipes ls
    """
    from compressnet.subject import names, recipe_path

    rows = [(name, _first_line(recipe_path(name))) for name in names("recipe")]
    if json:
        console.print_json([{"name": name, "about": about} for name, about in rows])
    else:
        console.print_table("", ["recipe", "about"], rows, numeric=2)


@app.command("show")
def show(recipe: Annotated[str, typer.Argument(help="A name or file.")], json: options.Json = False) -> None:
    """Print a recipe: the file itself or, as JSON, what it resolves to.

    Example: compressnet recipes show fip_sample
    """
    from compressnet.recipe import Recipe

    path = _find(recipe)
    if json:
        console.print_json(Recipe.load(path).to_dict())
    else:
        console.print_text(path.read_text(encoding="utf-8").rstrip())


@app.command("cp")
def copy(
    recipe: Annotated[str, typer.Argument(help="The name of a shipped recipe.")],
    target: Annotated[Optional[Path], typer.Argument(help="File or folder (default: here).")] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Copy a recipe to change it.

    Example: compressnet recipes cp fip_fivek mine.yaml
    """
    from compressnet import files

    source = _find(recipe)
    target = target or Path()
    target = target / source.name if os.path.isdir(target) else target
    files.refuse_to_overwrite(target, force)
    files.write_text(target, source.read_text(encoding="utf-8"), replace=force)
    if json:
        console.print_json({"recipe": str(source), "output": str(target)})
    elif not files.is_stream(target):
        console.print_path(target)


@app.command("validate")
def validate(
    recipes: Annotated[list[str], typer.Argument(help="Names or files.")],
    set_: options.Overrides = None,
    json: options.Json = False,
) -> None:
    """Check recipes and list every mistake with its line. Reads no data.

    Example: compressnet recipes validate mine.yaml --set train.lr=1e-4
    """
    from compressnet.recipe import Recipe

    problems: list[str] = []
    rows: list[tuple[str, list[str]]] = []
    for text in recipes:
        path = _find(text)
        try:
            Recipe.load(path, set_ or [])
            if Recipe.load(path).smoke is not None:
                Recipe.load(path, set_ or [], smoke=True)
            rows.append((str(path), []))
        except RecipeError as error:
            problems += error.every
            rows.append((str(path), error.every))
    if json:
        console.print_json([{"recipe": name, "valid": not wrong, "problems": wrong} for name, wrong in rows])
        if problems:
            raise typer.Exit(2)
        return
    for name, wrong in rows:
        if not wrong:
            console.print_text(f"{name}: valid")
    if problems:
        raise RecipeError(problems)


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of recipes, for editors.

    Example: compressnet recipes schema > schema.json
    """
    from compressnet.recipe_schema import schema_text

    console.print_text(schema_text().rstrip())


def _find(text: str) -> Path:
    from compressnet.errors import UsageError
    from compressnet.subject import parse

    subject = parse(text, ("recipe",))
    if subject.kind != "recipe" or subject.path is None:
        raise UsageError(f"'{text}' is of kind {subject.kind}, not a recipe")
    return subject.path


def _first_line(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and "yaml-language-server" not in line:
            return line.removeprefix("# ")
    return ""
