"""`data targets`: what a training needs is computed ahead, once, whoever shares the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.cli.conftest import Cli

WORDS = ("--set", "data.min_side=16", "--set", "data.max_side=20", "--set", "data.sizes=2", "--set",
         "data.crop=8", "--set", "task.operator=rof:max_iterations=2", "--data-root", ".")  # fmt: skip


@pytest.fixture
def photos(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve photographs, and an empty cache."""
    monkeypatch.setenv("COMPRESSNET_CACHE", str(place / "cache"))
    (place / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (24, 30, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(place / "photos" / f"{number}.png")
    return place


def entries(place: Path) -> list[Path]:
    return sorted(path for path in (place / "cache").rglob("*.safetensors") if path.name[0] != ".")


def counts(cli: Cli, *words: str) -> dict[str, int]:
    splits = json.loads(cli("data", "targets", "fip_photos", *WORDS, *words, "--json").stdout)["splits"]
    return {
        key: sum(split[key] for split in splits.values()) for key in ("photographs", "targets", "computed")
    }


def test_all_that_training_draws_is_there(cli: Cli, photos: Path) -> None:
    first = counts(cli, "--processes", "1")
    assert first["photographs"] == 12
    assert first["computed"] == first["targets"] > 12
    assert counts(cli) == {**first, "computed": 0}
    before = entries(photos)
    steps = [f"--set=train.{key}=3" for key in ("steps", "checkpoint_every", "evaluate_every")]
    cli("train", "fip_photos", *WORDS, "--device", "cpu", "--set", "train.compile=false", *steps, "-o", "run")
    assert entries(photos) == before


def test_shards_share_the_work(cli: Cli, photos: Path) -> None:
    one, other = (counts(cli, "--shard", f"{number}/2", "--processes", "1") for number in (1, 2))
    assert one["computed"] == one["targets"]
    assert other["computed"] == other["targets"]
    whole = counts(cli)
    assert whole == {"photographs": 12, "targets": one["targets"] + other["targets"], "computed": 0}


def test_a_killed_call_goes_on(cli: Cli, photos: Path) -> None:
    slow = ("--set", "task.operator=rof:eps=1e-12,max_iterations=3000")
    command = [sys.executable, "-m", "compressnet_cli", "data", "targets", "fip_photos", *WORDS, *slow]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--processes", "1"], env=environment, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(entries(photos)) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = len(entries(photos))
    assert done >= 3
    rest = counts(cli, *slow, "--processes", "1")
    assert rest["computed"] <= rest["targets"] - 3
    assert counts(cli, *slow)["computed"] == 0


def test_a_cache_that_cannot_be_written_is_one_line(cli: Cli, photos: Path) -> None:

    (photos / "cache").write_text("in the way")
    told = cli("data", "targets", "fip_photos", *WORDS, "--processes", "1", code=1).stderr
    assert "cache" in told
    (photos / "cache").unlink()
    assert counts(cli)["computed"] > 0


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("lm_sample",), "targets are of image operators; its task is language_modelling", 2),
        (("zoo:rof",), "'zoo:rof' is no recipe", 2),
        (("fip_photos", "--shard", "3/2"), "--shard 3/2: write it as K/N", 2),
        (("fip_photos", "--test"), "--test: photo_folder has a test split only with", 2),
        (("fip_photos", "--set", "data.root=nowhere"), "data.root 'nowhere' is not there", 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_has_no_targets_is_one_line(
    cli: Cli, photos: Path, words: tuple[str, ...], message: str, code: int
) -> None:
    assert message in cli("data", "targets", *words, "--data-root", ".", code=code).stderr
