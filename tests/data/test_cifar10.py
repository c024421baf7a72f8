from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from compressnet.data import cifar10
from compressnet.data.cifar10 import CIFAR10, CLASSES
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.errors import BadFiles, CompressnetError

EACH = {"train": 50, "test": 50}  # pictures of a class, in place of 5,000 and 1,000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The set, a hundredth of it."""
    monkeypatch.setattr(cifar10, "_A_CLASS", EACH)
    monkeypatch.setattr(cifar10, "_HELD_OUT", 5)
    monkeypatch.setattr(cifar10, "_A_FILE", 100)


def pictures(split: str) -> np.ndarray:
    """(10, N, 32, 32, 3): those of each class."""
    random = np.random.default_rng(len(split))
    return random.integers(256, size=(10, EACH[split], 32, 32, 3), dtype=np.uint8)


def write_mosaics(root: Path, suffix: str = ".png") -> None:
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for name, own in zip(CLASSES, pictures(split), strict=True):
            rows = own.reshape(-1, 50, 32, 32, 3).transpose(0, 2, 1, 3, 4)
            whole = Pillow.fromarray(rows.reshape(-1, 50 * 32, 3))
            whole.save(root / split / f"{name}{suffix}", quality=90, compress_level=0)


def records(split: str) -> bytes:
    """Those of all classes, in the order of mosaics."""
    planes = pictures(split).transpose(0, 1, 4, 2, 3).reshape(10, EACH[split], -1)
    labels = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, EACH[split], 1))
    return np.concatenate([labels, planes], 2).tobytes()


def write_binaries(root: Path) -> None:
    root.mkdir(parents=True)
    train, test = records("train"), records("test")
    size = len(train) // 5
    for number in range(5):
        (root / f"data_batch_{number + 1}.bin").write_bytes(train[number * size :][:size])
    (root / "test_batch.bin").write_bytes(test)


