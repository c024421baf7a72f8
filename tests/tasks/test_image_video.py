"""Image processing of clips: what of a frame is told, what stops a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from compressnet.data.images import Image
from compressnet.errors import CompressnetError, NotFinite
from compressnet.reporter import Level
from compressnet.source import Source
from compressnet.tasks.image_processing import ImageOperator, ImageTranslation
from compressnet.tasks.image_video import FrameProcessing, FrameReporter

pytest.importorskip("av")

from compressnet.tasks.video import Video
from tests.data.clips import film, picture, seen
from tests.tasks.test_segmentation_video import Counting


class Scaled(nn.Module):
    """Every value times a parameter; after `good` calls NaN."""

    def __init__(self, scale: float = 0.5, good: int = 1000) -> None:
        super().__init__()
        self.scale, self.good = nn.Parameter(torch.tensor(scale)), good

    def forward(self, x: Tensor) -> Tensor:
        self.good -= 1
        return x * (self.scale if self.good >= 0 else torch.nan)


class Noting(Counting):
    """A reporter that remembers notes, too."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, str]] = []

    def note(self, level: Level, text: str) -> None:
        self.notes.append((level, text))


def apply(*paths: Path, model: nn.Module, reporter: Noting | None = None, **options: Any) -> list[Any]:
    sources = [Source.of(path) for path in paths]
    answers = ImageTranslation().apply(model, sources, options, reporter or Noting())
    return [artefact for _, artefact in answers]


@pytest.mark.parametrize("task", [ImageTranslation(), ImageOperator("rof")])
def test_what_is_read_and_made(task: ImageTranslation) -> None:
    assert task.reads == ("image", "video")
    assert task.makes({}, "image") is Image
    assert task.makes({}, "video") is Video


def test_every_frame_is_processed_and_counted(tmp_path: Path) -> None:
    reporter = Noting()
    path = film(tmp_path / "film.mp4")
    (video,) = apply(path, model=Scaled(), reporter=reporter)
    assert (video.as_json(), reporter.stages) == ({"frames": 0, "seconds": 0.0}, [])
    assert video.write(tmp_path / "out.mkv") == []
    frames = seen(tmp_path / "out.mkv").frames
    for number, frame in enumerate(frames):
        assert abs(frame[4:-4, 4:28, 0].mean() - picture(number)[0, 0, 0] / 2) < 5
    Pillow.fromarray(picture(0)).save(tmp_path / "photo.png")
    (photograph,) = apply(tmp_path / "photo.png", model=Scaled())
    assert video.as_json() == {"frames": 10, "seconds": pytest.approx(1.0), **photograph.as_json()}
    assert (reporter.stages, reporter.done) == ([(str(path), 10, "frames")], 10)


def test_what_a_network_tells_of_frames_is_told_once() -> None:
    reporter = Noting()
    within = FrameReporter(reporter)

    def process(image: Image) -> Image:
        within.stage("photograph", 48, "rows")
        within.advance(48)
        within.note("info", "in strips, not compiled")
        return image

    frames = FrameProcessing(process, within)
    for number in range(3):
        assert np.array_equal(frames(picture(number)), picture(number))
    assert (reporter.stages, reporter.done) == ([], 0)
    assert reporter.notes == [("info", "in strips, not compiled")]
    process(Image(np.zeros((2, 2, 3), np.float32)))  # a photograph
    assert (reporter.stages, reporter.done) == ([("photograph", 48, "rows")], 48)
    assert len(reporter.notes) == 2


def test_every_value_of_a_byte_comes_back() -> None:
    within = FrameReporter(Noting())
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(FrameProcessing(lambda image: image, within)(pixels), pixels)


def test_an_output_that_is_not_finite_names_the_frame(tmp_path: Path) -> None:
    (video,) = apply(film(tmp_path / "film.mp4"), model=Scaled(good=3))
    with pytest.raises(NotFinite, match=r"^\S+film.mp4: frame 4: the network's output"):
        video.write(tmp_path / "out.mp4")


def test_memory_that_does_not_suffice_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scaled()
    (video,) = apply(film(tmp_path / "film.mp4"), model=model)

    def full(x: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(
        CompressnetError, match=r"film.mp4: out of memory: set max_memory \(--max-memory MB\), or scale the"
    ):
        video.write(tmp_path / "out.mp4")
