"""torch's own LSTM as a layer of the registry, to count it and to time it beside others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compressnet import cost
from compressnet.bounds import Layers, OptionalSize, Size
from compressnet.cost import Term
from compressnet.layers.sequences import random_sequences


class TorchLSTM(nn.LSTM):
    """`nn.LSTM` on sequences (T, B, C) that returns its outputs alone.

    The same function and the same parameters: two biases a gate, no peepholes.

    Args:
        input_size: C.
        proj_size: width of the projected outputs, smaller than `hidden_size`; 0: none. torch 2.13 has no
            fused CPU kernel for it.
        bias: learn biases.
        bidirectional: a second LSTM reads the sequence backwards.

    Raises:
        ValueError: a size out of range.
    """

    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        num_layers: Layers = 1,
        proj_size: OptionalSize = 0,
        bias: bool = True,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            bidirectional=bidirectional,
            proj_size=proj_size,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy: its weights lie apart, which cuDNN would warn of and put together at every call."""
        super().__setstate__(state)
        self.flatten_parameters()

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> Any:  # type: ignore[override]
        """Sequences (T, B, input_size) to (T, B, out), from a state of zeros.

        `out` is `proj_size` or, without projection, `hidden_size`; twice that if bidirectional.

        Args:
            state: where to begin; the new one is returned too.
        """
        if state is None:
            return super().forward(_lower(x))[0]
        return super().forward(_lower(x), (_lower(state[0]), _lower(state[1])))

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Zeros: h (L·D, batch, out) and c (L·D, batch, hidden_size); None: as the weights are."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        weight = self.get_parameter("weight_ih_l0")
        return (
            weight.new_zeros(count, batch, self.proj_size or self.hidden_size, device=device, dtype=dtype),
            weight.new_zeros(count, batch, self.hidden_size, device=device, dtype=dtype),
        )

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next T >= 1 steps (T, B, input_size) of a stream: outputs of the same steps and the new state.

        Raises:
            ValueError: the network is bidirectional.
        """
        if self.bidirectional:
            raise ValueError("TorchLSTM: a bidirectional network needs the whole sequence, it has no step")
        output, (h, c) = self(x, state)  # a call, which is counted
        return output, (h.to(state[0].dtype), c.to(state[1].dtype))

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor]:
        """Inputs for counting and timing: `size` steps of `batch` sequences.

        Raises:
            ValueError: a size of images.
        """
        return random_sequences(batch, size, self.input_size)

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        """Of sequences (T, B, input_size)."""
        steps, batch, _ = input_shape
        return cost.recurrent(
            4,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            proj_size=self.proj_size,
            bias=bool(self.bias),
            bidirectional=self.bidirectional,
            steps=steps,
            batch=batch,
        )


def _lower(x: Tensor) -> Tensor:
    """In the type of autocast, which torch's LSTM on a CPU refuses to go to by itself."""
    wanted = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return x.to(torch.get_autocast_dtype("cpu")) if wanted else x
