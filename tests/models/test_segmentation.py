"""Networks for segmentation: the sizes of the papers, pictures of any size, layouts, types, folding."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressnet
from compressnet import weights
from compressnet.analysis.count import count
from compressnet.analysis.fold import fold
from compressnet.models.seg_decoders import enlarging, start
from compressnet.models.seg_encoders import cityscapes
from tests.cli.conftest import Cli, cli, place  # noqa: F401 - fixtures

PAIRS = [
    (encoder, decoder)
    for encoder in ("shufflenet", "mobilenet", "resnet18")
    for decoder in ("skip", "unet", "dilation")
    if (encoder, decoder) != ("resnet18", "dilation")
]
GRID = [  # million parameters, GFLOP at 360x640 and at 512x1024: the table of the specification
    (1.015, 2.00, 4.48),
    (6.381, 7.94, 17.61),
    (0.987, 6.95, 15.81),
    (3.369, 6.14, 13.72),
    (9.910, 24.69, 55.48),
    (8.575, 62.4, 142.1),
    (11.31, 17.78, 39.68),
    (11.54, 19.48, 43.54),
]
V1: dict[str, Any] = {"variant": "shufflenet_v1"}
SHUFFLESEG: list[tuple[dict[str, Any], int, float]] = [  # arguments, parameters, billion MACs at 360x640
    ({}, 1_014_682, 0.998505944),
    ({"bias": False}, 1_002_814, 0.998505944),
    ({"bias": False, "num_classes": 19}, 989_888, 0.960),
    (V1, 1_066_048, 1.048),
    ({**V1, "bias": False}, 1_053_808, 1.048),
    ({**V1, "bias": False, "num_classes": 19}, 1_040_882, 1.009),
    ({"head": "bilinear"}, 912_262, 0.630),
    ({"head": "bilinear", "bias": False}, 900_394, 0.630),
    ({**V1, "head": "bilinear", "bias": False, "num_classes": 19}, 948_447, 0.677),
]
LARGER: list[tuple[dict[str, Any], float, float]] = [  # at 512x1024 and 1024x2048; biases change nothing
    ({}, 2.2407, 8.965),
    ({**V1, "num_classes": 19}, 2.264, 9.054),
    ({**V1, "num_classes": 19, "head": "bilinear"}, 1.506, 6.026),
]
# Of the encoder alone, with biases: parameters and MACs at 224x224. The paper's table 2 has 143, 140, 137,
# 133 and 137 million.
ENCODERS = {
    ("released", 1): (907_866, 130_964_256),
    ("released", 2): (890_036, 128_934_620),
    ("released", 3): (865_602, 125_812_944),
    ("released", 4): (843_512, 123_170_096),
    ("released", 8): (866_952, 127_144_008),
    ("shufflenet_v1", 1): (962_280, 142_502_976),
    ("shufflenet_v1", 2): (943_048, 140_036_512),
    ("shufflenet_v1", 3): (916_968, 136_500_672),
    ("shufflenet_v1", 4): (893_216, 133_251_776),
    ("shufflenet_v1", 8): (917_352, 136_829_952),
}
LAST = torch.channels_last


def printed(value: float, like: float) -> bool:
    """Whether it is `like` in the digits that a table has of that."""
    digits = len(str(like).partition(".")[2])
    return abs(value - like) <= 0.5001 * 10.0**-digits


def on_meta(name: str, **arguments: Any) -> Any:
    with torch.device("meta"):
        return compressnet.create(name, **arguments)


def counted(module: Any, *size: int) -> tuple[int, int]:
    """Parameters and MACs, by formula and by trace alike."""
    found = count(module, torch.empty(1, 3, *size, device="meta"))
    assert not found.problems
    return found.parameters, found.macs


@cache
def small(encoder: str, decoder: str) -> Any:
    """Three classes, few channels, and norms that do something in evaluation. To be left as it is."""
    torch.manual_seed(0)
    settings = {"encoder": encoder, "decoder": decoder, "num_classes": 3, "width": 0.25}
    model = compressnet.create("segmenter", **settings)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize(("pair", "known"), list(zip(PAIRS, GRID, strict=True)), ids=str)
def test_the_grid_of_the_papers(pair: tuple[str, str], known: tuple[float, float, float]) -> None:
    model = on_meta("segmenter", encoder=pair[0], decoder=pair[1])
    parameters, macs = counted(model, 360, 640)
    larger = counted(model, 512, 1024)[1]
    for value, like in zip((parameters / 1e6, 2 * macs / 1e9, 2 * larger / 1e9), known, strict=True):
        assert printed(value, like)


@pytest.mark.parametrize(("arguments", "parameters", "macs"), SHUFFLESEG)
def test_shuffleseg(arguments: dict[str, Any], parameters: int, macs: float) -> None:
    found = counted(on_meta("shuffleseg", **arguments), 360, 640)
    assert found[0] == parameters
    assert printed(found[1] / 1e9, macs)


@pytest.mark.parametrize(("arguments", "half", "whole"), LARGER)
def test_shuffleseg_at_the_sizes_of_cityscapes(arguments: dict[str, Any], half: float, whole: float) -> None:
    model = on_meta("shuffleseg", **arguments)
    assert printed(counted(model, 512, 1024)[1] / 1e9, half)
    assert printed(counted(model, 1024, 2048)[1] / 1e9, whole)


@pytest.mark.parametrize(("variant", "groups"), ENCODERS)
def test_encoders_of_shufflenet(variant: str, groups: int) -> None:
    model = on_meta("shuffleseg", variant=variant, groups=groups)
    assert counted(model.encoder, 224, 224) == ENCODERS[variant, groups]


@pytest.mark.parametrize(
    ("decoder", "parameters", "gflop"), [("unet", 6_432_236, 8.04), ("dilation", 1_038_608, 7.31)]
)
def test_other_decoders_of_the_papers_shufflenet(decoder: str, parameters: int, gflop: float) -> None:
    found, macs = counted(on_meta("segmenter", decoder=decoder, **V1), 360, 640)
    assert found == parameters
    assert printed(2 * macs / 1e9, gflop)


def test_segnet() -> None:
    model = on_meta("segnet")
    parameters, macs = counted(model, 360, 640)
    assert printed(parameters / 1e6, 29.455)
    assert printed(2 * macs / 1e9, 285.8)
    assert printed(2 * counted(model, 512, 1024)[1] / 1e9, 651.7)


def test_count_params_tells_them(cli: Cli) -> None:  # noqa: F811
    done = cli("count-params", "shuffleseg", "--input-size", "640x360", "--strict", "--json")
    side = json.loads(done.stdout)["sides"][0]
    assert (side["params"], side["macs_pass"]) == (1_014_682, 998_505_944)


def test_sizes_of_the_released_maps() -> None:
    """Without padding at first: odd ones, which U-Net's are filled up to even ones of."""
    x = torch.empty(1, 3, 360, 640, device="meta")
    shapes = {decoder: [tuple(m.shape[1:]) for m in on_meta("segmenter", decoder=decoder).encoder(x)]
              for decoder in ("skip", "unet", "dilation")}  # fmt: skip
    assert shapes["skip"] == [(240, 45, 80), (480, 23, 40), (960, 12, 20)]
    assert shapes["unet"] == [(24, 180, 320), (24, 90, 160), *shapes["skip"]]
    assert shapes["dilation"] == [(960, 45, 80)]
    model = on_meta("segmenter")
    assert model.encoder.conv1(x).shape == (1, 24, 179, 319)
    assert F.max_pool2d(model.encoder.conv1(x), 3, 2).shape == (1, 24, 89, 159)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_pictures_of_any_size(pair: tuple[str, str]) -> None:
    """As if their bottom and right edge went on."""
    model = small(*pair)
    for height, width in ((1, 1), (7, 5), (33, 65)):
        x = torch.rand(2, 3, height, width)
        filled = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
        with torch.no_grad():
            y = model(x)
            torch.testing.assert_close(y, model(filled)[:, :, :height, :width])
        assert y.shape == (2, 3, height, width)
        assert float(y.std()) > 1e-3


