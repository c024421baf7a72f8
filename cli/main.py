"""The `compressnet` program: its commands, and how errors are told."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from compressnet.errors import CompressnetError, is_out_of_memory

from . import (
    data,
    evaluate,
    export,
    fold,
    import_,
    listings,
    recipes,
    report,
    results,
    runs,
    streams,
    train,
)
from .apply.command import apply
from .bench.command import bench
from .compress.command import compress
from .console import fail, show_traceback, warn
from .count.command import count_params

_LESS_MEMORY = {
    "apply": "give --max-memory MB (of photographs), or smaller inputs",
    "bench": "give a smaller --batch, --input-size or --seq-len",
    "compress": "give a smaller --calibration, --batch or --input-size",
    "count-params": "give a smaller --batch, --input-size or --seq-len",
    "eval": "set a smaller eval.batch in the run's recipe.yaml, or evaluate on smaller inputs",
    "export": "export a smaller network",
    "fold": "fold a smaller network",
    "import": "the file holds more than fits here",
    "train": "take a smaller train.batch, or more pieces of it: --set train.accumulate=2",
}

_MAY_BE_EMPTY = ("--prompt",)

app = typer.Typer(
    name="compressnet",
    help="Compact neural networks: train, evaluate and apply the systems that made networks small.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("apply")(apply)
app.command("count-params")(count_params)
app.command("bench")(bench)
app.command("export")(export.export)
app.command("compress")(compress)
app.command("fold")(fold.fold)
app.command("import")(import_.import_)
app.command("report")(report.report)
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
    if arguments is not None:
        return _whole(list(arguments))
    if "--debug" not in sys.argv:
        # What destructors say of objects that an error or a signal left half-made (torch's loaders do).
        sys.unraisablehook = _say_nothing
    code = _whole(sys.argv[1:])
    # Taking torch apart costs as much as a short command, and under torchrun its threads were seen to abort.
    atexit._run_exitfuncs()
    os._exit(code)


def _whole(words: list[str]) -> int:
    """Run a command between opening and flushing the streams; its exit code."""
    streams.open_all()
    try:
        os.getcwd()
    except OSError:  # oneMKL, within torch, would end the process with a line of its own
        fail("the working folder has gone: change to one that is there")
        return 1
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of processes that we start: nobody sees who warns
    with warnings.catch_warnings():
        warnings.showwarning = warn
        code = _run([word for word in words if word != "--debug"], debug="--debug" in words)
    if (error := streams.flush()) is not None:
        if not isinstance(error, BrokenPipeError):  # `| head` has seen enough
            fail(f"cannot write to stdout: {getattr(error, 'strerror', None) or error}")
        streams.flush()
        return code or 1
    return code


def _say_nothing(_: sys.UnraisableHookArgs) -> None:
    pass


def _run(words: list[str], debug: bool) -> int:
    """The exit code of a command; its error is told."""
    before = [None, *words]
    if any(word == "" and flag not in _MAY_BE_EMPTY for flag, word in zip(before, words, strict=False)):
        fail("an argument is empty: a variable of the shell that is not set?")
        return 2
    try:
        code = app(words, prog_name="compressnet", standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        fail("aborted")
        return 130
    except Exception as error:
        if debug and not hasattr(error, "format_message"):
            show_traceback()
        return _tell(error, words)
    return code if isinstance(code, int) else 0


def _tell(error: Exception, words: list[str]) -> int:
    """Say what went wrong; returns the exit code."""
    if isinstance(error, CompressnetError):
        fail(*error.problems)
        return error.exit_code
    if hasattr(error, "format_message"):  # Typer's own: what was typed is wrong
        return _usage_error(error)
    if isinstance(error, typer.Abort):
        fail("aborted")
        return 130
    if is_out_of_memory(error):
        command = next((word for word in words if not word.startswith("-")), "")
        fail(f"out of memory: {_LESS_MEMORY.get(command, 'this takes more than is free')}")
    elif isinstance(error, BrokenPipeError):
        streams.lose("stdout", error)
    elif isinstance(error, OSError):
        fail(_of_the_system(error))
    else:
        fail(f"unexpected {type(error).__name__}: {error} (this is a bug; --debug shows where)")
    return 1


def _of_the_system(error: OSError) -> str:
    """A folder without permission, a disk that fails: nothing that a program could have known."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        name = error.filename
        return f"{os.fsdecode(name) if isinstance(name, str | bytes) else name}: {reason}"
    try:
        os.getcwd()
    except OSError:
        return f"the working folder has gone: {reason}"
    return reason


def _usage_error(error: Any) -> int:
    message = " ".join(error.format_message().split())
    if not message or "NoArgsIsHelp" in type(error).__name__:
        error.show()  # a group without a command: its help
    else:
        where = error.ctx.command_path if getattr(error, "ctx", None) else "compressnet"
        fail(f"{message} (see: {where} --help)")
    return int(error.exit_code)
