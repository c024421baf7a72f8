"""Errors that a person can act on: one line each, with the exit code the command line returns."""

from __future__ import annotations


class CompressnetError(Exception):
    """An expected failure.

    Args:
        problems: one line each, that names the file, key or line, and the fix. Several are passed one by one,
            not as a text of several lines: the name of a file may hold a line break.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)

    @property
    def problems(self) -> list[str]:
        return [str(problem) for problem in self.args]

    def __str__(self) -> str:
        return "\n".join(self.problems)


class UsageError(CompressnetError):
    """A mistake in what was typed: a command line, a subject, a recipe. Exit code 2."""

    exit_code = 2


class RecipeError(UsageError):
    """Every mistake found in a recipe at once.

    Args:
        problems: one line each, with `file:line` or the override that is wrong.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(*problems)

    def __reduce__(self) -> tuple[type[RecipeError], tuple[list[str]]]:
        return RecipeError, (self.problems,)


class Interrupted(CompressnetError):
    """Ctrl-C or SIGTERM, after everything was saved. Exit code 130."""

    exit_code = 130


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had: Python's, torch's on any device, the loader's."""
    words = ("allocate memory", "out of memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
