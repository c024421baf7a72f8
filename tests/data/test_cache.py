from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from compressnet.data.cache import Arrays, Cache
from compressnet.errors import CompressnetError

KEY = {"kind": "test", "side": 480, "of": ["a", 1.5, None]}


class Counted:
    """A computation that remembers how often it was asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Arrays:
        self.calls += 1
        return {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "b": np.array(2.5, np.float32)}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def check(arrays: Arrays) -> None:
    np.testing.assert_array_equal(arrays["a"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["b"].shape == ()
    assert arrays["b"] == 2.5


def test_computes_once(cache: Cache) -> None:
    compute = Counted()
    assert not cache.has(KEY)
    check(cache.get(KEY, compute))
    assert cache.has(KEY)
    check(cache.get(dict(reversed(KEY.items())), compute))  # the order of a key's parts does not matter
    assert compute.calls == 1
    assert not cache.has({**KEY, "side": 481})


def test_arrays_that_are_not_contiguous_or_empty(cache: Cache) -> None:
    arrays: Arrays = {"t": np.arange(6, dtype=np.int16).reshape(2, 3).T, "none": np.zeros((0, 3), np.float32)}
    for _ in range(2):
        found = cache.get(KEY, lambda: arrays)
        np.testing.assert_array_equal(found["t"], arrays["t"])
        assert found["none"].shape == (0, 3)


def test_result_may_be_changed_without_changing_the_entry(cache: Cache) -> None:
    compute = Counted()
    cache.get(KEY, compute)
    cache.get(KEY, compute)["a"][:] = 9
    check(cache.get(KEY, compute))


def test_entry_says_what_it_is(cache: Cache) -> None:
    cache.get(KEY, Counted())
    with safe_open(cache.path(KEY), framework="numpy") as file:
        assert list(file.metadata()) == ["entry"]
        assert json.loads(file.metadata()["entry"])["key"] == KEY


def test_equal_entries_are_equal_files(tmp_path: Path) -> None:
    files = []
    for name in ("x", "y"):
        cache = Cache(tmp_path / name)
        cache.get(KEY, Counted())
        files.append(cache.path(KEY).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "text", "other key"])
def test_damaged_entry_is_computed_again_and_replaced(cache: Cache, damage: str) -> None:
    compute = Counted()
    cache.get(KEY, compute)
    path = cache.path(KEY)
    data = bytearray(path.read_bytes())
    if damage == "other key":
        cache.get({"kind": "other"}, lambda: {"a": np.zeros(3)})
        data = bytearray(cache.path({"kind": "other"}).read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    damaged = {"cut": bytes(data[:-3]), "empty": b"", "text": b"hello" * 100}
    path.write_bytes(damaged.get(damage, bytes(data)))
    check(cache.get(KEY, compute))
    assert compute.calls == 2
    check(cache.get(KEY, compute))
    assert compute.calls == 2


@pytest.mark.parametrize(("where", "number"), [("fsync", errno.ENOSPC), ("replace", errno.EROFS)])
def test_failed_write_names_the_flag_and_leaves_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"compressnet.files.os.{where}", fail)
    with pytest.raises(CompressnetError, match=r"cannot write .*--cache DIR"):
        cache.get(KEY, Counted())
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CompressnetError, match=r"cannot write .*--cache DIR"):
        Cache(tmp_path / "file").get(KEY, Counted())


def test_default_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSNET_CACHE", str(tmp_path / "mine"))
    assert tmp_path / "mine" in Cache().path(KEY).parents


def _many(folder: str, start: Any, results: Any) -> None:
    start.wait()
    cache = Cache(Path(folder))
    for side in range(40):
        found = cache.get({"side": side}, lambda: {"a": np.full((50, 50), side)})  # noqa: B023
        results.put(int(found["a"].min()) == side == int(found["a"].max()))


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_processes_that_compute_the_same_entries_all_succeed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=_many, args=(str(tmp_path), start, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    outcomes = [results.get(timeout=60) for _ in range(160)]
    for worker in workers:
        worker.join()
    assert all(outcomes)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 40


def test_killed_writer_leaves_no_entry(tmp_path: Path) -> None:
    script = (
        "import os, signal, numpy as np, compressnet.files as files\n"
        "from pathlib import Path\n"
        "from compressnet.data.cache import Cache\n"
        "files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"Cache(Path({str(tmp_path)!r})).get({KEY!r}, lambda: {{'a': np.zeros(9)}})\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, env=_environment())
    assert ended.returncode == -9
    cache = Cache(tmp_path)
    assert not cache.has(KEY)
    check(cache.get(KEY, Counted()))


def _environment() -> dict[str, str]:
    import compressnet

    return {**os.environ, "PYTHONPATH": str(Path(str(compressnet.__file__)).parents[1])}


# --- large arrays ----------------------------------------------------------------------------------------


def pieces() -> Iterator[np.ndarray]:
    for begin in range(0, 1000, 300):
        yield np.arange(begin, min(begin + 300, 1000), dtype=np.float32)[:, None] * [1, 2]


WHOLE = (np.arange(1000, dtype=np.float64)[:, None] * [1, 2]).astype(np.float64)


def test_a_large_array_is_a_map_of_its_file(cache: Cache) -> None:
    for _ in range(2):
        array = cache.mapped(KEY, pieces)
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, WHOLE)
    calls: list[int] = []
    cache.mapped(KEY, lambda: calls.append(1) or pieces())  # type: ignore[func-returns-value]
    assert calls == []
    assert cache.mapped({**KEY, "side": 1}, lambda: iter([np.zeros((0, 3), np.int16)])).shape == (0, 3)
    check(cache.get(KEY, Counted()))  # an entry of small arrays may have the same key


@pytest.mark.parametrize("damage", ["cut", "flip", "other key", "no facts", "facts", "no values", "objects"])
def test_a_damaged_large_array_is_made_again(cache: Cache, damage: str) -> None:
    cache.mapped(KEY, pieces)
    path = cache.path(KEY).with_suffix(".bin")
    facts = path.with_suffix(".json")
    data, entry = bytearray(path.read_bytes()), json.loads(facts.read_text())
    if damage == "cut":
        path.write_bytes(data[:-8])
    elif damage == "flip":
        data[5000] ^= 1
        path.write_bytes(data)
    elif damage == "no values":
        path.unlink()
    elif damage == "no facts":
        facts.unlink()
    else:
        changes: dict[str, dict[str, Any]] = {
            "other key": {"key": {}}, "facts": {"shape": "x"}, "objects": {"dtype": "O"},
        }  # fmt: skip
        change = changes[damage]
        facts.write_text(json.dumps({**entry, **change}))
    os.utime(path, ns=(1, 1)) if path.exists() else None
    np.testing.assert_array_equal(cache.mapped(KEY, pieces), WHOLE)
    assert path.read_bytes() == WHOLE.tobytes()


def test_pieces_that_do_not_fit_leave_nothing(cache: Cache) -> None:
    for bad in ([np.zeros((2, 3)), np.zeros((2, 4))], [np.zeros(2), np.zeros(2, np.int8)], []):
        with pytest.raises(ValueError, match="piece"):
            cache.mapped(KEY, lambda bad=bad: iter(bad))  # type: ignore[misc]
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []


def _sees(folder: str, queue: Any) -> None:
    array = Cache(Path(folder)).mapped(KEY, pieces)
    queue.put(float(array[999, 1]))


def test_processes_that_are_started_take_the_parents_word(cache: Cache) -> None:
    cache.mapped(KEY, pieces)
    path = cache.path(KEY).with_suffix(".bin")
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)  # read through again, it would be made anew
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_sees, args=(str(cache.folder), queue))
    process.start()
    assert queue.get(timeout=60) == 1998
    process.join()
    assert path.read_bytes() == bytes(data)


def test_a_full_disk_names_the_flag_for_large_arrays_too(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CompressnetError, match="No space left on device.*--cache DIR"):
        cache.mapped(KEY, pieces)
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
