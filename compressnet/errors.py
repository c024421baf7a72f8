"""Errors that a person can act on: one line each, with the exit code the command line returns."""

from __future__ import annotations


class CompressnetError(Exception):
    """An expected failure. The message is one line that names the file, key or line, and the fix."""

    exit_code = 1


class UsageError(CompressnetError):
    """A mistake in what was typed: a command line, a subject, a recipe. Exit code 2."""

    exit_code = 2


class RecipeError(UsageError):
    """Every mistake found in a recipe at once.

    Args:
        problems: one line each, with `file:line` or the override that is wrong.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class BadFiles(CompressnetError):
    """Files of a data set that cannot be read: one line each, so that all can be mended at once."""


class Interrupted(CompressnetError):
    """Ctrl-C or SIGTERM, after everything was saved. Exit code 130."""

    exit_code = 130
