"""`python -m compressnet_cli`: the same program, as torchrun starts it."""

from __future__ import annotations

from .main import main

main()