def test_segnet_takes_any_size_and_puts_values_back() -> None:
    torch.manual_seed(0)
    model: Any = compressnet.create("segnet", num_classes=3).eval()
    with torch.inference_mode():
        for size in ((1, 1), (33, 47)):
            y = model(torch.rand(1, 3, *size))
            assert y.shape == (1, 3, *size)
            assert torch.isfinite(y).all()
        x = torch.rand(1, 3, 33, 47)
        _, places, sizes = model.encoder(x)
        assert sizes == [(33, 47), (16, 23), (8, 11), (4, 5), (2, 2)]
        back = F.max_unpool2d(torch.ones(places[1].shape), places[1], (2, 2), output_size=sizes[1])
        assert back.sum() == places[1].numel()


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_channels_last_all_the_way(pair: tuple[str, str]) -> None:
    model = copy.deepcopy(small(*pair))
    x = torch.rand(2, 3, 64, 96)
    layouts = []

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            layouts.append(given[0].is_contiguous(memory_format=LAST))

    with torch.inference_mode():
        wanted = model(x)
        for module in model.modules():
            module.register_forward_pre_hook(look)
        y = model.to(memory_format=LAST)(x.contiguous(memory_format=LAST))
    assert all(layouts)
    assert y.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(y, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("encoder", ["shufflenet", "mobilenet"])
def test_dilations_learn_in_bfloat16_and_channels_last(encoder: str) -> None:
    torch.manual_seed(0)
    settings = {
        "encoder": encoder,
        "decoder": "dilation",
        "head": "bilinear",
        "width": 0.25,
        "num_classes": 3,
    }
    model = compressnet.create("segmenter", **settings).to(memory_format=LAST)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x = F.interpolate(torch.rand(4, 3, 3, 3), (24, 32)).contiguous(memory_format=LAST)
    labels = (x[:, 0] * 3).long()
    losses = []
    for _ in range(6):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_folds(pair: tuple[str, str]) -> None:
    model = small(*pair)
    x = torch.rand(2, 3, 33, 47)
    folded = fold(model, (x,))
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        wanted = model(x)
        off = (folded(x) - wanted).abs().max() / wanted.abs().max()
    assert off < 1e-5
    if pair == ("shufflenet", "unet"):  # rows of its pointwise convolutions, without ReLU between, are one
        assert count(folded, x).macs < count(model, x).macs


def test_a_file_has_what_a_network_is(tmp_path: Path) -> None:
    """The constants of its normalisation are not stored: they are made again."""
    arguments = {"encoder": "resnet18", "width": 0.05, "num_classes": 3}
    model = compressnet.create("segmenter", **arguments).eval()
    architecture = weights.Architecture(
        task="image_translation", task_args={}, model="segmenter", model_args=arguments
    )
    weights.save(tmp_path / "w.safetensors", model, architecture)
    _, again = weights.open_model(tmp_path / "w.safetensors")
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), model(x))


