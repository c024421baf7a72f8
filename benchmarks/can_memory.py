"""Peak memory of CAN on one large photograph: plain, in the fastest form, in strips, in strips with a file.

    python benchmarks/can_memory.py --size 4000x3000 --network can24

Each form runs in a process of its own; what counts is the peak of its memory above what the imports took,
the photograph and the result included. The results are compared with those of the plain form.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    arguments = parse()
    if arguments.form:
        sys.stdout.write(json.dumps(measure(arguments)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for form in ("plain", "fastest", "strips", f"max_memory={arguments.max_memory}"):
            command = [sys.executable, __file__, "--form", form, "--result", f"{folder}/{len(rows)}.npy"]
            command += ["--size", arguments.size, "--network", arguments.network]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append({"form": form, **json.loads(done.stdout)})
        first = np.load(f"{folder}/0.npy", mmap_mode="r")
        for number, row in enumerate(rows):
            row["max_difference"] = float(np.abs(np.load(f"{folder}/{number}.npy") - first).max())
    if arguments.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    sys.stdout.write(f"{arguments.network}, {arguments.size}\n")
    sys.stdout.write(f"{'form':20} {'seconds':>8} {'peak MB':>8} {'max difference':>15}\n")
    for row in rows:
        sys.stdout.write(
            f"{row['form']:20} {row['seconds']:8.1f} {row['peak_mb']:8.0f} {row['max_difference']:15.1e}\n"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="4000x3000", help="width x height")
    parser.add_argument("--network", default="can24", choices=["can24", "can32"])
    parser.add_argument("--max-memory", type=int, default=400, help="MB for the last form")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """In the child: one form on one photograph."""
    import torch

    from compressnet.data.images import Image
    from compressnet.kernels import can_layer
    from compressnet.models import can
    from compressnet.reporter import Silent
    from compressnet.tasks.image_apply import Applier, Options

    torch.manual_seed(0)
    net = getattr(can, arguments.network)(last_layer="identity").eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("conv.weight"):
                parameter.add_(0.02 * torch.randn_like(parameter))
            elif name.endswith("w1"):
                parameter.fill_(0.05)
    with torch.inference_mode():
        net(torch.rand(1, 3, 16, 16))  # what the libraries take when first used is theirs
    before = memory("VmRSS")
    image = Image(photograph(*map(int, arguments.size.split("x"))))
    start = time.perf_counter()
    if arguments.form == "plain":
        with torch.inference_mode():
            y = net(torch.from_numpy(image.pixels).permute(2, 0, 1)[None])[0]
            pixels = y.clamp_(0, 1).permute(1, 2, 0).numpy()
    else:
        limit = int(arguments.form.split("=")[1]) if "=" in arguments.form else None
        with can_layer.reference() if arguments.form == "strips" else nullcontext():
            pixels = Applier(net, Options(max_memory=limit), Silent())(image).pixels
    seconds = time.perf_counter() - start
    peak = (memory("VmHWM") - before) / 1e6
    np.save(arguments.result, pixels)
    return {"seconds": seconds, "peak_mb": peak}


def photograph(width: int, height: int) -> np.ndarray:
    """A built-in photograph, mirrored until it fills the size: float32 (H, W, 3) in [0, 1]."""
    from skimage import data

    piece = data.coffee()
    rows, columns = (
        mirrored(count, length) for count, length in zip((height, width), piece.shape, strict=False)
    )
    return piece[rows[:, None], columns].astype(np.float32) / 255


def mirrored(count: int, length: int) -> np.ndarray:
    """Indices 0, 1, ... length - 1, length - 1, ... 0, 0, 1, ..."""
    there_and_back = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    return np.resize(there_and_back, count)


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
