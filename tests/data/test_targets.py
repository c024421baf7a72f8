from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import compressnet.data.targets as module
from compressnet.data.cache import Cache
from compressnet.data.images import read_image, resize_short_side, to_uint8
from compressnet.data.photographs import Photograph, PhotographSplit, Sizes
from compressnet.data.prepare import prepare_targets
from compressnet.data.targets import Targets
from compressnet.errors import CompressnetError
from compressnet.operators.rof import ROF
from compressnet.reporter import Silent

OPERATOR = "rof:weight=0.2,max_iterations=4"


class Told(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done = 0

    def stage(self, name: str, total: int | None, unit: str, initial: int = 0) -> None:
        self.stages.append((name, total))

    def advance(self, n: int = 1, **scalars: float) -> None:
        self.done += n


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    return Targets(OPERATOR, Cache(tmp_path / "cache"))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []

    def counted(path: Path, srgb: bool) -> object:
        read.append(path)
        return read_image(path, srgb=srgb)

    monkeypatch.setattr(module, "read_image", counted)
    return read


def test_target_is_the_operator_at_that_size_on_the_rounded_input(
    targets: Targets, make_photo: Any, tmp_path: Path
) -> None:
    path = make_photo(tmp_path / "a.png")
    input_, target = targets.get(path, 16)
    expected = to_uint8(resize_short_side(read_image(path).pixels, 16))
    np.testing.assert_array_equal(input_, expected)
    made = ROF(weight=0.2, max_iterations=4)(expected.astype(np.float32) / 255)
    np.testing.assert_array_equal(target, to_uint8(made))
    assert not np.array_equal(input_, target)


def test_gray_photograph_gives_three_channels(targets: Targets, tmp_path: Path) -> None:
    Pillow.fromarray(np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(20, 30)).save(
        tmp_path / "g.png"
    )
    input_, target = targets.get(tmp_path / "g.png", 10)
    assert input_.shape == target.shape == (10, 15, 3)


def test_entry_depends_on_bytes_size_and_operator_but_not_on_the_name(
    targets: Targets, make_photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_photo(tmp_path / "a.png")
    targets.get(path, 16)
    copy = tmp_path / "other.png"
    shutil.copy(path, copy)
    assert targets.has(copy, 16)
    assert Targets("operator:rof:max_iterations=4,weight=0.2", targets.cache).has(path, 16)
    assert not targets.has(path, 17)
    assert not Targets("rof:weight=0.3,max_iterations=4", targets.cache).has(path, 16)
    make_photo(path, 25)  # another picture under the same name
    assert not targets.has(path, 16)
    monkeypatch.setattr(ROF, "version", 99)
    assert not targets.has(copy, 16)


def test_large_files_are_hashed_once_for_all_processes(
    make_photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGE_FILE", 10)
    path = make_photo(tmp_path / "a.png")
    cache = Cache(tmp_path / "cache")
    Targets(OPERATOR, cache).get(path, 16)
    monkeypatch.setattr(module, "_digest_of_large", lambda _: pytest.fail("read again"))
    assert Targets(OPERATOR, cache).has(path, 16)


def test_fill_decodes_once(
    targets: Targets, make_photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_photo(tmp_path / "a.png")
    read = count_reads(monkeypatch)
    targets.fill(path, [10, 12, 14])
    targets.fill(path, [10, 12])
    assert read == [path]
    assert all(targets.has(path, side) for side in (10, 12, 14))


def test_without_an_operator_a_photograph_is_its_own_target_and_kept_once(
    targets: Targets, make_photo: Any, tmp_path: Path
) -> None:
    path = make_photo(tmp_path / "a.png")
    alone = Targets(None, targets.cache)
    told = Told()
    assert prepare_targets(alone, [(None, path, [12, 16])], 1, told) == 2
    assert told.stages == [("photographs", 2)]
    assert not targets.has(path, 16)
    input_, target = alone.get(path, 16)
    assert input_ is target
    np.testing.assert_array_equal(input_, targets.get(path, 16)[0])
    stored = Targets(None, Cache(tmp_path / "other"))
    stored.fill(path, [16])
    (entry,) = stored.cache.folder.rglob("*.*")
    assert input_.nbytes < entry.stat().st_size < input_.nbytes + 1000


def test_pixels_that_were_damaged_are_decoded_again(make_photo: Any, tmp_path: Path) -> None:
    alone = Targets(None, Cache(tmp_path / "cache"))
    path = make_photo(tmp_path / "a.png")
    before = alone.get(path, 16)[0].copy()
    (entry,) = alone.cache.folder.rglob("*.safetensors")
    data = bytearray(entry.read_bytes())
    data[-1] ^= 1
    entry.write_bytes(data)
    np.testing.assert_array_equal(alone.get(path, 16)[0], before)


def test_photograph_that_went_away(targets: Targets, tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match=r"gone\.png"):
        targets.get(tmp_path / "gone.png", 16)


@pytest.mark.parametrize("processes", [1, 2])
def test_prepare_computes_what_is_missing(
    targets: Targets, make_photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    paths = [make_photo(tmp_path / f"{i}.png") for i in range(4)]
    targets.get(paths[0], 16)
    told = Told()
    assert prepare_targets(targets, [(OPERATOR, path, [12, 16]) for path in paths], processes, told) == 7
    assert told.stages == [("operator targets", 7)]
    assert told.done == 7
    assert all(targets.has(path, side) for path in paths for side in (12, 16))
    assert os.environ["OMP_NUM_THREADS"] == "7"  # the environment is as it was
    assert "MKL_NUM_THREADS" not in os.environ
    again = Told()
    assert prepare_targets(targets, [(OPERATOR, path, [12, 16]) for path in paths], processes, again) == 0
    assert again.stages == []


def test_prepare_in_processes_gives_what_one_process_gives(make_photo: Any, tmp_path: Path) -> None:
    jobs = [(OPERATOR, make_photo(tmp_path / f"{i}.png"), [16]) for i in range(2)]
    entries = []
    for processes in (1, 2):
        cache = Cache(tmp_path / f"cache-{processes}")
        prepare_targets(Targets(OPERATOR, cache), jobs, processes, Silent())
        files = sorted(cache.folder.rglob("*.safetensors"))
        entries.append([(path.name, path.read_bytes()) for path in files])
    assert len(entries[0]) == 2
    assert entries[0] == entries[1]


@pytest.mark.parametrize("processes", [1, 2])
def test_unreadable_photograph_is_named(
    targets: Targets, make_photo: Any, tmp_path: Path, processes: int
) -> None:
    good, bad = make_photo(tmp_path / "good.png"), tmp_path / "bad.png"
    bad.write_text("not an image")
    with pytest.raises(CompressnetError, match=r"bad\.png"):
        prepare_targets(targets, [(OPERATOR, bad, [16]), (OPERATOR, good, [16])], processes, Silent())


_PREPARE = """
import sys
from pathlib import Path
from compressnet.data.cache import Cache
from compressnet.data.prepare import prepare_targets
from compressnet.data.targets import Targets
from compressnet.reporter import Silent

class Told(Silent):
    def advance(self, n=1, **scalars):
        print("done", n, flush=True)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    operator = "rof:eps=1e-9,max_iterations=200"
    jobs = [(operator, path, [100, 150, 200, 250]) for path in sorted(folder.glob("*.png"))]
    prepare_targets(Targets(operator, Cache(folder / "cache")), jobs, 2, Told())
    print("finished", flush=True)
"""


@pytest.fixture
def preparing(make_photo: Any, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that prepares some seconds' worth of targets, when its first ones are there."""
    for i in range(6):
        make_photo(tmp_path / f"{i}.png", 260, 300)
    script = tmp_path / "prepare.py"
    script.write_text(_PREPARE)
    root = Path(module.__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("done")
    yield process
    process.kill()
    process.communicate()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    """Running, and not a zombie that only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


def worker_pids(parent: int) -> list[int]:
    return [pid for pid in children(parent) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@needs_proc
def test_killed_worker_is_one_clear_error(preparing: subprocess.Popen[str]) -> None:
    os.kill(worker_pids(preparing.pid)[0], signal.SIGKILL)
    _, errors = preparing.communicate(timeout=60)
    assert preparing.returncode == 1
    assert "CompressnetError: a process that computes operator targets was killed" in errors


@needs_proc
def test_killed_parent_takes_its_workers_along_and_leaves_nothing_broken(
    preparing: subprocess.Popen[str], tmp_path: Path
) -> None:
    workers = worker_pids(preparing.pid)
    assert len(workers) == 2
    preparing.kill()
    until = time.monotonic() + 30
    while any(running(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)
    operator = "rof:eps=1e-9,max_iterations=200"
    targets = Targets(operator, Cache(tmp_path / "cache"))
    jobs = [(operator, path, [100, 150, 200, 250]) for path in sorted(tmp_path.glob("*.png"))]
    left = prepare_targets(targets, jobs, 1, Silent())
    assert 0 < left <= 20  # one photograph at least was finished before the kill
    for _, path, sides in jobs:
        for side in sides:
            assert min(targets.get(path, side)[1].shape[:2]) == side


@needs_proc
def test_interrupt_ends_quickly_with_no_noise_from_workers(preparing: subprocess.Popen[str]) -> None:
    for pid in (*worker_pids(preparing.pid), preparing.pid):
        os.kill(pid, signal.SIGINT)
    _, errors = preparing.communicate(timeout=30)
    assert errors.count("KeyboardInterrupt") == 1


def test_a_reference_counts_by_its_content_and_never_by_its_path(make_photo: Any, tmp_path: Path) -> None:
    path, cache = make_photo(tmp_path / "a.png"), Cache(tmp_path / "cache")
    reference = make_photo(tmp_path / "one" / "reference.png")
    text = "style:iterations=1,levels=3,reference="
    Targets(f"{text}{reference}", cache).get(path, 16)
    moved = tmp_path / "two.png"
    shutil.move(reference, moved)
    again = Targets(f"{text}{moved}", cache)
    assert again.has(path, 16)
    assert not Targets("style:iterations=1,levels=3", cache).has(path, 16)
    key = str(again._key(path, 16))
    assert hashlib.sha256(moved.read_bytes()).hexdigest() in key
    assert str(tmp_path) not in key
    assert moved.name not in key
    make_photo(moved, 30)  # another picture under the same name
    assert not Targets(f"{text}{moved}", cache).has(path, 16)
    with pytest.raises(
        CompressnetError, match=r"^operator style: reference: .*reference\.png: no such file$"
    ):
        Targets(f"{text}{reference}", cache).get(path, 16)


def test_data_of_another_reference_is_other_data(make_photo: Any, tmp_path: Path) -> None:
    photo, reference = make_photo(tmp_path / "a.png"), make_photo(tmp_path / "reference.png")
    assets = {"operator": f"style:iterations=1,levels=3,reference={reference}"}

    def facts(assets: dict[str, Any]) -> dict[str, Any]:
        return PhotographSplit([Photograph(photo, "a")], Sizes(16, 16), False, assets, 0).facts()

    before = facts(assets)
    assert facts(assets) == before
    assert "references" not in facts({"operator": "rof"})
    make_photo(reference, 30)
    assert facts(assets)["references"] != before["references"]
    assert facts(assets)["fingerprint"] == before["fingerprint"]
