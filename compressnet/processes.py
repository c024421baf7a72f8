"""The processes that we start: a signal to the whole group, as Ctrl-C is, concerns the parent alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_ASKS_TO_END = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_held() -> Iterator[None]:
    """Start processes within this: a signal waits until they are started, and theirs until `ignore_signals`.

    Half a start would leave a process that complains about it, and a signal while it imports a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKS_TO_END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals(*numbers: signal.Signals) -> None:
    """Called first in a process that was started with signals held: ignore these, take the others again."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKS_TO_END)
