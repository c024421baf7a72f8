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
def form(copies):
    kept = [x + 1 for _ in range(copies)]
    del kept
    return x + 1
for copies in (1, 4):
    print(peak_bytes(lambda: form(copies), torch.device("cpu")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="only Linux tells the peak")
def test_the_peak_is_what_is_alive_at_once() -> None:
    environment = {**os.environ, **CHILD_ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for copies, peak in zip((1, 4), done.stdout.splitlines(), strict=True):
        assert abs(int(peak) - copies * (16 << 20)) < 2 << 20
