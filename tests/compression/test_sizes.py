"""Sizes by ratio, rank and energy; what data is good for; what it may not be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressnet.analysis.count import count
from compressnet.compression.methods import build
from compressnet.compression.ranks import in_proportion
from compressnet.errors import CompressnetError, NotFinite, UsageError
from tests.compression.networks import Classifier, compress, network, off, pictures, settled

METHODS = ["svd", "channel_in", "channel_out", "spatial", "tucker", "als"]
LAYER = {"svd": "fc1", "channel_in": "conv2", "als": "conv2"}


def macs(module: nn.Module, path: str) -> int:
    rows = count(module, (pictures(1)[0][:1],)).layers
    return sum(row.macs for row in rows if row.path == path or row.path.startswith(f"{path}."))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_a_ratio_is_kept_and_the_next_rank_would_break_it(method: str, ratio: float) -> None:
    net, inputs, path = settled(), pictures(4), LAYER.get(method, "conv2")
    result = compress(net, inputs, f"{method}:ratio={ratio}", only=[path])
    share = macs(result.module, path) / macs(net, path)
    assert share <= ratio
    how: Any = build("channel_out" if method == "als" else method)
    (part,) = (part for part in network(net, inputs).parts if part.path == path)
    costs = [sum(s.macs for s in how.sizes(part, ranks)) for ranks in in_proportion(how.full(part))]
    chosen = costs.index(macs(result.module, path))
    assert costs[chosen + 1] > ratio * macs(net, path)


@pytest.mark.parametrize("method", METHODS)
def test_a_rank_that_makes_a_layer_larger_is_refused_with_the_break_even(method: str) -> None:
    net, inputs, path = settled(), pictures(2), LAYER.get(method, "conv2")
    full = {"svd": 40, "channel_in": 16, "spatial": 48}.get(method, 32)
    with pytest.raises(UsageError, match=r"rank \S+ makes it larger: it breaks even above rank \d+"):
        compress(net, inputs, f"{method}:rank={full}", only=[path])
    with pytest.raises(UsageError, match="is above its full rank"):
        compress(net, inputs, f"{method}:rank=1000", only=[path])


@pytest.mark.parametrize("method", ["svd", "channel_in", "channel_out", "spatial", "tucker", "als"])
def test_more_energy_less_error(method: str) -> None:
    net, inputs = settled(norm=False), pictures(4)
    path = LAYER.get(method, "conv2")
    errors = [
        off(compress(net, inputs, f"{method}:energy={energy}", only=[path]).module, net, inputs)
        for energy in ((0.6, 0.95, 0.995) if method == "svd" else (0.6, 0.8, 0.93))
    ]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("method", ["svd", "channel_in", "channel_out", "spatial", "tucker"])
def test_data_makes_better_factors_than_weights_alone(method: str) -> None:
    net, inputs, path = settled(norm=False), pictures(), LAYER.get(method, "conv2")
    aware = compress(net, inputs, f"{method}:ratio=0.3", only=[path]).module
    free = compress(net, None, f"{method}:ratio=0.3", only=[path])
    assert off(aware, net, inputs) < off(free.module, net, inputs)


@pytest.mark.parametrize("size", ["ratio=0.5", "rank=6", "energy=0.9"])
@pytest.mark.parametrize("norm", [False, True])
def test_als_makes_good_what_came_before(size: str, norm: bool) -> None:
    net, inputs = settled(norm), pictures()
    once = compress(net, inputs, f"channel_out:{size}").module
    both = compress(once, inputs, f"svd:{size}", skip=["conv1.*", "conv2.*"]).module
    fitted = compress(net, inputs, f"als:{size}").module
    assert off(fitted, net, inputs) < off(both, net, inputs)


def test_als_without_data() -> None:
    with pytest.raises(UsageError, match="als: it fits layers to data: use svd or channel_out"):
        compress(nn.Sequential(nn.Linear(20, 20)), None, "als")


@pytest.mark.parametrize("method", METHODS)
def test_dead_channels_are_no_error(method: str) -> None:
    net, inputs, path = settled(), pictures(2), LAYER.get(method, "conv2")
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith(("norm", "conv1", "mix")):
                parameter[:4] = 0
    inputs = [x * 0 for x in inputs] if method == "als" else inputs
    made = compress(net, inputs, f"{method}:ratio=0.5", only=[path]).module
    assert all(torch.isfinite(p).all() for p in made.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_is_named(method: str) -> None:
    net, inputs, path = settled(), pictures(2), LAYER.get(method, "conv2")
    inputs[1][0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFinite, match=rf"^{path}: on the calibration data its values are not finite"):
        compress(net, inputs, method, only=[path])


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("tuker", r"there is no method 'tuker' - did you mean 'tucker'\?"),
        ("tucker:ration=0.5", "method tucker: unknown key 'ration' - did you mean 'ratio'"),
        ("tucker:ratio=1.5", "method tucker: .*ratio"),
        ("tucker:rank=0", "method tucker: .*rank"),
        ("svd:ratio=0.5,rank=3", "method svd: ratio and rank both say how large: keep one"),
        ("svd:rank=[3,4]", "two ranks"),
        ("softmax", "method softmax: the network has no layer for it"),
        ("svdf", "method svdf: 'frames' is missing"),
        ("densify", "method densify: the network has no layer for it"),
        ("lstmp", "method lstmp: the network has no layer for it"),
    ],
)
def test_bad_methods_are_refused_in_one_line(methods: str, message: str) -> None:
    with pytest.raises(CompressnetError, match=message) as error:
        compress(Classifier().double().eval(), pictures(1), methods)
    assert "\n" not in str(error.value)


def test_patterns_that_match_nothing() -> None:
    with pytest.raises(UsageError, match=r"--only convX\*: no layer has such a path \(there are conv1, "):
        compress(Classifier().double().eval(), pictures(1), "svd", only=["convX*"])


def test_no_calibration_data() -> None:
    with pytest.raises(UsageError, match="or None to look at the weights alone"):
        compress(Classifier(), [], "svd")