def test_names_of_resnet_are_torchvisions() -> None:
    names = on_meta("segmenter", encoder="resnet18").encoder.state_dict().keys()
    assert names == {name for name in on_meta("resnet18").state_dict() if not name.startswith("fc.")}


def test_pictures_become_what_the_authors_fed() -> None:
    rgb = torch.tensor([200.0, 100.0, 50.0]).view(1, 3, 1, 1)
    wanted = torch.tensor([50 - 73.29132098, 100 - 83.04442645, 200 - 72.5238962]).view(1, 3, 1, 1) / 255
    torch.testing.assert_close(cityscapes()(rgb / 255), wanted)


@pytest.mark.parametrize("scale", [2, 8])
def test_enlarging_begins_as_bilinear(scale: int) -> None:
    layer = enlarging(3, scale)
    start(layer)
    x = torch.randn(1, 3, 6, 7)
    with torch.no_grad():
        ours, wanted = (f[..., scale:-scale, scale:-scale] for f in (layer(x), bilinear(x, scale)))
    torch.testing.assert_close(ours, wanted)


def bilinear(x: Tensor, scale: int) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("subject", "message"), [
    ("segmenter:encoder=resnet18,decoder=dilation", "'resnet18' has no decoder 'dilation'"),
    ("segmenter:decoder=unet,head=bilinear", "head 'bilinear' is of 'skip' and 'dilation', not of 'unet'"),
    ("segmenter:encoder=mobilenet,groups=4", "'groups' are of 'shufflenet', not of 'mobilenet'"),
    ("shuffleseg:groups=5", "'groups' should be 1, 2, 3, 4 or 8"),
    ("shuffleseg:width=0.06", "width 0.06 leaves the first stage no channels"),
])  # fmt: skip
def test_what_is_refused(cli: Cli, subject: str, message: str) -> None:  # noqa: F811
    assert message in cli("count-params", subject, code=2).error


def test_groups_divide_other_widths() -> None:
    for groups in (3, 8):
        model = on_meta("shuffleseg", groups=groups, width=1.3, num_classes=3).eval()
        assert model(torch.empty(1, 3, 20, 30, device="meta")).shape == (1, 3, 20, 30)
