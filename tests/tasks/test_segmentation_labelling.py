"""From photographs to label maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressnet.errors import CompressnetError, NotFinite
from compressnet.layers.folded import in_channels_last
from compressnet.models.segmentation import shuffleseg
from compressnet.tasks.segmentation_labelling import Labeller, at_side


class Colours(nn.Module):
    """Scores that are the planes of the picture: the best output is its strongest colour."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape[2:]))
        return x * self.scale


def photograph(height: int, width: int) -> Tensor:
    """Red on the left, blue on the right."""
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    image[:, 0, :, : width // 2] = 200
    image[:, 2, :, width // 2 :] = 200
    return image


def seen(labeller: Labeller) -> list[tuple[int, ...]]:
    assert isinstance(labeller.network, Colours)
    return labeller.network.seen


@pytest.mark.parametrize("size", [(40, 60), (20, 30), (33, 57), (1, 1), (5, 300)])
@pytest.mark.parametrize("upsample", ["logits", "nearest"])
def test_maps_have_the_size_of_the_photograph(size: tuple[int, int], upsample: str) -> None:
    labeller = Labeller(Colours(), 20, upsample=upsample)  # type: ignore[arg-type]
    labels = labeller(photograph(*size))
    assert labels.shape == (1, *size)
    assert labels.dtype == torch.uint8
    assert min(seen(labeller)[0]) == 20
    if size[1] > 20:
        assert (labels[0, :, 0] == 0).all()
        assert (labels[0, :, -1] == 2).all()


def test_native_size_and_scales() -> None:
    labeller = Labeller(Colours(), None, scales=(0.5, 1.0), flip=True)
    labels = labeller(photograph(20, 40))
    assert seen(labeller) == [(10, 20), (10, 20), (20, 40), (20, 40)]
    assert (labels[0, :, :18] == 0).all()
    assert (labels[0, :, 22:] == 2).all()


def test_the_output_ignored_is_255() -> None:
    labels = Labeller(Colours(), None, ignored=2)(photograph(4, 8))
    assert labels[0].unique().tolist() == [0, 255]


def test_scores_that_are_not_finite_are_refused() -> None:
    model = Colours()
    with torch.no_grad():
        model.scale.fill_(torch.nan)
    with pytest.raises(NotFinite):
        Labeller(model, None)(photograph(4, 8))


def test_the_network_is_folded_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = shuffleseg(num_classes=4, head="bilinear", width=0.25).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():  # as in an evaluation
        made = in_channels_last(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    x = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        wanted = model.eval()(x)
        assert (made(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_photographs_are_scaled_by_their_short_side() -> None:
    assert at_side(photograph(20, 40), 10).shape[2:] == (10, 20)
    assert at_side(photograph(40, 20), 10, 2.0).shape[2:] == (40, 20)
    assert at_side(photograph(40, 20), None).shape[2:] == (40, 20)
    with pytest.raises(
        CompressnetError, match="60000x1 pixels would be scaled to 21,600,000x360: take size=native"
    ):
        at_side(photograph(1, 60_000), 360)
