"""Clips as a user labels them: files, folders and pipes, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow

import compressnet
from compressnet import weights
from tests.cli.conftest import Cli
from tests.cli.test_toy_systems import Stdin

pytest.importorskip("av")

from tests.data.clips import film, picture, seen, sound_alone
from tests.tasks.test_segmentation_video import ASSETS, NAMES


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that nobody trained."""
    torch.manual_seed(0)
    sizes = {"head": "bilinear", "width": 0.25}
    model = compressnet.create("shuffleseg", num_classes=3, **sizes)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    arguments = {**sizes, "num_classes": 3}
    weights.save(
        path, model, weights.Architecture("segmentation", {}, "shuffleseg", arguments, assets=ASSETS)
    )
    return path


@pytest.fixture
def net(trained: Path, place: Path) -> str:
    shutil.copy(trained, place / "net.safetensors")
    return "net.safetensors"


def test_a_clip_gives_a_clip(cli: Cli, place: Path, net: str) -> None:
    film(place / "film.mp4", sound="aac")
    done = cli("apply", net, "film.mp4", "-o", "out.mp4", "--json", "--set", "legend=false")
    (entry,) = json.loads(done.stdout)["files"]
    assert (entry["input"], entry["output"], entry["lost"]) == ("film.mp4", "out.mp4", [])
    assert entry["frames"] == 10
    assert entry["seconds"] == pytest.approx(1.0)
    assert set(entry["shares"]) <= set(NAMES)
    assert sum(entry["shares"].values()) == pytest.approx(1, abs=1e-4)
    before, after = seen(place / "film.mp4"), seen(place / "out.mp4")
    assert len(after.frames) == 10
    assert after.frames[0].shape == (48, 64, 3)
    assert after.sound == before.sound
    assert sorted(path.name for path in place.iterdir()) == ["film.mp4", "net.safetensors", "out.mp4"]


def test_photographs_and_clips_of_a_folder(cli: Cli, place: Path, net: str) -> None:
    film(place / "in" / "a.avi")
    film(place / "in" / "deep" / "b.mkv")
    Pillow.fromarray(picture(3)).save(place / "in" / "a.jpg")
    (place / "in" / "notes.txt").write_text("not read")
    done = cli("apply", net, "in", "-o", "out", "--set", "output=labels")
    assert done.stdout.split() == ["out/a.mp4", "out/a.png", "out/deep/b.mkv"]
    assert "left out" not in done.stderr
    assert Pillow.open(place / "out" / "a.png").size == (64, 48)
    assert len(seen(place / "out" / "deep" / "b.mkv").frames) == 10


def test_what_is_piped_in_is_a_clip_if_it_begins_like_one(
    cli: Cli,
    place: Path,
    net: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = film(place / "film.mp4").read_bytes()
    for words in (["-o", "out.mkv"], ["-o", "out.png"]):
        monkeypatch.setattr(sys, "stdin", Stdin(data))
        code = 0 if "out.mkv" in words else 1
        done = cli("apply", net, "-", *words, code=code)
        if code:
            assert done.error.startswith(
                "out.png: cannot write what - holds in this format; name a file with"
            )
    assert len(seen(place / "out.mkv").frames) == 10
    assert not (place / "out.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "out.png"], "out.png: cannot write this format; use one of .mp4 .mkv .mov .m4v"),
        (["-o", "out.avi"], "out.avi: cannot write this format; use one of .mp4 .mkv .mov .m4v"),
        (["-o", "out.mp4", "--set", "output=label_ids"], "output=label_ids: a film does not keep values"),
        (
            ["-o", "out.mp4", "--set", "output=colours"],
            "'output' should be 'overlay', 'labels', ",
        ),
        (["-o", "film.mp4"], "film.mp4 is an input: choose another -o"),
    ],
)
def test_what_is_refused_before_the_work(
    cli: Cli, place: Path, net: str, words: list[str], message: str
) -> None:
    film(place / "film.mp4")
    assert message in cli("apply", net, "film.mp4", *words, code=2).error
    assert sorted(path.name for path in place.iterdir()) == ["film.mp4", "net.safetensors"]


def test_a_broken_clip_is_written_as_far_as_it_goes(cli: Cli, place: Path, net: str) -> None:
    data = film(place / "film.mkv").read_bytes()
    (place / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    (place / "film.mkv").rename(place / "whole")  # known by how it begins
    done = cli("apply", net, "cut.mkv", "whole", "-o", "out", "--json", code=1)
    assert done.error.startswith("cut.mkv: the clip breaks off after ")
    assert done.error.endswith("; the result ends there")
    told = json.loads(done.stdout)
    assert [entry["output"] for entry in told["files"]] == ["out/cut.mkv", "out/whole.mp4"]
    assert [entry["input"] for entry in told["failed"]] == ["cut.mkv"]
    assert told["files"][0]["frames"] == len(seen(place / "out" / "cut.mkv").frames) < 10
    assert told["files"][1]["frames"] == len(seen(place / "out" / "whole.mp4").frames) == 10


def test_inputs_that_are_no_clips_are_one_line_each(cli: Cli, place: Path, net: str) -> None:
    sound_alone(place / "sound.mp4")
    film(place / "empty.mkv", [], sound="aac")
    whole = film(place / "film.mp4").read_bytes()
    (place / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    names = ["sound.mp4", "empty.mkv", "headless.mp4"]
    assert cli("apply", net, *names, "-o", "out", code=1).errors == [
        "sound.mp4: no clip: there is only sound in it",
        "empty.mkv: no frame can be decoded: there is none in its stream",
        "headless.mp4: no clip that can be read: invalid data found when processing input "
        "(damaged, or cut off)",
    ]
    assert not list((place / "out").iterdir())


def test_where_nothing_can_be_written(cli: Cli, place: Path, net: str) -> None:
    film(place / "film.mp4")
    (place / "file").write_text("in the way")
    error = cli("apply", net, "film.mp4", "-o", "file/out.mp4", code=1).error
    assert error == "cannot write file: file is not a folder"
    if Path("/dev/full").exists():
        error = cli("apply", net, "film.mp4", "-o", "/dev/full", code=1).error
        assert "cannot write /dev/full: No space left on device" in error


def test_without_pyav_one_line_names_the_extra(
    cli: Cli, place: Path, net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(place / "film.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    error = cli("apply", net, "film.mp4", "-o", "out.mp4", code=1).error
    assert error == ("film.mp4: clips need PyAV: install the extra with `pip install 'compressnet[video]'`")
