"""Errors that a person can act on: one line each, with the exit code the command line returns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# What steers a terminal or turns its text around: C0, DEL, C1, ends of lines, bidirectional overrides.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CHOICE = re.compile(r" \(there are: [^()]*\)$")  # of `registry.suggestion`
_MOST = 15  # problems of one message


class CompressnetError(Exception):
    """An expected failure.

    Args:
        problems: one line each, that names the file, key or line, and the fix. Several are passed one by one,
            not as a text of several lines: control characters in them, which names and values from files may
            have, are escaped, ends of lines among them.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__(*map(escaped, problems))

    @property
    def problems(self) -> list[str]:
        """The lines of the message."""
        return [str(problem) for problem in self.args]

    def __str__(self) -> str:
        return "\n".join(self.problems)


class UsageError(CompressnetError):
    """A mistake in what was typed: a command line, a subject, a recipe. Exit code 2."""

    exit_code = 2


class RecipeError(UsageError):
    """Every mistake found in a recipe at once.

    Args:
        problems: one line each, with `file:line` or the override that is wrong. The message has the first of
            them, and a list of what could have been meant only once; `every` has all.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(*_told(problems))
        self.every = list(map(escaped, problems))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[list[str]]]:
        return RecipeError, (self.every,)


class NotFinite(CompressnetError):
    """A network or an operator gave numbers that are NaN or infinite; the message names the sample."""


class CutShort(CompressnetError):
    """An input broke off in the middle: what was made of the part before is there."""


class BadFiles(CompressnetError):
    """Files of a data set that cannot be read: one line each, so that all can be mended at once."""


class Interrupted(CompressnetError):
    """Ctrl-C or SIGTERM, after everything was saved. Exit code 130."""

    exit_code = 130


class CompressnetNote(UserWarning):
    """Something to know that is no failure: one line, raised with `warnings.warn` anywhere in the library."""


def _told(problems: list[str]) -> list[str]:
    told: set[str] = set()
    lines = []
    for problem in problems[:_MOST]:
        choice = _CHOICE.search(problem)
        lines.append(problem[: choice.start()] if choice and choice[0] in told else problem)
        told.add(choice[0] if choice else "")
    more = len(problems) - _MOST
    return [*lines, f"and {more} more"] if more > 0 else lines


def escaped(text: str) -> str:
    """`text` with its control characters, ends of lines among them, as Python writes them: `\\x1b`."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def short(text: str, most: int = 60) -> str:
    """A text of a file or a command line as a message repeats it: its beginning, if it is long."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shown(value: object) -> str:
    """A value as a message repeats it: as Python writes it (bools, None: YAML), cut if it is long."""
    words = {"True": "true", "False": "false", "None": "null"}
    return short(words.get(text := repr(value), text))


def named(name: object) -> str:
    """A name that a stranger may have chosen, as a message repeats it: escaped, and cut if it is long."""
    return short(escaped(str(name)[:1000]))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had: Python's, torch's on any device, the loader's."""
    words = ("allocate memory", "out of memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turn what torch raises into one line that names the side.

    Raises:
        CompressnetError: in the place of any error that is not ours.
    """
    try:
        yield
    except CompressnetError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if is_out_of_memory(error):
            raise CompressnetError(f"{name}: not enough memory for inputs of this size") from error
        raise CompressnetError(f"{name}: cannot be run: {type(error).__name__}: {reason}") from error
