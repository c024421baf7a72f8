"""The kernel of SRU against its reference: in Triton on a GPU, in C on the CPU (float32 alone)."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cuda_checks import compare
from benchmarks.cuda_checks.cases import Case, Cases, Failed, Finding, Settings, Skip

_SIZES = [(1, 1, 1), (2, 1, 7), (5, 2, 63), (3, 3, 65), (1, 2, 130), (35, 7, 129), (257, 5, 200)]
_SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "version 1": {"version": 1},
    "tanh": {"activation": "tanh"},
    "bidirectional": {"bidirectional": True},
    "projection": {"proj_size": 11},
    "rescale": {"rescale": True, "highway_bias": -2.0},
    "all": {"bidirectional": True, "proj_size": 11, "rescale": True, "activation": "tanh"},
}


def cases(settings: Settings, seconds: float) -> Cases:
    device = compare.choose(settings.device)
    rows = [Case("in use", partial(_in_use, device))]
    for sizes, version, tanh, reverse in product(_SIZES, (1, 2), (False, True), (False, True)):
        words = ["x".join(map(str, sizes)), f"version {version}", "tanh" * tanh, "reverse" * reverse]
        name = ", ".join(filter(None, words))
        rows.append(Case(f"T x B x H {name}", partial(_kernel, device, sizes, version, tanh, reverse)))
    halves = ("bfloat16", "float16", "autocast")
    rows += [Case(f"kernel in {kind}", partial(_half, device, kind)) for kind in halves]
    for name, switches in _SWITCHES.items():
        for lengths in (False, True):
            padded = " with lengths" if lengths else ""
            rows.append(Case(f"layer {name}{padded}", partial(_layer, device, switches, lengths)))
    rows.append(Case("offsets beyond 2^31", partial(_huge, device, settings.quick)))
    steps = 100 if settings.quick else 1000
    rows.append(Case(f"{steps} steps of training", partial(_training, device, steps), seconds=120))
    return Cases(rows)


def _in_use(device: torch.device) -> Finding:
    from compressnet.kernels import sru

    if not sru.serves(torch.zeros(2, 1, 3, device=device), torch.zeros(2, 1, 1, device=device)):
        raise Failed(
            f"no kernel serves {device.type}: {'Triton' if device.type == 'cuda' else 'C'} is not there"
        )
    return Finding(message="Triton" if device.type == "cuda" else "C")


def pieces(steps: int, batch: int, hidden: int, version: int) -> list[Tensor | None]:
    """u, highway, v, bias and c0, on the CPU."""
    generator = torch.Generator().manual_seed(steps + 10 * batch + 100 * hidden)
    shapes = (steps, batch, 3 * hidden), (steps, batch, hidden), (2, hidden), (2, hidden), (batch, hidden)
    u, highway, v, bias, c0 = (torch.randn(shape, generator=generator) for shape in shapes)
    return [u, highway, v if version == 2 else None, bias, c0]


def results(given: list[Tensor | None], tanh: bool, reverse: bool, reference: bool) -> list[Tensor]:
    """h, the last cell, and the gradients of all that was given."""
    from contextlib import nullcontext

    from compressnet.kernels import sru
    from compressnet.layers.sru_recurrence import recurrence

    own: list[Any] = [None if x is None else x.clone().requires_grad_() for x in given]
    with sru.reference() if reference else nullcontext():
        h, last = recurrence(*own, activation="tanh" if tanh else "identity", reverse=reverse)
    generator = torch.Generator().manual_seed(0)
    back = [torch.randn(y.shape, generator=generator).to(y) for y in (h, last)]
    gradients = torch.autograd.grad([h, last], [x for x in own if x is not None], back)
    return [h, last, *gradients]


def _kernel(
    device: torch.device, sizes: tuple[int, int, int], version: int, tanh: bool, reverse: bool
) -> Finding:
    given = pieces(*sizes, version)
    there = [None if x is None else x.to(device) for x in given]
    fast = results(there, tanh, reverse, reference=False)
    slow = results(there, tanh, reverse, reference=True)
    exact = results([None if x is None else x.double() for x in given], tanh, reverse, reference=True)
    off, own = (compare.difference(found, exact) for found in (fast, slow))
    return compare.near(off, max(2e-5, 10 * own))  # of a long recurrence the reference is off as well


def _half(device: torch.device, kind: str) -> Finding:
    if device.type != "cuda":
        raise Skip("the kernel in C takes float32 alone")
    dtype = torch.float16 if kind == "float16" else torch.bfloat16
    given = pieces(35, 7, 129, 2)
    if kind == "autocast":  # products have its type, the recurrence that of the parameters
        assert given[0] is not None
        given[0] = given[0].to(dtype)
    else:
        given = [None if x is None else x.to(dtype) for x in given]
    there = compare.to(given, device)
    fast, slow = (results(there, False, False, reference=way) for way in (False, True))
    if wrong := [(x.dtype, y.dtype) for x, y in zip(fast, slow, strict=True) if x.dtype != y.dtype]:
        raise Failed(f"types differ: {wrong[0][0]} against {wrong[0][1]}")
    return compare.near(compare.difference(fast, slow), 4 * torch.finfo(dtype).eps)


def _layer(device: torch.device, switches: dict[str, Any], with_lengths: bool) -> Finding:
    from compressnet.layers.sru import SRU

    torch.manual_seed(0)
    width = 2 * 13 if switches.get("bidirectional") else 13
    here = SRU(width, 13, 2, **switches)
    there = SRU(width, 13, 2, **switches).to(device)
    there.load_state_dict(here.state_dict())
    x = torch.randn(19, 5, width)
    lengths = torch.tensor([19, 1, 0, 7, 18]) if with_lengths else None
    outputs, gradients = [], []
    for net, place in ((here, torch.device("cpu")), (there, device)):
        call = _Call(net, None if lengths is None else lengths.to(place))
        outputs.append(compare.floats(call(x.to(place))))
        gradients.append(compare.gradients(call, (x.to(place),)))
    off = compare.difference(outputs[1], outputs[0])
    return compare.near(max(off, compare.differences(gradients[1], gradients[0])[0]), 1e-4)


class _Call(nn.Module):
    def __init__(self, net: nn.Module, lengths: Tensor | None) -> None:
        super().__init__()
        self.net, self.lengths = net, lengths

    def forward(self, x: Tensor) -> Any:
        return self.net(x, None, self.lengths)


def _huge(device: torch.device, quick: bool) -> Finding:
    """More than 2^31 numbers in u: its last row against that of a batch of one."""
    from compressnet.layers.sru_recurrence import recurrence

    steps, batch, hidden = 1400, 128, 4160
    need = 2 * 5 * steps * batch * hidden  # bytes of u, highway and h in bfloat16
    if quick or device.type != "cuda":
        raise Skip("of a GPU")
    if torch.cuda.mem_get_info(device)[0] < 1.3 * need:
        raise Skip(f"takes {need / 2**30:.0f} GiB")
    half: Any = {"device": device, "dtype": torch.bfloat16}
    u, highway = torch.empty(steps, batch, 3 * hidden, **half), torch.empty(steps, batch, hidden, **half)
    u.normal_()
    highway.normal_()
    v, bias = torch.randn(2, 2, hidden, **half)
    c0 = torch.zeros(batch, hidden, **half)
    with torch.no_grad():
        h, last = recurrence(u, highway, v, bias, c0)
        row = slice(batch - 1, batch)
        alone, end = recurrence(u[:, row].contiguous(), highway[:, row].contiguous(), v, bias, c0[row])
    return compare.near(
        compare.difference([h[:, row], last[row]], [alone, end]), 1e-6, f"{u.numel():.1e} numbers"
    )


def _training(device: torch.device, steps: int) -> Finding:
    """A running mean is learned."""
    from compressnet.layers.sru import SRU

    torch.manual_seed(0)
    net = SRU(8, 64, 2).to(device)
    head = nn.Linear(64, 8).to(device)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=3e-3)
    first = loss = torch.zeros(())
    for step in range(steps):
        x = torch.randn(35, 16, 8, device=device)
        wanted = x.cumsum(0) / torch.arange(1, 36, device=device)[:, None, None]
        loss = (head(net(x)[0]) - wanted).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step == 0:
            first = loss.detach()
        if step % 100 == 0 and not loss.isfinite():
            raise Failed(f"step {step}: the loss is {float(loss)}")
    if not float(loss) < 0.5 * float(first):
        raise Failed(f"the loss went from {float(first):.3g} to {float(loss):.3g} only")
    return Finding(f"{float(loss):.2e}", f"the loss, from {float(first):.2e}")
