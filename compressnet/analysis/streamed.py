"""What one step of a stream costs: multiplications, and the state that is carried to the next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from compressnet.analysis.count import count
from compressnet.analysis.example import example_step
from compressnet.errors import CompressnetError


@dataclass(frozen=True)
class Streamed:
    """A step of one stream.

    Attributes:
        macs: of the step.
        state: numbers that are carried; whole numbers, as positions, are not among them.
        state_bytes: of all that is carried.
        per_second: steps in a second, of audio; None: nobody knows.
    """

    macs: int
    state: int
    state_bytes: int
    per_second: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def streamed(module: nn.Module) -> Streamed | None:
    """Count a step of `module`, on the device where it is; None: it does not stream.

    Raises:
        UsageError: nobody knows what a step takes.
        NeedsValues: it has to be run to be counted, and is on `meta`.
        CompressnetError: it cannot be run.
    """
    if not _streams(module):
        return None
    made: Any = module
    inputs, name = example_step(module, 1), type(module).__name__
    try:
        state = made.init_state(1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CompressnetError(f"{name}.init_state(1): {str(error).splitlines()[0]}") from error
    leaves = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]
    try:
        counted = count(_Step(module, state), (*inputs, *tree_leaves(state)))
    except CompressnetError as error:
        error.args = tuple(text.replace("_Step", f"{name}.step", 1) for text in error.problems)
        raise
    untraced = sum(
        term.value
        for part in module.modules()
        if (terms := getattr(part, "step_cost", None)) is not None
        for term in terms(1)
        if term.kind == "macs" and not term.traced
    )
    rate, hop = getattr(module, "sample_rate", None), getattr(module, "hop", None)
    return Streamed(
        counted.macs + untraced,
        sum(leaf.numel() for leaf in leaves if leaf.is_floating_point()),
        sum(leaf.numel() * leaf.element_size() for leaf in leaves),
        rate / hop if rate and hop else None,
    )


def _streams(module: nn.Module) -> bool:
    """Whether it has a step, which layers of two directions have in name only: it raises."""
    if not (hasattr(module, "step") and hasattr(module, "init_state")):
        return False
    return all(getattr(part, "directions", 1) == 1 for part in module.modules()) and not any(
        getattr(part, "bidirectional", False) for part in module.modules()
    )


class _Step(nn.Module):
    """`step` as a call of a module."""

    def __init__(self, module: nn.Module, state: Any) -> None:
        super().__init__()
        self.module = module
        leaves, self._structure = tree_flatten(state)
        self._inputs = -len(leaves)

    def forward(self, *inputs: Any) -> Any:
        x, state = inputs[: self._inputs], inputs[self._inputs :]
        step: Any = self.module.step
        return step(*x, tree_unflatten(list(state), self._structure))
