"""`torch.compile` of one model a system, forward and backward, against the same model without it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.cuda_checks import compare, modules
from benchmarks.cuda_checks.cases import Case, Cases, Finding, Settings

_LIMIT, _STEPS, _SIDE = 1e-3, 6, 48  # of the scale; loops over time are unrolled


def cases(settings: Settings, seconds: float) -> Cases:
    device = compare.choose(settings.device)
    names = systems()[-1:] if settings.quick else systems()
    rows = [Case(f"model {name}", partial(_compiled, "model", name, device), 150) for name in names]
    if not settings.quick:
        rows += [
            Case(f"layer {name}", partial(_compiled, "layer", name, device), 90) for name in ("sru", "lstmp")
        ]
    return Cases(rows)


def systems() -> list[str]:
    """The first model of each file."""
    from compressnet import registry

    files: dict[str, str] = {}
    for name, place in registry.MODELS.items():
        files.setdefault(place.partition(":")[0], name)
    return list(files.values())


def _compiled(kind: str, name: str, device: torch.device) -> Finding:
    from compressnet.analysis.example import example

    plain, net = modules.build(kind, name).to(device), modules.build(kind, name).to(device)
    torch.manual_seed(1)
    taken = example(plain, 2)
    usual = _SIDE if any(x.ndim == 4 for x in taken) else _STEPS
    inputs = example(plain, 2, modules.SIZES.get(name, usual))
    compiled: Any = torch.compile(net)
    given = compare.gradients(compiled, inputs)
    with torch.no_grad():
        outputs = [compare.floats(call(*inputs)) for call in (compiled, plain)]
    exact, limit = modules.exact_gradients(plain.cpu(), compare.to(inputs, torch.device("cpu")))
    off, where = compare.gradient_differences({_plain_name(name): x for name, x in given.items()}, exact)
    compare.near(off, limit, where)
    return compare.near(compare.difference(*outputs), _LIMIT)


def _plain_name(name: str) -> str:
    """Of a compiled module's parameter, in the module itself."""
    return name.removeprefix("_orig_mod.")
