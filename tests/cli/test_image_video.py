"""Clips as a user processes them: each frame as a picture of its own would be, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import compressnet
from compressnet import weights
from tests.cli.conftest import Cli
from tests.cli.test_toy_systems import Stdin

pytest.importorskip("av")

from compressnet.data import video_writing
from compressnet.data.video import open_clip
from tests.data.clips import film, picture, seen
from tests.data.test_video import SHARED

QUICK = "operator:rof:weight=0.1,max_iterations=5"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What the encoder is given, frame by frame."""
    given: list[np.ndarray] = []

    def padded(pixels: np.ndarray) -> np.ndarray:
        given.append(whole(pixels).copy())
        return given[-1]

    whole = video_writing.padded
    monkeypatch.setattr(video_writing, "padded", padded)
    return given


def scene(number: int, size: tuple[int, int]) -> np.ndarray:
    """Edges, a slope and grain, which move."""
    width, height = size
    pixels = np.random.default_rng(number).normal(0, 8, (height, width, 3))
    pixels += np.linspace(20, 220, width)[:, None]
    pixels[height // 3 :, 3 * number : 3 * number + width // 3] = (200, 90, 40)
    return pixels.clip(0, 255).astype(np.uint8)


def decoded(path: Path) -> list[np.ndarray]:
    with path.open("rb") as file, open_clip(file, path.name) as clip:
        return [frame.pixels for frame in clip.pictures()]


def as_pictures(
    cli: Cli, subject: str, path: Path, words: Sequence[str]
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """What `apply` makes of the frames of a clip, each saved as a PNG, and what it tells of the last."""
    Path("frames").mkdir()
    for number, pixels in enumerate(decoded(path)):
        Pillow.fromarray(pixels).save(f"frames/{number:02}.png")
    done = cli("apply", subject, "frames", "-o", "pictures", "--json", *words)
    told = json.loads(done.stdout)["files"][-1]
    return [np.asarray(Pillow.open(made)) for made in sorted(Path("pictures").iterdir())], told


def check(cli: Cli, subject: str, path: Path, words: Sequence[str], encoded: list[np.ndarray]) -> None:
    """Frames, times and sound stay, and what is encoded are the pictures that `apply` makes of the frames."""
    done = cli("apply", subject, path, "-o", "out.mp4", "--json", *words)
    (entry,) = json.loads(done.stdout)["files"]
    before, after = seen(path), seen(Path("out.mp4"))
    assert len(after.frames) == len(before.frames) == len(encoded)
    assert after.starts == pytest.approx(before.starts, abs=2e-3)
    assert after.ends == pytest.approx(before.ends, abs=2e-3)
    assert after.sound == before.sound != []

    pictures, told = as_pictures(cli, subject, path, words)
    length = pytest.approx(before.ends, abs=2e-3)
    clip = {"input": str(path), "output": "out.mp4", "frames": len(encoded), "seconds": length}
    assert entry == {**told, **clip}
    assert np.abs(pictures[1].astype(int) - decoded(path)[1]).max() > 5
    for given, made in zip(encoded, pictures, strict=True):
        height, width = (side % 2 for side in made.shape[:2])
        assert np.array_equal(given, np.pad(made, [(0, height), (0, width), (0, 0)], mode="edge"))
    for shown, given in zip(after.frames, encoded, strict=True):
        assert shown.shape == given.shape
        assert np.abs(shown.astype(int) - given).mean() < 6  # what the codec loses


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("zoo:rof", []),
        ("zoo:l0", ["--max-memory", "1"]),  # less than these frames take
        ("zoo:rof", ["--set", "dtype=bfloat16"]),
        (QUICK, []),
    ],
)
def test_frames_are_the_pictures_that_apply_makes_of_them(
    cli: Cli, place: Path, encoded: list[np.ndarray], subject: str, words: list[str]
) -> None:
    """Of odd sizes, turned, with sound."""
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    path = film(place / "film.mp4", [scene(n, (97, 71)) for n in range(4)], sound="aac", matrix=turned)
    check(cli, subject, path, words, encoded)
    assert (len(encoded), encoded[0].shape) == (4, (98, 72, 3))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real clips here")
def test_a_real_clip(cli: Cli, place: Path, encoded: list[np.ndarray]) -> None:
    check(cli, "zoo:rof", SHARED / "misc" / "realshort.mp4", [], encoded)
    assert (len(encoded), encoded[0].shape) == (36, (240, 320, 3))


