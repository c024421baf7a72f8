"""Use of a network on one photograph of any size and mode."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compressnet import finite, registry
from compressnet.bounds import Size
from compressnet.data.images import Image
from compressnet.errors import CompressnetError
from compressnet.free_memory import SAFE_SHARE, free_memory
from compressnet.reporter import Reporter

_QUIET_SECONDS = 2.0


@dataclass(frozen=True)
class Options:
    """What `apply` takes besides files.

    Attributes:
        dtype: arithmetic of the network; bfloat16 is faster where the processor has it, at about 50 dB
            to float32. Normalisation statistics are float32 in both.
        compile: compile the network first. On the CPU a CAN in float32 is faster without (it runs in strips);
            in bfloat16 the two are about equal.
        max_memory: megabytes that activations may take, besides the photograph and the result; what does
            not fit lies in a temporary file. The result is the same to 1e-5. None: what is free.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    max_memory: Size | None = None


def infer(model: nn.Module, x: Tensor) -> Tensor:
    """`model(x)` without gradients: in strips where the model can and that is faster."""
    strips = registry.find("backend", "strips")(model)
    with torch.no_grad():
        y: Tensor = strips(x) if strips is not None and strips.is_for(x) else model(x)
    return y


class Applier:
    """Holds the model ready for many photographs.

    What can run in strips (a CAN) does so on the CPU, the fastest way there with and without a memory limit;
    on a GPU only when the plain form does not fit. Other models run as they are. Nothing about the model is
    changed: what has to be converted is a copy.

    Raises:
        CompressnetError: of a call: `max_memory` is too small, or `compile` finds no C++ compiler.
    """

    def __init__(self, model: nn.Module, options: Options, reporter: Reporter) -> None:
        self.options, self.reporter = options, reporter
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.strips = registry.find("backend", "strips")(model)
        if self.strips is not None:
            self.strips = self.strips.in_bfloat16() if options.dtype == "bfloat16" else self.strips
            model = self.strips.net
        elif options.max_memory is not None:
            reporter.note("warning", "max_memory: this model cannot work in strips; it takes what it needs")
        self.model = model
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def __call__(self, image: Image) -> Image:
        """The processed photograph in the mode, depth and profile of `image`."""
        gray = image.pixels.shape[2] == 1
        pixels = torch.from_numpy(np.ascontiguousarray(image.pixels)).expand(-1, -1, 3)  # gray: no copies
        x = pixels.permute(2, 0, 1)[None]  # (1, 3, H, W) channels_last
        with torch.inference_mode():
            y = self._forward(x.to(self.device))[0].permute(1, 2, 0)  # (H, W, 3)
            y = finite.checked((y.mean(dim=2, keepdim=True) if gray else y).float(), "the network's output")
            y = y.clamp_(0, 1)
            return replace(image, pixels=y.contiguous().cpu().numpy())

    def _forward(self, x: Tensor) -> Tensor:
        if self.strips is None:
            bfloat16 = self.options.dtype == "bfloat16" and any(True for _ in self.model.parameters())
            with torch.autocast(x.device.type, torch.bfloat16) if bfloat16 else nullcontext():
                return self._whole(x)
        x = x.to(getattr(torch, self.options.dtype))
        limit = self._limit()
        needed = self.strips.plain_bytes(x.shape[2], x.shape[3])
        fits = limit is None or needed <= limit
        if fits and (self.options.compile or x.device.type != "cpu"):
            return self._whole(x)
        if self.options.compile:
            self.reporter.note("info", f"compiled, it would take {needed >> 20} MB: in strips, not compiled")
        return self._in_strips(self.strips, x, limit)

    def _limit(self) -> int | None:
        """Bytes for activations."""
        if self.options.max_memory is not None:
            return self.options.max_memory << 20
        free = free_memory(self.device)
        return None if free is None else int(free * SAFE_SHARE)

    def _in_strips(self, strips: Any, x: Tensor, limit: int | None) -> Tensor:
        start, done, shown = time.monotonic(), 0, False

        def progress(rows: int) -> None:
            nonlocal done, shown
            done += rows
            if shown:
                self.reporter.advance(rows)
            elif time.monotonic() - start > _QUIET_SECONDS:
                shown = True
                self.reporter.stage("photograph", strips.rows(x), "rows", initial=done)

        y: Tensor = strips(x, limit, progress)
        return y

    def _whole(self, x: Tensor) -> Tensor:
        if not self.options.compile:
            return self.model(x)
        if self._compiled is None:
            model = copy.deepcopy(self.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._compiled = torch.compile(model)
        try:
            return self._compiled(x)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise CompressnetError(
                "compile=true: this network cannot be compiled here (on the CPU that takes a C++ compiler, "
                f"g++ or clang++); leave compile out: {reason}"
            ) from None
