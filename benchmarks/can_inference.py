"""Ways to run CAN on one photograph, interleaved: plain, strips, compiled, onnxruntime; float32, bfloat16.

    python benchmarks/can_inference.py --network can32 --size 1920x1080 --rounds 8 --threads 1

Prints how many times as fast as the plain form each is (midmean of rounds, 95 % interval), how far its
result is from it, and how near it comes to what a large matrix product reaches here. `strips` is what
`compressnet apply` does on the CPU.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compressnet.analysis import machine
from compressnet.analysis.rounds import Effort
from compressnet.analysis.timing import Comparison, compare, peak_gflops, warnings
from compressnet.export.backend import InOnnxRuntime
from compressnet.models import can
from compressnet.models.can_strips import forward_in_strips, in_bfloat16

Form = Callable[[], Tensor]


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    width, height = map(int, arguments.size.split("x"))
    before = matrix_products(arguments.device)
    net = trained(arguments.network, arguments.device)
    x = torch.rand(1, 3, height, width).to(arguments.device)
    with torch.inference_mode():
        forms = ways(net, x)
        if arguments.only:
            forms = {
                name: form for name, form in forms.items() if name in ("plain", *arguments.only.split(","))
            }
        reference = forms["plain"]().float()
        errors = {name: float((form().float() - reference).abs().max()) for name, form in forms.items()}
        result = compare(forms, Effort(rounds=arguments.rounds), arguments.device)
    peaks = {name: max(before[name], after) for name, after in matrix_products(arguments.device).items()}
    macs = height * width * sum(p.numel() for p in net.parameters() if p.ndim == 4)
    facts = machine.facts(arguments.device)
    report = table(result, facts, errors, peaks, macs)
    if arguments.json:
        document = {
            **result.as_dict(),
            "machine": facts.as_dict(),
            "threads": arguments.threads,
            "max_difference": errors,
            "peak_gmac_per_s": peaks,
            "gmac": macs / 1e9,
        }
        report = json.dumps(document, indent=2)
    sys.stdout.write(report + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", default="can32", choices=["can24", "can32"])
    parser.add_argument("--size", default="1920x1080", help="width x height")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", help="forms to compare with the plain one, separated by commas")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def matrix_products(device: str) -> dict[str, float]:
    """Multiply-adds a second, in 10^9. Taken before and after: others' load changes."""
    return {name: peak_gflops(device, getattr(torch, name)) / 2 for name in ("float32", "bfloat16")}


def trained(network: str, device: str) -> can.CAN:
    """A network whose parameters are all away from their start."""
    torch.manual_seed(0)
    net: can.CAN = getattr(can, network)(last_layer="identity").eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("conv.weight"):
                parameter.add_(0.02 * torch.randn_like(parameter))
            elif name.endswith("w1"):
                parameter.fill_(0.02)
    return net.to(device)


def ways(net: can.CAN, x: Tensor) -> dict[str, Form]:
    wide, narrow = _channels_last(net), _channels_last(in_bfloat16(net))
    compiled, compiled_narrow = torch.compile(wide), torch.compile(narrow)
    x_last = x.contiguous(memory_format=torch.channels_last)
    x_narrow = x_last.bfloat16()
    # float32 on the CPU only
    runtime = {"onnxruntime": partial(InOnnxRuntime(net), x)} if x.device.type == "cpu" else {}
    return {
        "plain": lambda: net(x),
        "channels_last": lambda: wide(x_last),
        "strips": lambda: forward_in_strips(net, x),
        "compiled channels_last": lambda: compiled(x_last),
        "bfloat16 channels_last": lambda: narrow(x_narrow),
        "bfloat16 strips": lambda: forward_in_strips(narrow, x_narrow),
        "bfloat16 compiled channels_last": lambda: compiled_narrow(x_narrow),
        **runtime,
    }


def _channels_last(net: can.CAN) -> can.CAN:
    copied: Any = copy.deepcopy(net)
    return copied.to(memory_format=torch.channels_last)


def table(
    result: Comparison,
    facts: machine.Machine,
    errors: dict[str, float],
    peaks: dict[str, float],
    macs: int,
) -> str:
    """Plain text, a form a line."""
    load = "load {:.1f} to {:.1f}".format(*result.load) if result.load else "load unknown"
    lines = [
        f"{facts.name}, {torch.get_num_threads()} of {facts.logical} threads, torch {facts.torch}, {load}",
        "matrix product: " + ", ".join(f"{name} {peak:.0f} GMAC/s" for name, peak in peaks.items()),
        f"{'form':32} {'median s':>8}  {'times as fast [95 %]':20} "
        f"{'difference':>10} {'GMAC/s':>6} {'of peak':>7}",
    ]
    for timing in result.timings:
        rate = macs / timing.best / 1e9
        peak = peaks["bfloat16" if timing.name.startswith("bfloat16") else "float32"]
        lines.append(
            f"{timing.name:32} {timing.median:8.2f}  {timing.ratio!s:20} {errors[timing.name]:10.1e} "
            f"{rate:6.1f} {rate / peak:7.0%}"
        )
    return "\n".join(lines + warnings(result))


if __name__ == "__main__":
    main()