def test_photographs_and_clips_of_a_folder(cli: Cli, place: Path) -> None:
    film(place / "in" / "a.avi")
    film(place / "in" / "deep" / "b.mkv")
    film(place / "in" / "begun.mkv")  # known by how it begins
    (place / "in" / "begun.mkv").rename(place / "begun")
    Pillow.fromarray(picture(3)).convert("L").save(place / "in" / "a.png")
    (place / "in" / "notes.txt").write_text("not read")
    done = cli("apply", QUICK, "in", "begun", "-o", "out")
    assert done.stdout.split() == ["out/a.mp4", "out/a.png", "out/deep/b.mkv", "out/begun.mp4"]
    assert "left out" not in done.stderr
    assert Pillow.open(place / "out" / "a.png").mode == "L"
    for name in ("a.mp4", "deep/b.mkv", "begun.mp4"):
        assert len(seen(place / "out" / name).frames) == 10


def test_piped_in_and_out(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = film(place / "film.mp4").read_bytes()
    Pillow.fromarray(picture(3)).save(place / "photo.png")
    for data, output in ((clip, "out.mkv"), ((place / "photo.png").read_bytes(), "out.jpg")):
        monkeypatch.setattr(sys, "stdin", Stdin(data))
        cli("apply", QUICK, "-", "-o", output)
    assert len(seen(place / "out.mkv").frames) == 10
    assert Pillow.open(place / "out.jpg").size == (64, 48)
    monkeypatch.setattr(sys, "stdin", Stdin(clip))
    error = cli("apply", QUICK, "-", "-o", "other.png", code=1).error
    assert error.startswith(
        "other.png: cannot write what - holds in this format; name a file with one of .mp4"
    )
    assert not (place / "other.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["film.mp4", "-o", "out.png"], "out.png: cannot write this format; use one of .mp4 .mkv .mov .m4v"),
        (["film.mp4", "-o", "out.avi"], "out.avi: cannot write this format; use one of .mp4 .mkv .mov .m4v"),
        (["photo.png", "-o", "out.mp4"], "out.mp4: cannot write this format; use one of .png .jpg"),
        (["film.mp4", "-o", "film.mp4"], "film.mp4 is an input: choose another -o"),
        (["film.mp4"], f"name the output, as in: compressnet apply {QUICK} film.mp4 -o film_out.mp4"),
        (["-o", "out.mp4"], "name at least one input: images or clips, a folder of them, or - for what is"),
    ],
)
def test_what_is_refused_before_the_work(cli: Cli, photo: Path, words: list[str], message: str) -> None:
    film(photo.parent / "film.mp4")
    assert message in cli("apply", QUICK, *words, code=2).error
    assert sorted(path.name for path in photo.parent.iterdir()) == ["film.mp4", "photo.png"]


def test_a_broken_clip_is_written_as_far_as_it_goes(cli: Cli, photo: Path) -> None:
    data = film(photo.parent / "film.mkv").read_bytes()
    (photo.parent / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    done = cli("apply", QUICK, "cut.mkv", photo.name, "-o", "out", "--json", code=1)
    assert done.error.startswith("cut.mkv: the clip breaks off after ")
    assert done.error.endswith("; the result ends there")
    told = json.loads(done.stdout)
    assert [entry["output"] for entry in told["files"]] == ["out/cut.mkv", "out/photo.png"]
    assert [entry["input"] for entry in told["failed"]] == ["cut.mkv"]
    assert 0 < told["files"][0]["frames"] == len(seen(photo.parent / "out" / "cut.mkv").frames) < 10


def test_a_network_that_gives_no_numbers_leaves_no_file(cli: Cli, place: Path) -> None:
    model = compressnet.create("can24")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3e38)
    architecture = weights.Architecture(
        "image_translation", {}, "can24", {"in_channels": 3, "out_channels": 3}
    )
    weights.save(place / "net.safetensors", model, architecture)
    film(place / "film.mp4")
    error = cli("apply", "net.safetensors", "film.mp4", "-o", "out.mp4", code=1).error
    assert error.startswith("film.mp4: frame 1: the network's output: ")
    assert sorted(path.name for path in place.iterdir()) == ["film.mp4", "net.safetensors"]


def test_without_pyav_one_line_names_the_extra(
    cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(film(photo.parent / "elsewhere" / "film.mp4"), "film.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    error = cli("apply", QUICK, "film.mp4", photo.name, "-o", "out", code=1).error
    assert error == "film.mp4: clips need PyAV: install the extra with `pip install 'compressnet[video]'`"
    assert [path.name for path in Path("out").iterdir()] == ["photo.png"]
