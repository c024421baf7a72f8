"""Use of a network on one photograph of any size and mode."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compressnet import finite, registry
from compressnet.bounds import Size
from compressnet.data.images import Image
from compressnet.errors import CompressnetError, UsageError
from compressnet.free_memory import SAFE_SHARE, free_memory
from compressnet.reporter import Reporter

Arithmetic = Literal["fast", "precise"]

_WINOGRAD = {"fast": "winograd", "precise": "winograd_precise"}
_QUIET_SECONDS = 2.0


@dataclass(frozen=True)
class Options:
    """What `apply` takes besides files.

    Attributes:
        dtype: arithmetic of the network; bfloat16 takes half the memory, at about 50 dB to float32.
            Normalisation statistics are float32 in both.
        arithmetic: of a CAN in float32 on the CPU: fast, by Winograd's filtering with large tiles, within
            2e-5 of the plain form; precise, with small ones, within 1e-5 and at two thirds of the speed.
        compile: compile the network first. On the CPU a CAN is faster without.
        max_memory: megabytes that activations may take, besides the photograph and the result; what does
            not fit lies in a temporary file. The result is the same to 2e-5. None: what is free.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    arithmetic: Arithmetic = "fast"
    compile: bool = False
    max_memory: Size | None = None


@dataclass(frozen=True)
class NoOptions:
    """What `apply` takes besides files where nothing can be chosen: an operator has its keys in its name."""

    dtype: ClassVar[Literal["float32"]] = "float32"
    arithmetic: ClassVar[Arithmetic] = "fast"
    compile: ClassVar[bool] = False
    max_memory: ClassVar[None] = None


def fast_forms(model: nn.Module, arithmetic: Arithmetic = "fast") -> dict[str, Any]:
    """The back ends that are faster on a CPU than the plain form and give the same to 2e-5, best first."""
    forms = {name: registry.find("backend", name)(model) for name in (_WINOGRAD[arithmetic], "strips")}
    return {name: form for name, form in forms.items() if form is not None}


def backend(model: nn.Module) -> nn.Module | None:
    """The back end `apply`: what `apply` runs of a network or an operator for images on a CPU, given memory.

    It has `runs_as`, the name of what that is. None of other modules, and elsewhere.
    """
    from compressnet.operators.module import OperatorModule

    name, form = next(iter(fast_forms(model).items()), ("eager", model))
    on_cpu = all(parameter.is_cpu for parameter in model.parameters())
    if not on_cpu or (form is model and not isinstance(model, OperatorModule)):
        return None
    form.runs_as = name
    made: nn.Module = form
    return made


def infer(
    model: nn.Module, x: Tensor, arithmetic: Arithmetic = "fast", condition: Tensor | None = None
) -> Tensor:
    """`model(x)` without gradients: in the first of `fast_forms` that can.

    Args:
        condition: (B, K), of a model that takes one besides.
    """
    form = next((form for form in fast_forms(model, arithmetic).values() if form.is_for(x)), model)
    with torch.no_grad():
        y: Tensor = form(x) if condition is None else form(x, condition)
    return y


