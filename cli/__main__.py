"""The program's start, also as `python -m compressnet_cli`, which is how torchrun starts it.

Until the modules are imported, Ctrl-C ends the process without a word: there is nothing to say yet.
"""

from __future__ import annotations

import signal
import sys


def start() -> None:
    """Run the program and end the process."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .main import main

    signal.signal(signal.SIGINT, before)
    sys.exit(main())


if __name__ == "__main__":
    start()
