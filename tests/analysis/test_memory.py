"""Peak memory against passes whose need is known."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compressnet.analysis.memory import CHILD_ENVIRONMENT

SCRIPT = """
import torch
from compressnet.analysis.memory import peak_bytes
x = torch.rand(4 << 20)  # 16 MiB
def form():
    kept = [x + 1 for _ in range({copies})]
    del kept
    return x + 1
print(peak_bytes(form, torch.device("cpu")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="only Linux tells the peak")
@pytest.mark.parametrize("copies", [1, 4])
def test_the_peak_is_what_is_alive_at_once(copies: int) -> None:
    environment = {**os.environ, **CHILD_ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(copies=copies)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = copies * (16 << 20)
    assert abs(int(done.stdout) - expected) < 2 << 20
