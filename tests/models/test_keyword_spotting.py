"""Keyword spotters: the counts of their papers, and streams that say what whole windows say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.analysis.count import count
from compressnet.analysis.streamed import streamed
from compressnet.errors import UsageError
from compressnet.layers.fold import difference, folding
from compressnet.layers.svdf import SVDF
from compressnet.models.keyword_spotting import KeywordSpotter, SlidingWindow, StreamingSpotter

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "speech_commands"
STREAMS = ["kws_single_fc", "kws_low_latency_conv", "kws_low_latency_svdf", "kws_svdf"]
OTHERS = ["kws_conv", "kws_tiny_conv", "kws_tiny_embedding_conv", "kws_ds_cnn", "kws_bc_resnet"]


def build(name: str, **arguments: Any) -> KeywordSpotter:
    torch.manual_seed(0)
    model = compressnet.create(name, **arguments).eval()
    assert isinstance(model, KeywordSpotter)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # as if it had learned
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    for parameter in model.parameters():  # TensorFlow's beginnings are too small to see differences
        if parameter.ndim > 1 and float(parameter.detach().std()) < 0.02:
            parameter.data *= 0.2 / float(parameter.detach().std()) / parameter[0].numel() ** 0.5
    return model


def noise(batch: int, samples: int) -> Tensor:
    return torch.rand(batch, samples, generator=torch.Generator().manual_seed(1)) * 0.4 - 0.2


def on_meta(name: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return compressnet.create(name, **arguments)


def macs_of_network(model: nn.Module, batch: int = 1) -> int:
    counted = count(model, model.example(batch))  # type: ignore[operator]
    return sum(layer.macs for layer in counted.layers if not layer.path.startswith("features"))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("rank", "wanted", "a_frame"),
    [(1, 574_732, 572_928), (2, 751_372, 749_568), (3, 928_012, 926_208), (4, 1_104_652, 1_102_848)],
)
def test_the_ranks_of_low_latency_svdf(rank: int, wanted: int, a_frame: int) -> None:
    with torch.device("meta"):
        model = compressnet.create("kws_low_latency_svdf", rank=rank)
        assert parameters(model) == wanted
        step = streamed(model)
    assert step is not None
    front_end = 240 * 2 * 127 + 127 * 40 + 40 * 40
    assert step.macs - front_end == a_frame
    assert step.state == rank * 1280 * 98 + 320


def test_low_latency_svdf_by_windows() -> None:
    assert macs_of_network(on_meta("kws_low_latency_svdf", form="factored")) == 10_682_368
    assert parameters(on_meta("kws_low_latency_svdf", rank=0)) == 5_415_692


@pytest.mark.parametrize(
    ("arguments", "wanted", "a_frame", "memories"),
    [
        ({"size": "354k"}, 354_444, 352_256, 13_824),
        ({"size": "30k"}, 32_716, 32_128, 2_944),
        ({"size": "30k", "norm": True}, 33_324, 32_128, 2_944),
    ],
)
def test_stacked_svdf(arguments: dict[str, Any], wanted: int, a_frame: int, memories: int) -> None:
    with torch.device("meta"):
        model = compressnet.create("kws_svdf", **arguments)
        assert parameters(model) == wanted
        step = streamed(model)
    assert step is not None
    assert isinstance(model, StreamingSpotter)
    cosines = model.features.cosines
    front_end = 2 * cosines.numel() + cosines.shape[1] * 80 + 80 * model.features.width
    assert step.macs - front_end == a_frame
    assert step.state == memories + 320
    assert model.network.window == model.frames == 49


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("hops", [1, 2, 7])
def test_streams_say_what_windows_say_from_the_first_hop_on(name: str, hops: int) -> None:
    model = build(name)
    assert isinstance(model, StreamingSpotter)
    audio = noise(2, 14 * model.hop)
    state, scores = model.init_state(2), []
    with torch.inference_mode():
        for piece in audio.split(hops * model.hop, 1):
            some, state = model.step(piece, state)
            scores.append(some)
        window = SlidingWindow.of(model)
        wanted, _ = window.step(audio, window.init_state(2))
    assert difference(torch.cat(scores), wanted) < 1e-5


@pytest.mark.skipif(not CLIPS.is_dir(), reason="speech_commands is not there")
@pytest.mark.parametrize("name", STREAMS)
def test_real_clips_in_a_stream(name: str) -> None:
    """Five clips as one stream: at the end of each its scores are those of the clip alone."""
    from compressnet.data.audio import read_audio

    model = build(name)
    assert isinstance(model, StreamingSpotter)
    paths = [sorted((CLIPS / word).glob("*.flac"))[0] for word in ("yes", "no", "up", "left", "bed")]
    clips = [torch.from_numpy(read_audio(path).samples)[None] for path in paths]
    clips = [nn.functional.pad(clip, (0, 16_000 - clip.shape[1])) for clip in clips]
    for hops in (1, 2, 7):
        state, scores = model.init_state(1), []
        with torch.inference_mode():
            for piece in torch.cat(clips, 1).split(hops * model.hop, 1):
                some, state = model.step(piece, state)
                scores.append(some)
            wanted = torch.cat([model(clip) for clip in clips])
        ends = [16_000 * number // model.hop - 1 for number in range(1, 6)]
        assert difference(torch.cat(scores)[ends, 0], wanted) < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_others_do_not_stream_by_themselves(name: str) -> None:
    model = build(name)
    assert not hasattr(model, "step")
    assert streamed(model) is None
    window = SlidingWindow.of(model)
    audio = noise(1, 16_000)
    with torch.inference_mode():
        last = window.step(audio[:, : 3 * model.hop], window.init_state(1))
        scores, _ = window.step(audio[:, 3 * model.hop : 4 * model.hop], last[1])
        clip = torch.cat([torch.zeros(1, 16_000 - 4 * model.hop), audio[:, : 4 * model.hop]], 1)
        assert difference(scores[0], model(clip)) < 1e-5


@pytest.mark.parametrize(
    ("name", "arguments"), [("kws_low_latency_svdf", {}), ("kws_svdf", {"size": "30k", "norm": True})]
)
def test_folding(name: str, arguments: dict[str, Any]) -> None:
    model = build(name, **arguments)
    found = folding(model)
    assert found is not None
    folded = copy.deepcopy(model)
    found.apply(folded)
    audio = noise(2, 16_000)
    with torch.inference_mode():
        assert difference(folded(audio), model(audio)) < 1e-5
        stepped = [m.step(audio[:, : m.hop], m.init_state(2))[0] for m in (folded, model)]  # type: ignore[operator]
    assert difference(*stepped) < 1e-5
    assert parameters(folded) == {"kws_low_latency_svdf": 369_932, "kws_svdf": 32_716}[name]


def test_a_linear_first_layer_becomes_svdf_and_streams_as_one() -> None:
    model = build("kws_low_latency_svdf", rank=0, units=64, hidden_size=16)
    audio = noise(1, 16_000)
    first: Any = model.network.first
    first.weight.data = SVDF(40, 64, 98, rank=3).weight.detach()
    made, _ = compressnet.compress(model, audio, "svdf:frames=98,rank=3")
    assert isinstance(made, StreamingSpotter)
    assert isinstance(made.network.first, SVDF)
    with torch.inference_mode():
        assert difference(made(audio), model(audio)) < 1e-4
        stepped = [m.step(audio[:, : m.hop], m.init_state(1))[0] for m in (made, model)]  # type: ignore[operator]
    assert difference(*stepped) < 1e-4


def test_gradients_through_a_clip() -> None:
    model = build("kws_svdf", size="30k", norm=True).train()
    model(noise(2, 16_000)).sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_windows_of_another_length() -> None:
    model = on_meta("kws_low_latency_svdf")
    with pytest.raises(ValueError, match="takes 98 frames, got 97"):
        model.example(1, 97)  # type: ignore[operator]
    with pytest.raises(UsageError, match="see 49 frames, clips have 24"):
        on_meta("kws_svdf", clip_ms=500.0)
    with pytest.raises(UsageError, match="shorter than a window"):
        on_meta("kws_single_fc", clip_ms=20.0)
    window = SlidingWindow.of(build("kws_single_fc"))
    with pytest.raises(ValueError, match="a step takes"):
        window.step(noise(1, 161), window.init_state(1))
