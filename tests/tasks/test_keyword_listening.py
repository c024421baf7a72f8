from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressnet.errors import UsageError
from compressnet.models.keyword_spotting import KeywordSpotter, SlidingWindow
from compressnet.models.kws_svdf import kws_low_latency_svdf, kws_svdf
from compressnet.models.kws_tf import kws_low_latency_conv, kws_single_fc, kws_tiny_conv
from compressnet.tasks.keyword_listening import State, StreamScores, can_stream, listen, streaming

RATE = 16_000
FEATURES: dict[str, Any] = {
    "num_classes": 3,
    "hop_ms": 20.0,
    "coefficients": 8,
    "feature_mean": [0.0] * 8,
    "feature_scale": [10.0] * 8,
}
SMALL = {**FEATURES, "clip_ms": 310.0}  # 15 frames
MODELS: dict[str, Callable[[], KeywordSpotter]] = {
    "kws_single_fc": lambda: kws_single_fc(**SMALL),
    "kws_low_latency_conv": lambda: kws_low_latency_conv(filters=4, hidden_size=4, **SMALL),
    "kws_low_latency_svdf": lambda: kws_low_latency_svdf(units=6, hidden_size=4, **SMALL),
    "kws_low_latency_svdf, rank 0": lambda: kws_low_latency_svdf(units=6, rank=0, hidden_size=4, **SMALL),
    "kws_svdf": lambda: kws_svdf(size="30k", norm=True, **FEATURES),
    "kws_tiny_conv": lambda: kws_tiny_conv(**SMALL),
}
SOUND = torch.randn(1, RATE * 13 // 10, generator=torch.Generator().manual_seed(1)) / 10  # 65 hops


def made(name: str) -> KeywordSpotter:
    """A model whose scores differ enough to be told apart."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


@torch.inference_mode()
def in_pieces(model: nn.Module, pieces: list[Tensor], one_by_one: bool = False) -> StreamScores:
    state: State = ()
    heard = []
    for piece in pieces:
        scores, state = listen(model, piece, state, one_by_one)
        heard.append(scores)
    rows = [scores.log_p for scores in heard if len(scores.log_p)]
    return StreamScores(torch.cat(rows), torch.cat([scores.ends_ms for scores in heard]))


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_has_the_scores_of_its_clips(name: str) -> None:
    model = made(name)
    whole = in_pieces(model, [SOUND])
    hops = SOUND.shape[1] // model.hop
    assert whole.log_p.shape == (hops, 3)
    torch.testing.assert_close(whole.ends_ms, torch.arange(1, hops + 1).double() * (1000 * model.hop / RATE))
    torch.testing.assert_close(whole.log_p.exp().sum(1), torch.ones(hops))
    clip = model.features.samples(model.frames)
    before = torch.zeros(1, clip)  # a stream is preceded by silence
    padded = torch.cat([before, SOUND], 1)
    for end in (1, 3, hops // 2, hops):  # in silence at first
        with torch.inference_mode():
            wanted = model(padded[:, end * model.hop :][:, :clip]).log_softmax(-1)
        torch.testing.assert_close(whole.log_p[end - 1 : end], wanted, rtol=1e-5, atol=1e-5)
    assert whole.log_p.std(0).min() > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_hop_by_hop_is_the_same(name: str) -> None:
    model = made(name)
    torch.testing.assert_close(
        in_pieces(model, [SOUND], True), in_pieces(model, [SOUND]), rtol=1e-5, atol=1e-5
    )


@pytest.fixture(scope="module", params=["kws_low_latency_svdf", "kws_svdf", "kws_tiny_conv"])
def known(request: pytest.FixtureRequest) -> tuple[KeywordSpotter, StreamScores]:
    """A model, and what it says of the whole sound."""
    model = made(request.param)
    return model, in_pieces(model, [SOUND])


@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(0, SOUND.shape[1]), max_size=8).map(sorted), one_by_one=st.booleans())
def test_pieces_of_any_length_are_the_same(
    known: tuple[KeywordSpotter, StreamScores], cuts: list[int], one_by_one: bool
) -> None:
    model, whole = known
    pieces = list(SOUND.tensor_split(cuts, 1))
    torch.testing.assert_close(in_pieces(model, pieces, one_by_one), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["kws_svdf", "kws_tiny_conv"])
def test_what_makes_no_hop_waits(name: str) -> None:
    model = made(name)
    scores, state = listen(model, SOUND[:, : model.hop - 1], ())
    assert (len(scores.log_p), len(scores.ends_ms)) == (0, 0)
    scores, state = listen(model, SOUND[:, :0], state)
    assert len(scores.log_p) == 0
    scores, _ = listen(model, SOUND[:, model.hop - 1 : model.hop], state)
    assert scores.ends_ms.tolist() == [1000 * model.hop / RATE]


def test_which_models_stream() -> None:
    assert [name for name in MODELS if not can_stream(made(name))] == ["kws_tiny_conv"]
    model = made("kws_tiny_conv")
    assert isinstance(streaming(model), SlidingWindow)
    assert streaming(model).hop == model.hop
    model = made("kws_svdf")
    assert streaming(model) is model
    with pytest.raises(UsageError, match="Linear has no `step`, and is no keyword spotter: it cannot stream"):
        listen(nn.Linear(2, 2), SOUND, ())
