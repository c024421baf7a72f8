"""The back ends of a CAN, by itself or within a network that shrinks its picture (`can_small`).

Of such a network the CAN runs in its back end and what is around it in torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from compressnet.errors import CompressnetError
from compressnet.models import can_strips, can_training, can_winograd
from compressnet.models.can_small import SmallCAN

Progress = Callable[[int], None]


def strips(model: nn.Module) -> nn.Module | None:
    """The back end `strips`: in bounded memory."""
    return _form(model, can_strips.backend, SmallInStrips)


def winograd(model: nn.Module) -> nn.Module | None:
    """The back end `winograd`: in C."""
    return _form(model, can_winograd.backend, SmallWinograd)


def winograd_precise(model: nn.Module) -> nn.Module | None:
    """The back end `winograd_precise`: of tiles of 2 and the direct form only."""
    return _form(model, can_winograd.precise_backend, SmallWinograd)


def winograd_training(model: nn.Module) -> nn.Module | None:
    """The back end `winograd_training`: gradients in C."""
    return _form(model, can_training.backend, SmallTrained)


def _form(
    model: nn.Module,
    of_can: Callable[[nn.Module], nn.Module | None],
    around: Callable[[SmallCAN, Any], nn.Module],
) -> nn.Module | None:
    if not isinstance(model, SmallCAN):
        return of_can(model)
    form = None if can_strips.is_hooked(model) else of_can(model.can)
    return None if form is None else around(model, form)


class SmallTrained(nn.Module):
    """A network whose CAN trains in the kernels; it shares its parameters.

    Args:
        form: of `net.can`.
    """

    def __init__(self, net: SmallCAN, form: can_training.TrainedInC) -> None:
        super().__init__()
        self.net, self.form = net, form

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """As the network's. What is around the CAN has no parameters: gradients pass through torch's."""
        return self.net.around(self.form, x, condition)


class _Inference(nn.Module):
    """What the forms for inference have in common."""

    inference_only = True

    def __init__(self, net: SmallCAN, form: Any) -> None:
        super().__init__()
        self.net, self.form = net, form

    def rows(self, x: Tensor) -> int:
        """The rows that `progress` is told of in all: those of the CAN, and those of the result."""
        batch, planes, height, width = x.shape
        small = torch.empty(batch, planes, *self.net.small_size(height, width), device="meta")
        found: int = self.form.rows(small) + batch * height
        return found

    def is_for(self, x: Tensor) -> bool:
        """Whether the form of the CAN can run on `x`."""
        found: bool = self.form.is_for(x)
        return found

    def _run(self, x: Tensor, condition: Tensor | None, progress: Progress | None, **how: Any) -> Tensor:
        y = self.net.around(partial(self.form, progress=progress, **how), x, condition)
        if progress is not None:
            progress(len(x) * x.shape[2])
        return y

    def _around(self, height: int, width: int) -> int:
        """Bytes of what is around the CAN, about."""
        return self.net.upsample.bytes(self.net.can.last.out_channels, height, width)


class SmallWinograd(_Inference):
    """A network whose CAN runs in the kernel; it shares its parameters.

    Args:
        form: of `net.can`.
    """

    @torch.no_grad()
    def forward(self, x: Tensor, condition: Tensor | None = None, progress: Progress | None = None) -> Tensor:
        """Images (B, in_channels, H, W), float32 on the CPU, to (B, out_channels, H, W).

        Args:
            condition: as the network takes it.
            progress: told how many rows more are done, of `rows`.

        Raises:
            UsageError: another type or device.
        """
        return self._run(x, condition, progress)

    @property
    def keeps(self) -> bool:
        """Whether the CAN's image of a call stays in memory for the next one."""
        found: bool = self.form.keeps
        return found

    @keeps.setter
    def keeps(self, keeps: bool) -> None:
        self.form.keeps = keeps

    def bytes(self, height: int, width: int) -> int:
        """What a call takes for its activations beside those that are held from the one before, about."""
        found: int = self.form.bytes(*self.net.small_size(height, width)) + self._around(height, width)
        return found


class SmallInStrips(_Inference):
    """A network whose CAN goes in strips; it shares its parameters.

    The small picture, its result and the coefficients of the upsampling stay in memory whole.

    Args:
        form: of `net.can`.
    """

    @torch.no_grad()
    def forward(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        max_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Images (B, in_channels, H, W) to (B, out_channels, H, W).

        Args:
            condition: as the network takes it.
            max_bytes: that activations may take, the rest lies in a file; None: as much as is fast.
            progress: told how many rows more are done, of `rows`.

        Raises:
            CompressnetError: too few bytes; the temporary file cannot be written.
        """
        left = None if max_bytes is None else self._left(max_bytes, x.shape[2], x.shape[3])
        return self._run(x, condition, progress, max_bytes=left)

    def plain_bytes(self, height: int, width: int) -> int:
        """What the plain form takes for its activations, about."""
        small = self.net.small_size(height, width)
        return can_strips.plain_bytes(self.net.can, *small) + self._around(height, width)

    def in_bfloat16(self) -> Self:
        """A copy of the network with convolutions in bfloat16; all else stays in float32."""
        net, form = copy.deepcopy(self.net), self.form.in_bfloat16()
        net.can = form.net
        return type(self)(net, form)

    def _left(self, max_bytes: int, height: int, width: int) -> int:
        around = self._around(height, width)
        least = around + can_strips.least_bytes(self.net.can, self.net.small_size(height, width)[1])
        if max_bytes < least:
            raise CompressnetError(
                f"max_memory: a photograph of {width}x{height} needs at least {-(-least // 2**20)} MB, "
                f"not {max_bytes / 2**20:.3g}"
            )
        return max_bytes - around