class Applier:
    """Holds the model ready for many photographs.

    A CAN runs in the fastest of `fast_forms` on the CPU for which there is memory; on a GPU in strips only
    when the plain form does not fit. Other models run as they are. Nothing about the model is changed: what
    has to be converted is a copy.

    Args:
        condition: (K,), what a model that takes one is told of all photographs.

    Raises:
        UsageError: options that exclude each other.
        CompressnetError: of a call: `max_memory` is too small, or `compile` finds no C++ compiler.
    """

    def __init__(
        self,
        model: nn.Module,
        options: Options | NoOptions,
        reporter: Reporter,
        condition: Tensor | None = None,
    ) -> None:
        if options.arithmetic == "precise" and options.dtype == "bfloat16":
            raise UsageError("arithmetic=precise, dtype=bfloat16: choose one")
        self.options, self.reporter = options, reporter
        self._condition = () if condition is None else (condition,)
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        forms = fast_forms(model, options.arithmetic)
        self.strips = forms.pop("strips", None)
        self.fastest: tuple[str, Any] = next(iter(forms.items()), ("", None))
        if self.fastest[1] is not None:
            self.fastest[1].keeps = True
        if self.strips is not None:
            self.strips = self.strips.in_bfloat16() if options.dtype == "bfloat16" else self.strips
            model = self.strips.net
        elif options.max_memory is not None:
            reporter.note("warning", "max_memory: this model cannot work in strips; it takes what it needs")
        self.model = model
        self._compiled: Callable[..., Tensor] | None = None

    def __call__(self, image: Image) -> Image:
        """The processed photograph in the mode, depth and profile of `image`."""
        gray = image.pixels.shape[2] == 1
        pixels = torch.from_numpy(np.ascontiguousarray(image.pixels)).expand(-1, -1, 3)  # gray: no copies
        x = pixels.permute(2, 0, 1)[None]  # (1, 3, H, W) channels_last
        with torch.inference_mode():
            backend, out = self._forward(x.to(self.device))
            y = out[0].permute(1, 2, 0)  # (H, W, 3)
            y = finite.checked((y.mean(dim=2, keepdim=True) if gray else y).float(), "the network's output")
            y = y.clamp_(0, 1)
            return replace(image, pixels=y.contiguous().cpu().numpy(), backend=backend)

    def _forward(self, x: Tensor) -> tuple[str, Tensor]:
        """How it was run, and the result."""
        options, limit, (height, width) = self.options, self._limit(), x.shape[2:]
        if self.strips is None:
            if self._is_fastest(x, limit):
                return self._in_form(*self.fastest, x)
            bfloat16 = options.dtype == "bfloat16" and any(True for _ in self.model.parameters())
            with torch.autocast(x.device.type, torch.bfloat16) if bfloat16 else nullcontext():
                return self._whole(x)
        x = x.to(getattr(torch, options.dtype))
        needed = self.strips.plain_bytes(height, width)
        fits = limit is None or needed <= limit
        if fits and (options.compile or x.device.type != "cpu"):
            return self._whole(x)
        if options.compile:
            self.reporter.note("info", f"compiled, it would take {needed >> 20} MB: in strips, not compiled")
        elif self._is_fastest(x, limit):
            return self._in_form(*self.fastest, x)
        return self._in_form("strips", self.strips, x, max_bytes=limit)

    def _is_fastest(self, x: Tensor, limit: int | None) -> bool:
        """Whether what is faster than strips can take `x`, within so many bytes."""
        form = self.fastest[1]
        if form is None or self.options.compile or self.options.dtype != "float32" or not form.is_for(x):
            return False
        return limit is None or form.bytes(x.shape[2], x.shape[3]) <= limit

    def _told(self, x: Tensor) -> tuple[Tensor, ...]:
        """The condition in the type and on the device of photographs."""
        return tuple(condition.to(x)[None].expand(len(x), -1) for condition in self._condition)

    def _limit(self) -> int | None:
        """Bytes for activations."""
        if self.options.max_memory is not None:
            return self.options.max_memory << 20
        free = free_memory(self.device)
        return None if free is None else int(free * SAFE_SHARE)

    def _in_form(self, name: str, form: Any, x: Tensor, **limit: int | None) -> tuple[str, Tensor]:
        start, done, shown = time.monotonic(), 0, False

        def progress(rows: int) -> None:
            nonlocal done, shown
            done += rows
            if shown:
                self.reporter.advance(rows)
            elif time.monotonic() - start > _QUIET_SECONDS:
                shown = True
                self.reporter.stage("photograph", form.rows(x), "rows", initial=done)

        return name, form(x, *self._told(x), progress=progress, **limit)

    def _whole(self, x: Tensor) -> tuple[str, Tensor]:
        if not self.options.compile:
            return "eager", self.model(x, *self._told(x))
        if self._compiled is None:
            model = copy.deepcopy(self.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._compiled = torch.compile(model)
        try:
            return "compile", self._compiled(x, *self._told(x))
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise CompressnetError(
                "compile=true: this network cannot be compiled here (on the CPU that takes a C++ compiler, "
                f"g++ or clang++); leave compile out: {reason}"
            ) from None
