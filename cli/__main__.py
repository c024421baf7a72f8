"""`python -m compressnet_cli`: the same program, as torchrun starts it."""

from __future__ import annotations

import sys

from .main import main

sys.exit(main())
