"""Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) as a flag that the loop reads between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from compressnet.errors import Interrupted


class StopNow(KeyboardInterrupt):
    """What a signal raises where nothing is to be saved: no `except Exception` of a library swallows it."""


class StopFlag:
    """True once a signal asked to stop. A second one aborts at once.

    Attributes:
        is_read: whether a loop reads the flag, from the end of its first step on. Before (data is opened,
            targets are computed, workers start, the model is compiled) there is nothing to finish and
            nothing to save: a signal interrupts at once.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.is_read = False

    def __bool__(self) -> bool:
        return self.name is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        if not self.is_read:
            raise StopNow(f"{self.name}: stopped before the first step; nothing was lost")


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Catch SIGINT, SIGTERM and SIGHUP for a while (only the main thread may; elsewhere nothing is caught).

    Raises:
        Interrupted: in the place of `StopNow`.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, flag._handle) for number in numbers}
    try:
        yield flag
    except StopNow as error:
        raise Interrupted(str(error)) from None
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) == flag._handle:
                signal.signal(number, handler)
