"""Whether there is the GPU that was asked for, seen by a process of its own: this one needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys

_ASK = """import json, torch
print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.device_count()]))"""
_SECONDS = 120.0


def lacking(device: str) -> str:
    """What is missing for a device, in a few words; "": nothing, or only the checks can tell.

    Args:
        device: "cpu", "cuda" or "cuda:N".
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return ""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        version, cuda, count = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        return ""
    if cuda is None:
        return f"torch {version} is built without CUDA"
    if not count:
        return f"torch {version} finds no GPU"
    if number.isdecimal() and int(number) >= count:
        return f"the last GPU here is cuda:{count - 1}"
    return ""
