"""`python -m compressnet_cli`: the same program, as torchrun starts it."""

from __future__ import annotations

import os
import sys

from .main import main

code = main()
if "RANK" in os.environ:
    # One of several processes: torch's communication threads were seen to abort while the interpreter ends,
    # after everything is written; torchrun takes that for a failed training.
    os._exit(code)
sys.exit(code)
