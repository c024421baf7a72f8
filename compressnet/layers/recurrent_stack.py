"""Recurrent layers on top of each other, any of the family by name, and their states as one flat tuple."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from compressnet import signature
from compressnet.bounds import Layers, OptionalSize, Size
from compressnet.signature import Named

State = tuple[Tensor, ...]


class RecurrentStack(nn.ModuleList):
    """Cells on top of each other. Who wants something between them (dropout) goes from cell to cell itself.

        x (T, B, input_size) -> cell 0 -> ... -> cell L-1 -> (T, B, output_size)

    Args:
        cell: a layer by name, with arguments: `lstm:peepholes=false`, `lstmp:proj_size=128`, `sru`.
        input_size: of the first cell; the others take what the one below puts out.
        hidden_size: of each cell.
        num_layers: L.
        last_size: of the last cell, where it does not project; 0: as the others.

    Raises:
        ValueError: `cell` is no layer that streams.
        UsageError: there is no such layer, or it does not take these arguments.
    """

    def __init__(
        self,
        cell: Annotated[str, Named("layer", ("input_size", "hidden_size"))],
        input_size: Size,
        hidden_size: Size,
        num_layers: Layers = 2,
        last_size: OptionalSize = 0,
    ) -> None:
        super().__init__()
        name, arguments = signature.read_named(cell)
        self._counts: list[int] = []  # of tensors in the state of each cell; 0: it is one, and no tuple
        width = input_size
        sizes = [hidden_size] * num_layers
        if last_size and not _projects(name, arguments, input_size, hidden_size):
            sizes[-1] = last_size
        for size in sizes:
            built = signature.build("layer", name, {**arguments, "input_size": width, "hidden_size": size})
            _check_streams(built, name)
            width = _output_size(built)
            self.append(built)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):  # an edit puts another cell there
            self._counts = []

    @property
    def input_size(self) -> int:
        """How wide the inputs of the first cell are."""
        return _input_size(self[0])

    @property
    def output_size(self) -> int:
        """How wide the outputs of the last cell are; one step is run to see it."""
        return _output_size(self[-1])

    def forward(self, x: Tensor, state: State = ()) -> tuple[Tensor, State]:
        """Outputs (T, B, output_size) of the last cell, and the state after the last step.

        Args:
            x: (T, B, input_size).
            state: as returned, or `init_state`; (): zeros.
        """
        after: list[Tensor] = []
        for cell, part in self.with_states(state or self.init_state(x.shape[1], x.device)):
            x, part = cell.step(x, part)
            after += flat(part)
        return x, tuple(after)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next T >= 1 steps (T, B, input_size) of a stream: `forward` from `state`."""
        return self(x, state)

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor]:
        """Inputs for counting and timing: `size` steps of `batch` sequences.

        Raises:
            ValueError: a size of images.
        """
        if not isinstance(size, int):
            raise ValueError("takes sequences: their size is a number of steps")
        return (torch.rand(size, batch, self.input_size),)

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Zeros: the states of all cells, one after the other.

        Args:
            device, dtype: None: those of the weights.
        """
        cells: list[Any] = list(self)
        return tuple(t for cell in cells for t in flat(cell.init_state(batch, device, dtype)))

    def with_states(self, state: State) -> Iterator[tuple[Any, Any]]:
        """Each cell with its part of the state, in the form in which it takes it."""
        tensors = iter(state)
        if len(self._counts) != len(self):
            self._counts = [_count(cell) for cell in self]
        for cell, count in zip(self, self._counts, strict=True):
            yield cell, tuple(islice(tensors, count)) if count else next(tensors)


def flat(part: Any) -> State:
    """The state of one cell as a tuple."""
    return part if isinstance(part, tuple) else (part,)


def _count(cell: Any) -> int:
    """How many tensors the state of a cell is; 0: it is one, and no tuple."""
    state = cell.init_state(1)
    return len(state) if isinstance(state, tuple) else 0


def _projects(name: str, arguments: dict[str, Any], input_size: int, hidden_size: int) -> bool:
    """Whether a cell's outputs are of another width than it has cells."""
    with torch.device("meta"):  # allocates nothing, and takes no random numbers
        cell = signature.build(
            "layer", name, {**arguments, "input_size": input_size, "hidden_size": hidden_size}
        )
        _check_streams(cell, name)
        return _output_size(cell) != hidden_size


def _check_streams(cell: Any, name: str) -> None:
    if not (hasattr(cell, "step") and hasattr(cell, "init_state")):
        raise ValueError(f"cell: '{name}' is not a recurrent layer (lstm, lstmp, sru, torch_lstm)")


def _input_size(cell: Any) -> int:
    with torch.device("meta"):
        return int(cell.example(1, 1)[0].shape[-1])


def _output_size(cell: Any) -> int:
    state = cell.init_state(1)
    x = flat(state)[0].new_zeros(1, 1, _input_size(cell))
    with torch.no_grad():
        y, _ = cell.step(x, state)
    return int(y.shape[-1])
