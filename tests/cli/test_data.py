"""`data check` and `data samples`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, save


def test_check_counts_every_split(cli: Cli, photo: Path) -> None:
    done = cli("data", "check", "sample", "--json")
    assert json.loads(done.stdout)["splits"] | {"val": ""} == {"train": 4, "val": "", "test": 2}
    save(photo.parent / "set" / "a.png")
    shown = cli("data", "check", "photo_folder:root=set,test_root=set").stdout
    assert [line.split()[3] for line in shown.splitlines() if "train" in line or "test" in line] == ["1", "1"]


@pytest.mark.parametrize("how", ["recipe", "name", "run"])
def test_check_takes_what_names_data(cli: Cli, place: Path, smoke_run: Path, how: str) -> None:
    (place / "mine.yaml").write_text(
        "version: 1\ntask: {name: image_operator, operator: rof}\nmodel: {name: can24}\n"
        "data: {name: sample}\ntrain: {steps: 1}\n"
    )
    source = {"recipe": "mine.yaml", "name": "fip_sample", "run": str(smoke_run)}[how]
    assert json.loads(cli("data", "check", source, "--json").stdout)["data"]["name"] == "sample"


def test_check_takes_settings_of_recipes(cli: Cli) -> None:
    done = cli("data", "check", "lm_sample", "--set", "data.unroll=100", "--json")
    assert json.loads(done.stdout)["data"]["unroll"] == 100
    for source in ("text_sample", "none"):
        assert source in cli("data", "check", source, "--set", "data.unroll=100", code=2).error


def test_check_lists_every_defect(cli: Cli, place: Path) -> None:
    for name in ("a", "b", "c"):
        save(place / "set" / f"{name}.png", (200, 200))
    for name in ("a", "c"):
        path = place / "set" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:300])
    done = cli("data", "check", "photo_folder:root=set", code=1)
    assert [Path(line.split(": ")[0]).name for line in done.errors] == ["a.png", "c.png"]
    listed = cli("data", "check", "photo_folder:root=set", "--json", code=1)
    assert len(json.loads(listed.stdout)["problems"]) == 2
    assert listed.stderr == ""


def test_the_data_root(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(place / "far" / "photos" / "a.png")
    source = "photo_folder:root=photos"
    assert "far" not in cli("data", "check", source, code=1).error
    cli("data", "check", source, "--data-root", "far")
    monkeypatch.setenv("COMPRESSNET_DATA", str(place / "far"))
    assert os.environ["COMPRESSNET_DATA"] == str(place / "far")
    cli("data", "check", source)


def test_samples(cli: Cli, place: Path) -> None:
    listed = cli("data", "samples").stdout
    assert "Chelsea the cat" in listed
    assert "CC0" in listed
    done = cli("data", "samples", "-o", "photos", "--json")
    report = json.loads(done.stdout)
    assert len(report["credits"]) == len(report["files"]) == 6
    assert {str(path) for path in Path("photos").iterdir()} == set(report["files"])
    shutil.rmtree("photos")
    (place / "photos").mkdir()
    save(place / "photos" / "chelsea.png")
    assert "chelsea.png exists: add --force" in cli("data", "samples", "-o", "photos", code=1).error
    assert len(list(Path("photos").iterdir())) == 1  # nothing was copied beside it
    cli("data", "samples", "-o", "photos", "--force")
    assert "cannot write" in cli("data", "samples", "-o", "photos/chelsea.png", code=1).error


def test_check_decodes_and_headers_do_not(cli: Cli, place: Path) -> None:
    for name in ("a", "b", "c"):
        path = save(place / "set" / f"{name}.png", (200, 200))
        if name != "b":  # the header is whole, the pixels are not
            path.write_bytes(path.read_bytes()[:-400])
    (place / "set" / "d.heic").touch()
    done = cli("data", "check", "photo_folder:root=set", code=1)
    assert [Path(line.split(": ")[0]).name for line in done.errors] == ["a.png", "c.png"]
    assert "1 picture of other kinds left out: 1 .heic" in done.stderr
    cli("data", "check", "photo_folder:root=set", "--headers")


def test_check_decodes_pairs(cli: Cli, place: Path) -> None:
    for folder in ("inputs", "targets"):
        for name in ("a", "b"):
            path = save(place / "set" / folder / f"{name}.png", (64, 64))
            if folder == "targets":
                path.write_bytes(path.read_bytes()[: -200 if name == "b" else None] + b" ")
    errors = cli("data", "check", "paired_folder:root=set", code=1).errors
    assert [Path(line.split(": ")[0]).name for line in errors] == ["b.png"]


def test_train_lists_all_bad_photographs_at_once(cli: Cli, place: Path) -> None:
    for number in range(6):
        path = save(place / "set" / f"{number}.png", (64, 64))
        if number in (1, 4):
            path.write_bytes(path.read_bytes()[:-300])
    (place / "set" / "5.png").write_text("no picture")
    (place / "mine.yaml").write_text(
        "version: 1\ntask: {name: image_operator, operator: rof}\nmodel: {name: can24}\n"
        "data: {name: photo_folder, root: set, min_side: 16, max_side: 32, sizes: 1, crop: 16}\n"
        "train: {steps: 12, batch: 1}\n"
    )
    errors = cli("train", "mine.yaml", "--device", "cpu", code=1).errors
    assert [Path(line.split(": ")[0]).name for line in errors] == ["1.png", "4.png", "5.png"]


def test_a_folder_of_other_pictures_says_so(cli: Cli, place: Path) -> None:
    (place / "set").mkdir()
    for name in ("a.heic", "b.psd"):
        (place / "set" / name).touch()
    assert (
        "2 pictures of other kinds left out: " in cli("data", "check", "photo_folder:root=set", code=1).error
    )
    assert "2 pictures of other kinds" in cli("apply", "zoo:rof", "set", "-o", "out", code=1).error
    save(place / "set" / "c.gif")
    done = cli("apply", "zoo:rof", "set", "-o", "out")
    assert "2 pictures of other kinds" in done.stderr
    assert [path.name for path in (place / "out").iterdir()] == ["c.png"]


def test_mix_writes_a_recording_that_can_be_evaluated_on(cli: Cli, place: Path) -> None:
    source = "speech_sample:test_count=24"
    done = cli("data", "mix", source, "-o", "long.wav", "--minutes", "0.2", "--seed", "3", "--json")
    assert json.loads(done.stdout) == {"files": ["long.wav", "long.txt"], "seconds": 12.0, "words": 4}
    labels = (place / "long.txt").read_text()
    assert len(labels.splitlines()) == 4
    checked = cli("data", "check", "keyword_stream:audio=long.wav,piece_ms=4000", "--json")
    assert json.loads(checked.stdout)["splits"]["test"] == 3
    shown = cli("data", "mix", source, "-o", "again.flac", "--minutes", "0.2", "--seed", "3").stdout
    assert shown.split() == ["again.flac", "again.txt"]
    assert (place / "again.txt").read_text() == labels
    (place / "long.wav").unlink()
    failed = cli("data", "mix", source, "-o", "long.wav", "--minutes", "0.2", code=1)
    assert "long.txt exists: add --force" in failed.error
    assert not (place / "long.wav").exists()
    cli("data", "mix", source, "-o", "long.wav", "--minutes", "0.2", "--force")
    assert (place / "long.txt").read_text() != labels


def test_mix_loses_nothing_where_it_cannot_write(cli: Cli, place: Path) -> None:
    source = ("data", "mix", "speech_sample:test_count=24", "--minutes", "0.1", "--force")
    for folder, file in (("a.txt", "a.wav"), ("b.wav", "b.txt")):
        (place / folder).mkdir()
        (place / file).write_text("mine")
        error = cli(*source, "-o", f"{folder[0]}.wav", code=1).error
        assert error == f"cannot write {folder}: is a folder: name another file"
        assert (place / file).read_text() == "mine"
    (place / "c.txt").symlink_to(place / "there.txt")
    cli(*source, "-o", "c.wav")
    assert (place / "c.txt").is_symlink()
    assert (place / "there.txt").read_text()
    assert "there is no folder no/such" in cli(*source, "-o", "no/such/z.wav", code=1).error


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["speech_sample", "-o", "a.mp3"], "sound is written as .wav or .flac"),
        (["speech_sample", "-o", "a.wav", "--minutes", "0.01"], "shorter than one clip with its gap (3 s)"),
        (
            ["speech_sample", "-o", "a.wav", "--split", "testing"],
            "--split testing: speech_sample has no split",
        ),
        (["glyphs", "-o", "a.wav"], "'glyphs' has no clips of words"),
        (["speech_commands:words=[yes,yes]", "-o", "a.wav"], "'yes' is there twice"),
    ],
)
def test_mix_refuses(cli: Cli, place: Path, words: list[str], problem: str) -> None:
    assert problem in cli("data", "mix", *words, code=2).error
    assert not list(place.iterdir())