@pytest.fixture
def both(home: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Binary files below `binary`, mosaics below `mosaics`, of the same pictures."""
    write_binaries(home / "binary" / "cifar-10-batches-bin")
    write_mosaics(home / "mosaics")
    lengths = {"train": 100, "test": 500}
    read = cifar10._binary

    def file(path: Path) -> tuple[np.ndarray, np.ndarray]:
        monkeypatch.setattr(cifar10, "_A_FILE", lengths["test" if "test" in path.name else "train"])
        return read(path)

    monkeypatch.setattr(cifar10, "_binary", file)
    return home


def test_binary_files_and_mosaics_give_the_same(both: Path) -> None:
    for split, count in (("train", 450), ("val", 50), ("test", 500)):
        one, other = (CIFAR10(root).open(split, {}, 0) for root in ("binary", "mosaics"))
        assert len(one) == len(other) == count
        assert one.facts() == other.facts()
        assert "copy" not in one.facts()
        for index in (0, 17, count - 1):
            a, b = (data[Key(0, index, index)] for data in (one, other))
            assert (a.label, a.name) == (b.label, b.name)
            assert torch.equal(a.pixels, b.pixels)
    sample = CIFAR10("binary").open("test", {}, 0)[Key(0, 60, 60)]  # the eleventh of the second class
    assert sample.label == 1
    np.testing.assert_array_equal(sample.pixels.numpy(), pictures("test")[1, 10].transpose(2, 0, 1))


def test_jpeg_is_called_a_copy(home: Path, small: None) -> None:
    write_mosaics(home / "jpeg", ".jpg")
    assert CIFAR10("jpeg").open("val", {}, 0).facts()["copy"] == "JPEG copy"


def test_the_split_is_exact_and_the_same_for_every_seed(both: Path) -> None:
    names = {
        (split, seed): [data.name(i) for i in range(len(data))]
        for split in ("train", "val")
        for seed in (0, 1)
        for data in [CIFAR10("mosaics").open(split, {}, seed)]
    }
    assert names["train", 0] == names["train", 1]
    assert names["val", 0] == names["val", 1]
    assert len({*names["train", 0], *names["val", 0]}) == 500
    held = CIFAR10("mosaics").open("val", {}, 0)
    assert np.bincount([held[Key(0, i, i)].label for i in range(50)]).tolist() == [5] * 10
    with pytest.raises(NoSuchSplit):
        CIFAR10("mosaics").open("testing", {}, 0)


def test_training_pictures_are_moved_as_seed_and_key_say(both: Path) -> None:
    data, again, other = (CIFAR10("mosaics").open("train", {}, seed) for seed in (0, 0, 1))
    key = Key(3, 5, 999)
    assert torch.equal(data[key].pixels, again[key].pixels)
    drawn = [data[Key(epoch, 5, draw)].pixels for epoch, draw in ((3, 999), (3, 1000), (4, 999))]
    drawn.append(other[key].pixels)
    assert not any(torch.equal(a, b) for n, a in enumerate(drawn) for b in drawn[:n])
    still = CIFAR10("mosaics", shift=0).open("train", {}, 0)
    assert torch.equal(still[key].pixels, still[Key(4, 5, 7)].pixels)
    plain = still[key].pixels.numpy()
    wide = np.zeros((3, 40, 40), np.uint8)
    wide[:, 4:36, 4:36] = plain
    moves = [wide[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    moves += [move[:, :, ::-1] for move in moves]
    assert all(any(np.array_equal(x.numpy(), move) for move in moves) for x in drawn)


def test_other_classes_are_refused(both: Path) -> None:
    with pytest.raises(CompressnetError, match=r"classes airplane, .*; the network knows a, b"):
        CIFAR10("mosaics").open("test", {"classes": ["a", "b"]}, 0)


def test_bad_binary_files_are_all_named(both: Path) -> None:
    folder = both / "binary" / "cifar-10-batches-bin"
    whole = bytearray((folder / "data_batch_2.bin").read_bytes())
    (folder / "data_batch_2.bin").write_bytes(whole[:-1])
    whole[3073 * 7] = 10
    (folder / "data_batch_4.bin").write_bytes(whole)
    with pytest.raises(BadFiles) as error:
        CIFAR10("binary").open("train", {}, 0)
    first, second = error.value.problems
    assert "data_batch_2.bin: 307,299 bytes, and not 100 records of 3,073" in first
    assert "data_batch_4.bin: a label is 10: there are 0 to 9" in second
    assert len(CIFAR10("binary").check()) == 1
    assert CIFAR10("binary").check(headers=True) == []
    (folder / "data_batch_5.bin").unlink()
    (folder / "data_batch_1.bin").unlink()
    with pytest.raises(BadFiles) as error:
        CIFAR10("binary").open("val", {}, 0)
    assert [Path(line.split(": ")[0]).name for line in error.value.problems] == [
        "data_batch_1.bin",
        "data_batch_5.bin",
    ]
    assert all(line.endswith(": missing") for line in error.value.problems)


def test_bad_mosaics_are_all_named(both: Path) -> None:
    folder = both / "mosaics" / "train"
    Pillow.new("RGB", (1600, 64)).save(folder / "bird.png")
    (folder / "frog.png").write_bytes((folder / "frog.png").read_bytes()[:-2000])
    with pytest.raises(BadFiles) as error:
        CIFAR10("mosaics").open("train", {}, 0)
    first, second = error.value.problems
    assert "bird.png: 1600 x 64 pixels, and not 1600 x 32: 50 pictures of 32x32, 50 a row" in first
    assert "frog.png: damaged" in second
    (folder / "ship.png").unlink()
    with pytest.raises(BadFiles, match=r"ship\.jpg: missing"):
        CIFAR10("mosaics").open("train", {}, 0)


def test_pickles_and_nothing_point_to_the_binary_version(home: Path) -> None:
    folder = home / "set" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    with pytest.raises(CompressnetError, match=r"holds no CIFAR-10 .*cifar-10-binary\.tar\.gz"):
        CIFAR10("set").open("train", {}, 0)
    (folder / "data_batch_1").write_bytes(b"\x80\x02c__builtin__\neval\n.")
    with pytest.raises(CompressnetError, match=r"pickles, which can run code .*cifar-10-binary\.tar\.gz"):
        CIFAR10("set").open("train", {}, 0)


def test_45000_are_left_to_train_on() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10, dtype=np.uint8), 5_000))
    train, val = (cifar10._part(labels, held_out) for held_out in (False, True))
    assert np.bincount(labels[val]).tolist() == [500] * 10
    assert len(train) == 45_000
    assert np.array_equal(np.union1d(train, val), np.arange(50_000))


@pytest.mark.skipif(not Path("../shared/data/cifar10").is_dir(), reason="the pictures are not here")
def test_the_real_mosaics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSNET_DATA", str(Path("../shared/data").resolve()))
    val, test = (CIFAR10().open(split, {}, 0) for split in ("val", "test"))
    assert (len(val), len(test)) == (5_000, 10_000)
    assert val.facts()["copy"] == "JPEG copy"
    pixels = np.stack([val[Key(0, i, i)].pixels.numpy() for i in range(0, 5_000, 10)]) / 255
    np.testing.assert_allclose(pixels.mean((0, 2, 3)), cifar10._MEAN, atol=0.02)
    np.testing.assert_allclose(pixels.std((0, 2, 3)), cifar10._STD, atol=0.02)
