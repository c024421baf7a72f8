"""The one place where a device is chosen and where seeds are set."""

from __future__ import annotations

import os
import platform

import torch

from compressnet.errors import CompressnetError, UsageError
from compressnet.processor import cpuinfo


def choose(text: str, local_rank: int = 0) -> torch.device:
    """The device that `--device` asks for.

    Args:
        text: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        local_rank: which of the machine's GPUs `auto` and `cuda` take.

    Raises:
        UsageError: not a device's name.
        CompressnetError: the GPU is not there.
    """
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = text.partition(":")
    if text != "cpu" and (kind != "cuda" or text.endswith(":") or (number and not number.isdigit())):
        raise UsageError(f"--device {text}: write auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    index = int(number) if number else local_rank
    if number and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise UsageError(f"--device {text}: with several processes write --device cuda, one GPU each")
    if not torch.cuda.is_available():
        raise CompressnetError(f"--device {text}: torch {torch.__version__} finds no GPU; use --device cpu")
    if index >= torch.cuda.device_count():
        there = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise CompressnetError(f"--device {text}: there is no GPU {index} (there are: {there})")
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, in convolutions too
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def name(device: torch.device) -> str:
    """What the device is: the GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = cpuinfo().get("model name") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{processor}, {threads} thread{'s' if threads > 1 else ''}"


def seed_everything(seed: int) -> None:
    """Set torch's random state on every device. Data sets draw from (seed, key) and need no state."""
    torch.manual_seed(seed)


def make_deterministic() -> None:
    """Refuse operations whose result differs from run to run (`train.deterministic`)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
