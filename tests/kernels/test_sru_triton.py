"""The Triton kernel of SRU against the torch reference, in Triton's interpreter: no GPU is needed.

Triton comes with torch's CUDA builds only and its interpreter is chosen when it is imported, so what needs it
is skipped without it and runs in processes of its own. `python -m pip install --no-deps triton` (3.7.0 was
used) and `python -m pytest tests/kernels/test_sru_triton.py` run it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import product
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from compressnet.kernels import sru as kernel
from compressnet.layers.sru_recurrence import recurrence

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None,
    reason="triton is not installed: python -m pip install --no-deps triton runs this on any Linux machine",
)
SIZES = [(1, 1, 1), (2, 1, 7), (5, 2, 63), (3, 3, 65), (4, 1, 130), (1, 2, 130)]
HALVES = (torch.bfloat16, torch.float16)


def pieces(steps: int, batch: int, hidden: int, version: int) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(steps + 10 * batch + 100 * hidden)
    shapes = (steps, batch, 3 * hidden), (steps, batch, hidden), (2, hidden), (2, hidden), (batch, hidden)
    u, highway, v, bias, c0 = (torch.randn(shape, generator=generator) for shape in shapes)
    return [u, highway, v if version == 2 else None, bias, c0]


def by(way: str, inputs: list[Tensor | None], tanh: bool, reverse: bool) -> list[Tensor]:
    """h, the last cell and all gradients, the last cell's among what flows in."""
    own = [None if x is None else x.clone().requires_grad_() for x in inputs]
    if way == "reference":
        with kernel.reference():
            h, last = recurrence(*own, activation="tanh" if tanh else "identity", reverse=reverse)  # type: ignore[arg-type]
    else:
        h, last = kernel._Recurrence.apply(*own, tanh, reverse)
    generator = torch.Generator().manual_seed(0)
    given_back = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in (h, last)]
    gradients = torch.autograd.grad([h, last], [x for x in own if x is not None], given_back)
    return [h, last, *gradients]


def compare(inputs: list[Tensor | None], tanh: bool, reverse: bool, tolerance: float) -> None:
    fast, slow = by("triton", inputs, tanh, reverse), by("reference", inputs, tanh, reverse)
    for one, other in zip(fast, slow, strict=True):
        assert one.dtype == other.dtype
        scale = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(one, other, atol=tolerance * scale, rtol=0)


def in_interpreter() -> None:
    """Everything that is compared, with the CUDA operations called on tensors of the CPU."""
    operations = torch.library.Library("compressnet", "IMPL")
    operations.impl("sru_forward", kernel._cuda_forward, "CPU", allow_override=True)
    operations.impl("sru_backward", kernel._cuda_backward, "CPU", allow_override=True)
    for sizes, version, tanh, reverse in product(SIZES, (1, 2), (False, True), (False, True)):
        compare(pieces(*sizes, version), tanh, reverse, 1e-5)
    for dtype in HALVES:
        halves = [None if x is None else x.to(dtype) for x in pieces(9, 2, 65, 2)]
        compare(halves, False, False, 2 * torch.finfo(dtype).eps)
        u, highway, v, bias, c0 = pieces(4, 2, 7, 2)
        assert u is not None
        compare([u.to(dtype), highway, v, bias, c0], True, True, 2 * torch.finfo(dtype).eps)  # autocast
    with torch.no_grad():  # without room for the cells
        u, highway, v, bias, c0 = pieces(5, 2, 63, 2)
        h, last, cells = torch.ops.compressnet.sru_forward(u, highway, v, bias, c0, False, False, False)
        with kernel.reference():
            wanted = recurrence(u, highway, v, bias, c0)  # type: ignore[arg-type]
        assert cells.numel() == 0
        torch.testing.assert_close((h, last), wanted, atol=1e-5, rtol=0)


def for_a_gpu() -> None:
    """Compiled for two generations of GPUs: what the interpreter lets pass may fail here."""
    import triton  # type: ignore[import-not-found,unused-ignore]
    from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found,unused-ignore]
    from triton.compiler import ASTSource  # type: ignore[import-not-found,unused-ignore]

    from compressnet.kernels import sru_triton

    for function, (generation, kind, flag) in product(
        (sru_triton._forward, sru_triton._backward), ((80, "*fp32", True), (90, "*bf16", False))
    ):
        names = function.arg_names
        constants: dict[str, int | None] = {name: flag for name in names if name.isupper()}
        constants |= {"BLOCK": 64} if flag else {"BLOCK": 64, "v": None}  # version 1 has no v
        types = dict.fromkeys(names, kind) | dict.fromkeys(("cells", "dparameters"), "*fp32")
        types |= dict.fromkeys(("steps", "batch", "hidden"), "i32") | dict.fromkeys(constants, "constexpr")
        values = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(function, {name: types[name] for name in names}, values)
        made = triton.compile(source, target=GPUTarget("cuda", generation, 32))
        assert f".target sm_{generation}" in made.asm["ptx"]


@needs_triton
@pytest.mark.parametrize(("name", "interpreted"), [("in_interpreter", "1"), ("for_a_gpu", "0")])
def test_triton(name: str, interpreted: str, tmp_path: object) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": interpreted, "TRITON_CACHE_DIR": str(tmp_path)}
    code = f"from tests.kernels.test_sru_triton import {name}; {name}()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_importing_the_package_imports_no_triton() -> None:
    code = (
        "import sys, compressnet; from compressnet.layers.sru import SRU; "
        "net = SRU(4, 4); net(__import__('torch').zeros(2, 1, 4)); "
        "assert 'compressnet.kernels.sru_triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_cuda_tensors_go_to_triton_where_it_is() -> None:
    for name in ("sru_forward", "sru_backward"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"compressnet::{name}", "CUDA")
    with torch._subclasses.FakeTensorMode():
        one, half = torch.empty(1, device="cuda"), torch.empty(1, device="cuda", dtype=torch.bfloat16)
        for there in (True, False):
            with patch.object(kernel, "_TRITON", there):
                assert kernel.serves(one, half, None) is there
                assert not kernel.serves(one, one.cpu())
                assert not kernel.serves(one.cpu(), one)
                assert not kernel.serves(one.double())
