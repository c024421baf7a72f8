"""A part of every campaign, with fixed seeds; docs/reliability.md has the figures of the whole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.forked import server

PARTS = {
    "kills": [3],
    "links_and_names": [16],
    "weights_files": [200],
    "recipe_files": [150],
    "image_files": [200],
    "bundle_files": [120],
    "run_folders": [10],
    "bit_flips": [60],
    "json_files": [24],
}
DISKS = ["inodes"]


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What campaigns damage is trained once, by the first that needs it."""
    return tmp_path_factory.mktemp("networks")


def campaign(name: str, words: list[object], place: Path, networks: Path, forked: Path) -> None:
    """Run a campaign as docs/reliability.md says, by processes that start sooner; its failures are shown."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COMPRESSNET_")}
    places = {"WORK": str(place), "NETWORKS": str(networks), server.MODULE: f"tests.faults.{name}"}
    done = subprocess.run(
        [forked, *map(str, words)],
        cwd=ROOT,
        env={**environment, **places, "PROGRAM": str(forked), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        errors="backslashreplace",
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert " cases: " in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", PARTS)
def test_campaign(name: str, tmp_path: Path, networks: Path, forked: Path) -> None:
    campaign(name, [*PARTS[name]], tmp_path, networks, forked)


def test_disks(tmp_path: Path, networks: Path, forked: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("disks: only root can mount a small one")
    place = tmp_path / "tried"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    tried = subprocess.run(mount, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"disks: no tmpfs can be mounted here: {tried.stderr.strip()}")
    subprocess.run(["umount", str(place)], check=True)
    campaign("disks", [*DISKS], tmp_path, networks, forked)
