"""Segmentation of clips: what is drawn, what is told, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from compressnet.errors import CompressnetError, NotFinite, UsageError
from compressnet.reporter import Silent
from compressnet.source import Source
from compressnet.tasks.artefacts import Artefact
from compressnet.tasks.segmentation import Segmentation
from compressnet.tasks.segmentation_map import LabelMap

pytest.importorskip("av")

from compressnet.tasks.video import Video
from tests.data.clips import film, picture, seen

NAMES = ["apple", "grass", "sea"]
COLOURS = [[240, 240, 16], [16, 240, 240], [240, 16, 240]]
ASSETS = {
    "classes": NAMES,
    "ids": [1, 2, 3],
    "colours": COLOURS,
    "ignored_ids": [0],
    "ignored_colours": [],
    "short_side": 48,
    "class_pixels": [1, 1, 1, 0],
}


class Colours(nn.Module):
    """Scores that are the planes of the picture: the best output is its strongest colour."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Counting(Silent):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None, str]] = []
        self.done = 0

    def stage(self, name: str, total: int | None, unit: str, initial: int = 0) -> None:
        self.stages.append((name, total, unit))

    def advance(self, n: int = 1, **scalars: float) -> None:
        self.done += n


def apply(*paths: Path, model: nn.Module | None = None, reporter: Any = None, **options: Any) -> list[Any]:
    task = Segmentation()
    task.use(ASSETS)
    sources = [Source.of(path) for path in paths]
    answers = task.apply(model or Colours(), sources, options, reporter or Silent())
    return [artefact for _, artefact in answers]


def made(artefact: Artefact, path: Path) -> list[np.ndarray]:
    assert isinstance(artefact, Video)
    assert artefact.write(path) == []
    return seen(path).frames


def mean(pixels: np.ndarray) -> list[int]:
    return [round(float(value)) for value in pixels.reshape(-1, 3).mean(0)]


def near(pixels: np.ndarray, colour: list[int]) -> bool:
    """Away from edges, which a film blurs."""
    return bool(np.abs(np.array(mean(pixels[4:44, 4:-4])) - colour).max() <= 6)


def test_labels_are_drawn_in_their_colours(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4")
    (video,) = apply(path, output="labels")
    frames = made(video, tmp_path / "out.mp4")
    assert len(frames) == 10
    for frame in frames:
        assert frame.shape == (48, 64, 3)
        assert near(frame[:, :32], COLOURS[0])
        assert near(frame[:, 32:], COLOURS[2])


def test_an_overlay_is_the_photographs_with_all_classes_in_its_legend(tmp_path: Path) -> None:
    pixels = picture(5, (240, 48))
    path = film(tmp_path / "film.mp4", [pixels] * 3)
    PILImage.fromarray(pixels).save(tmp_path / "photo.png")
    photograph, video = apply(tmp_path / "photo.png", path, opacity=0.25)
    assert isinstance(photograph, LabelMap)
    photograph.write(tmp_path / "still.png")
    still = np.asarray(PILImage.open(tmp_path / "still.png"))
    frames = made(video, tmp_path / "out.mp4")
    assert frames[0].shape == still.shape == (62, 240, 3)
    assert np.abs(frames[1][:48].astype(int) - still[:48]).mean() < 5
    assert (still[48:].astype(int) - frames[1][48:]).max() > 100  # "grass", which is not there
    (plain,) = apply(path, opacity=0.25, legend=False)
    assert made(plain, tmp_path / "out.mp4")[0].shape == (48, 240, 3)


def test_a_mask_and_what_is_told(tmp_path: Path) -> None:
    reporter = Counting()
    path = film(tmp_path / "film.mp4")
    (video,) = apply(path, output="mask", only=["sea", "grass"], reporter=reporter)
    assert video.as_json()["frames"] == 0
    frames = made(video, tmp_path / "out.mp4")
    assert near(frames[3][:, :32], [0, 0, 0])
    assert near(frames[3][:, 32:], [255, 255, 255])
    told = video.as_json()
    assert told["frames"] == 10
    assert told["seconds"] == pytest.approx(1.0)
    assert set(told["shares"]) == {"sea"}
    assert told["shares"]["sea"] == pytest.approx(0.5, abs=0.03)
    assert reporter.stages == [(str(path), 10, "frames")]
    assert reporter.done == 10


def test_values_are_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4")
    task = Segmentation()
    assert task.makes({"output": "label_ids"}, "image") is LabelMap
    with pytest.raises(UsageError, match="output=label_ids: a film does not keep values"):
        task.makes({"output": "label_ids"}, "video")
    (error,) = apply(path, output="label_ids")
    assert isinstance(error, UsageError)


def test_scores_that_are_not_finite_name_the_frame(tmp_path: Path) -> None:
    model = Colours()
    with torch.no_grad():
        model.scale.fill_(torch.nan)
    (video,) = apply(film(tmp_path / "film.mp4"), model=model)
    with pytest.raises(NotFinite, match=r"film.mp4: frame 1: "):
        video.write(tmp_path / "out.mp4")


def test_a_clip_that_has_gone_is_told_of_the_input(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4")
    (video,) = apply(path)
    path.unlink()
    with pytest.raises(CompressnetError, match=r"film.mp4: cannot be read: No such file"):
        video.write(tmp_path / "out.mp4")
