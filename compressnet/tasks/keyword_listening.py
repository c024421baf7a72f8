"""A keyword spotter on a stream: scores hop by hop, of audio in pieces of any length.

piece (1, samples) + what was left of the last -> whole hops -> step -> ln p (n, K), with the times they end
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressnet.errors import UsageError
from compressnet.models.keyword_spotting import KeywordSpotter, SlidingWindow

State = tuple[Tensor, ...]


class StreamScores(NamedTuple):
    """Scores of windows.

    Attributes:
        log_p: ln p of the classes, (n, K).
        ends_ms: where each window ends, from the beginning of the stream, (n,), float64.
    """

    log_p: Tensor
    ends_ms: Tensor


def can_stream(model: nn.Module) -> bool:
    """Whether it carries a state from hop to hop; others compute their last clip anew."""
    return hasattr(model, "init_state") and hasattr(model, "step")


def streaming(model: nn.Module) -> Any:
    """The model, or what streams it by computing its last clip for every hop.

    Raises:
        UsageError: it is no keyword spotter of ours, and has no `step`.
    """
    if can_stream(model):
        return model
    if not isinstance(model, KeywordSpotter):
        raise UsageError(f"{type(model).__name__} has no `step`, and is no keyword spotter: it cannot stream")
    return SlidingWindow.of(model)


def listen(
    model: nn.Module, audio: Tensor, state: State, one_by_one: bool = False
) -> tuple[StreamScores, State]:
    """The next samples (1, N) of a stream; what makes no whole hop waits in the state.

    Args:
        state: as returned; (): nothing was heard yet.
        one_by_one: a call for each hop, as on a device.
    """
    stream = streaming(model)
    if not state:
        state = (audio[:, :0], torch.zeros((), dtype=torch.int64), *stream.init_state(1, audio.device))
    (waiting, before), inner = state[:2], state[2:]
    audio = torch.cat([waiting, audio], 1)
    count = audio.shape[1] // stream.hop
    scores: list[Tensor] = []
    for begin, end in _calls(count, one_by_one):
        some, inner = stream.step(audio[:, begin * stream.hop : end * stream.hop], inner)
        scores.append(some[:, 0].float().log_softmax(-1))
    rows = torch.cat(scores) if scores else audio.new_zeros(0, 1)
    hops = before + torch.arange(1, count + 1)
    ends = hops.double() * (1000 * stream.hop / stream.sample_rate)
    return StreamScores(rows, ends), (audio[:, count * stream.hop :], before + count, *inner)


def _calls(count: int, one_by_one: bool) -> list[tuple[int, int]]:
    if one_by_one:
        return [(hop, hop + 1) for hop in range(count)]
    return [(0, count)] if count else []
