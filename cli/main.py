"""The `compressnet` program: its commands, and how errors are told."""

from __future__ import annotations

import io
import sys
import traceback
from typing import Annotated, Any

import typer

from compressnet.errors import CompressnetError

from . import (
    apply,
    bench,
    count_params,
    data,
    evaluate,
    export,
    import_,
    listings,
    recipes,
    results,
    runs,
    train,
)
from .console import fail

app = typer.Typer(
    name="compressnet",
    help="Compact neural networks: train, evaluate and apply the systems that made networks small.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("apply")(apply.apply)
app.command("count-params")(count_params.count_params)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.command("import")(import_.import_)
app.command("results")(results.results)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.add_typer(listings.models, name="models")
app.add_typer(listings.layers, name="layers")
app.add_typer(listings.operators, name="operators")
app.add_typer(listings.zoo, name="zoo")


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=listings.print_version, is_eager=True, help="Show versions.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: default: those of the process.

    Returns:
        0, 1 for an error told in one line, 2 for a mistake in what was typed, 130 when interrupted.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 shows '?', and no traceback
            stream.reconfigure(errors="replace")
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = app(words, prog_name="compressnet", standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except CompressnetError as error:
        if debug:
            traceback.print_exc()
        fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        fail("aborted")
        return 130
    except BrokenPipeError:  # the reader of our output went away: `| head`
        sys.stderr.close()
        return 1
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own: what was typed is wrong
            return _usage_error(error)
        if isinstance(error, typer.Abort):
            fail("aborted")
            return 130
        if debug:
            traceback.print_exc()
        fail(f"unexpected {type(error).__name__}: {error} (this is a bug; --debug shows where)")
        return 1
    return code if isinstance(code, int) else 0


def _usage_error(error: Any) -> int:
    if not error.format_message() or "NoArgsIsHelp" in type(error).__name__:
        error.show()  # a group without a command: its help
    else:
        where = error.ctx.command_path if getattr(error, "ctx", None) else "compressnet"
        fail(f"{error.format_message()} (see: {where} --help)")
    return int(error.exit_code)
