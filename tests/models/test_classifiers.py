"""ResNet and AlexNet: sizes of the papers, names of torchvision, folding, what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import compressnet
from compressnet.analysis.count import count
from compressnet.analysis.fold import fold
from compressnet.models.resnet import PaddedShortcut, ResNet
from tests.cli.conftest import Cli, cli, place  # noqa: F401 - fixtures

KNOWN = [  # model, arguments, parameters, MACs
    ("resnet18", {}, 11_689_512, 1_814_073_344),
    ("resnet10", {}, 4_903_242, 253_432_832),
    ("resnet20", {}, 269_722, 40_551_040),
    ("alexnet", {}, 61_100_840, 714_188_480),
    ("alexnet", {"width": "wide"}, 62_378_344, 1_135_256_096),
]
# torchvision.models.resnet18().state_dict(): the names of one block of each kind, with shapes.
TORCHVISION = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1.weight": (64,),
    "bn1.bias": (64,),
    "bn1.running_mean": (64,),
    "bn1.running_var": (64,),
    "bn1.num_batches_tracked": (),
    "layer1.0.conv1.weight": (64, 64, 3, 3),
    "layer1.0.bn1.weight": (64,),
    "layer1.0.conv2.weight": (64, 64, 3, 3),
    "layer1.0.bn2.running_var": (64,),
    "layer1.1.conv2.weight": (64, 64, 3, 3),
    "layer2.0.conv1.weight": (128, 64, 3, 3),
    "layer2.0.downsample.0.weight": (128, 64, 1, 1),
    "layer2.0.downsample.1.weight": (128,),
    "layer2.0.downsample.1.bias": (128,),
    "layer2.0.downsample.1.running_mean": (128,),
    "layer3.0.downsample.0.weight": (256, 128, 1, 1),
    "layer4.0.downsample.0.weight": (512, 256, 1, 1),
    "layer4.1.bn2.num_batches_tracked": (),
    "fc.weight": (1000, 512),
    "fc.bias": (1000,),
}


@pytest.mark.parametrize(("name", "arguments", "parameters", "macs"), KNOWN)
def test_parameters_and_macs(name: str, arguments: dict[str, str], parameters: int, macs: int) -> None:
    with torch.device("meta"):
        model = compressnet.create(name, **arguments)
        inputs = model.example()  # type: ignore[operator]
    found = count(model, inputs)
    assert found.parameters == parameters
    assert found.macs == macs
    assert not found.problems


def test_count_params_tells_them(cli: Cli) -> None:  # noqa: F811
    side = json.loads(cli("count-params", "resnet18", "--json").stdout)["sides"][0]
    assert (side["params"], side["macs_pass"]) == (11_689_512, 1_814_073_344)


def test_names_are_torchvisions() -> None:
    with torch.device("meta"):
        tensors = compressnet.create("resnet18").state_dict()
    assert len(tensors) == 122
    assert {name: tuple(tensors[name].shape) for name in TORCHVISION} == TORCHVISION
    assert not [name for name in tensors if name.startswith("layer1.0.downsample")]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"widths": [4, 6, 8, 8], "num_classes": 3}),
        ("resnet20", {"widths": [4, 6, 9], "num_classes": 3}),
        ("alexnet", {"batch_norm": True, "hidden": 8, "num_classes": 3}),
    ],
)
def test_folds(name: str, arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = compressnet.create(name, **arguments)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.uniform_(tensor, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    model.eval().double()
    inputs = [x.double() for x in model.example(2, 67)]  # type: ignore[operator]
    folded = fold(model, tuple(inputs))
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    with torch.no_grad():
        torch.testing.assert_close(folded(*inputs), model(*inputs), rtol=1e-9, atol=1e-9)


def test_features_halve_and_the_last_is_classified() -> None:
    model = compressnet.create("resnet18", widths=[4, 6, 8, 8], num_classes=3).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = model.features(x)  # type: ignore[operator]
        assert [tuple(m.shape[1:]) for m in maps] == [(4, 16, 24), (6, 8, 12), (8, 4, 6), (8, 2, 3)]
        torch.testing.assert_close(model.fc(maps[-1].mean((2, 3))), model(x))  # type: ignore[operator]


def test_a_padded_shortcut_takes_every_second_pixel() -> None:
    x = torch.randn(2, 3, 5, 4)
    y = PaddedShortcut(3, 2)(x)
    assert y.shape == (2, 6, 3, 2)
    assert torch.equal(y[:, 1:4], x[:, :, ::2, ::2])
    assert not y[:, [0, 4, 5]].any()


def test_what_is_refused(cli: Cli) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="3 widths for 4 stages"):
        ResNet([1, 1, 1, 1], [4, 4, 4])
    done = cli("count-params", "resnet20:widths=[16, 8, 4]", code=2)
    assert "shortcut 'padding' needs widths that do not shrink" in done.error
    assert "2 widths for 3 stages" in cli("count-params", "resnet20:widths=[16, 8]", code=2).error
    cli("count-params", "resnet20:widths=[16, 8, 4],shortcut=projection")
