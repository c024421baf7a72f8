from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet.crc32c import crc32c, masked_crc32c
from compressnet.errors import CompressnetError
from compressnet.models.can import CAN, can24
from compressnet.tf_bundle import list_bundle, read_bundle

# ---- a writer of bundles, after the description of the format (LevelDB table, protobuf records)

_CODES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _block(items: list[tuple[bytes, bytes]], interval: int) -> bytes:
    body, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(items):
        shared = 0
        if i % interval == 0:
            restarts.append(len(body))
        else:
            shared = sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], zip(last, key, strict=False)))
        body += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(body) + b"".join(struct.pack("<I", r) for r in restarts) + struct.pack("<I", len(restarts))


def _table(items: list[tuple[bytes, bytes]], per_block: int = 4, interval: int = 3, kind: int = 0) -> bytes:
    out = bytearray()

    def put(block: bytes) -> bytes:
        handle = _varint(len(out)) + _varint(len(block))
        out.extend(block + bytes([kind]) + b"\0\0\0\0")
        return handle

    items = sorted(items)
    groups = [items[i : i + per_block] for i in range(0, len(items), per_block)]
    index = [(group[-1][0] + b"~", put(_block(group, interval))) for group in groups]
    footer = put(_block([], interval)) + put(_block(index, 1))
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value) if value else b""  # zeros are left out


def _record(array: np.ndarray, shard: int, offset: int) -> bytes:
    shape = b"".join(_field(2, _field(1, dim)) for dim in array.shape)
    code = _field(1, _CODES[str(array.dtype)])
    place = _field(3, shard) + _field(4, offset) + _field(5, array.nbytes)
    return (
        code + _field(2, shape) + place + _varint(6 << 3 | 5) + struct.pack("<I", _checksum(array.tobytes()))
    )


@functools.cache
def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


def _checksum(data: bytes) -> int:
    """CRC-32C byte by byte, masked."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _remainder((crc ^ byte) & 0xFF)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def _write(prefix: Path, arrays: dict[str, np.ndarray], shards: int = 1, **table: int) -> Path:
    data = [bytearray() for _ in range(shards)]
    items = [(b"", _field(1, shards) + _field(3, _field(1, 1)))]
    for i, (name, array) in enumerate(arrays.items()):
        shard = i % shards
        items.append((name.encode(), _record(array, shard, len(data[shard]))))
        data[shard] += array.tobytes()
    Path(f"{prefix}.index").write_bytes(_table(items, **table))
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    return prefix


def _released(net: Any) -> dict[str, np.ndarray]:
    """Variables of CAN24 under the release's names, with what a training checkpoint holds besides."""
    arrays: dict[str, np.ndarray] = {}
    for i, block in enumerate(net.blocks):
        layer = f"g_conv{i + 1 if i < 7 else 9}"
        weight = block.conv.weight.detach().numpy()
        weight = weight[:, ::-1] if i == 0 else weight
        arrays[f"{layer}/weights"] = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
        arrays[f"{layer}/w0"], arrays[f"{layer}/w1"] = (
            p.detach().numpy() for p in (block.norm.w0, block.norm.w1)
        )
        arrays[f"{layer}/BatchNorm/beta"] = block.norm.beta.detach().numpy()
        arrays[f"{layer}/BatchNorm/moving_mean"] = np.zeros(24, np.float32)
        arrays[f"{layer}/BatchNorm/moving_variance"] = np.ones(24, np.float32)
    arrays["g_conv_last/weights"] = np.ascontiguousarray(
        net.last.weight.detach().numpy()[::-1].transpose(2, 3, 1, 0)
    )
    arrays["g_conv_last/biases"] = np.ascontiguousarray(net.last.bias.detach().numpy()[::-1])
    trained = [n for n in arrays if "moving" not in n]
    arrays |= {
        f"{name}/{slot}": np.zeros_like(arrays[name]) for name in trained for slot in ("Adam", "Adam_1")
    }
    powers = {name: np.array(0.5, np.float32) for name in ("beta1_power", "beta2_power")}
    return arrays | powers | {"global_step": np.array(7, np.int64)}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    arrays: dict[str, np.ndarray] = {
        "a/weights": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a/weights/Adam": np.ones((2, 3), np.float32),
        "a/w0": np.array(0.5, np.float32),
        "b": np.zeros((0, 4), np.float32),
        "step": np.array(3, np.int64),
        "wide": np.ones(2, np.float64),
    }
    return _write(tmp_path / "model.ckpt", arrays)


# ---- reading


@pytest.mark.parametrize("shards", [1, 3])
def test_a_can_survives_the_round_trip(tmp_path: Path, shards: int) -> None:
    torch.manual_seed(0)
    net = can24()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    prefix = _write(tmp_path / "model.ckpt", _released(net), shards)
    again = CAN.from_released(read_bundle(prefix))
    for key, value in net.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)


def test_values_shapes_and_types(small: Path) -> None:
    arrays = read_bundle(small)
    assert set(arrays) == {"a/weights", "a/weights/Adam", "a/w0", "b"}
    assert arrays["a/w0"].shape == ()
    assert arrays["a/w0"] == 0.5
    assert arrays["b"].shape == (0, 4)
    np.testing.assert_array_equal(arrays["a/weights"], [[0, 1, 2], [3, 4, 5]])
    assert all(array.dtype == np.float32 and array.flags.writeable for array in arrays.values())


def test_other_types_are_listed(small: Path) -> None:
    entries = list_bundle(small)
    assert {name: entry.dtype for name, entry in entries.items() if entry.dtype != "float32"} == {
        "step": "int64",
        "wide": "float64",
    }
    assert entries["a/weights"].shape == (2, 3)
    assert entries["a/weights"].size == 24


def test_prefix_file_and_folder_name_the_same_bundle(small: Path) -> None:
    for path in (small, Path(f"{small}.index"), Path(f"{small}.data-00000-of-00001"), small.parent):
        assert set(read_bundle(path)) == set(read_bundle(small))


_names = st.text(st.sampled_from("ab/_é"), min_size=1, max_size=12)
_shapes = st.lists(st.integers(0, 4), max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_names, _shapes, max_size=25), st.integers(1, 7), st.integers(1, 5), st.integers(1, 3))
def test_any_table_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: dict[str, list[int]],
    per_block: int,
    interval: int,
    shards: int,
) -> None:
    random = np.random.default_rng(0)
    arrays = {name: random.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    prefix = tmp_path_factory.mktemp("bundle") / "m"
    _write(prefix, arrays, shards, per_block=per_block, interval=interval)
    found = read_bundle(prefix)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


# ---- damage: one clear error that names the file, never another exception


def test_truncated_index_at_every_byte(small: Path) -> None:
    index = Path(f"{small}.index")
    whole = index.read_bytes()
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        with pytest.raises(CompressnetError, match=r"model\.ckpt\.index.*truncated"):
            read_bundle(small)


def test_truncated_data_at_every_byte(small: Path) -> None:
    data = Path(f"{small}.data-00000-of-00001")
    whole = data.read_bytes()
    needed = 4 * (6 + 6 + 1)  # the float32 variables, which come first
    for length in range(needed):
        data.write_bytes(whole[:length])
        with pytest.raises(CompressnetError, match=r"data-00000-of-00001: truncated"):
            read_bundle(small)


def test_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    rng = np.random.default_rng(0)
    for length in (0, 1, 4095, 4096, 4097, 20_000):
        data = rng.bytes(length)
        assert masked_crc32c(data) == _checksum(data)


def test_a_flipped_bit_of_the_values_is_noticed(small: Path) -> None:
    data = Path(f"{small}.data-00000-of-00001")
    whole = data.read_bytes()
    for position in range(4 * (6 + 6 + 1)):  # the float32 variables
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        data.write_bytes(damaged)
        with pytest.raises(CompressnetError, match=r"damaged: the checksum of '\S+' does not match"):
            read_bundle(small)


def test_a_flipped_byte_is_an_error_of_ours_or_harmless(small: Path) -> None:
    index = Path(f"{small}.index")
    whole = index.read_bytes()
    refused: list[str] = []
    for position in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            index.write_bytes(damaged)
            try:
                read_bundle(small)
            except CompressnetError as error:
                refused.append(str(error))
    assert len(refused) > len(whole)
    assert all(text.startswith(str(small)) for text in refused)
    assert not any("\n" in text for text in refused)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table[:-1] + b"\0", "magic number"),
        (lambda table: b"", "truncated"),
        (lambda table: table[:-48] + b"\xff" * 40 + table[-8:], "more than 64 bits"),
        (lambda table: table[:-48] + b"\0\0\0\xff\xff\xff\x7f".ljust(40, b"\0") + table[-8:], "truncated"),
    ],
)
def test_bad_footers(small: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    index = Path(f"{small}.index")
    index.write_bytes(damage(index.read_bytes()))
    with pytest.raises(CompressnetError, match=message):
        read_bundle(small)


@pytest.mark.parametrize(("kind", "message"), [(1, "snappy"), (4, "method 4")])
def test_compressed_blocks_are_refused(tmp_path: Path, kind: int, message: str) -> None:
    _write(tmp_path / "m", {"a": np.ones(2, np.float32)}, kind=kind)
    with pytest.raises(CompressnetError, match=message):
        read_bundle(tmp_path / "m")


def _index_of(tmp_path: Path, header: bytes, record: bytes) -> Path:
    (tmp_path / "m.index").write_bytes(_table([(b"", header), (b"a", record)]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"\0" * 8)
    return tmp_path / "m"


_TWO = _field(1, 1) + _field(2, _field(2, _field(1, 2))) + _field(5, 8)


@pytest.mark.parametrize(
    ("header", "record", "message"),
    [
        (b"", _TWO, "names 0 shards"),
        (_field(1, 1) + _field(2, 1), _TWO, "big-endian"),
        (_field(1, 1), _TWO + _field(3, 1), "shard 1 of 1"),
        (_field(1, 1), _TWO + _field(5, 4), "4 bytes for shape"),
        (_field(1, 1), _TWO + _field(4, 4), "needs 12 bytes, it has 8"),
        (_field(1, 1), b"\x12\x7f", "cut off"),
        (_field(1, 1), b"\x0b", "wire type"),
        (_field(1, 1), _field(1, b"x"), "no number"),
        (_field(1, 1), _field(2, 3), "no message"),
    ],
)
def test_impossible_records(tmp_path: Path, header: bytes, record: bytes, message: str) -> None:
    with pytest.raises(CompressnetError, match=message):
        read_bundle(_index_of(tmp_path, header, record))


def test_missing_files(tmp_path: Path, small: Path) -> None:
    with pytest.raises(CompressnetError, match=r"nothing\.index: no such file"):
        read_bundle(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CompressnetError, match="no TensorFlow bundles"):
        read_bundle(tmp_path / "empty")
    _write(small.parent / "second", {"a": np.ones(1, np.float32)})
    with pytest.raises(CompressnetError, match="2 TensorFlow bundles"):
        read_bundle(small.parent)
    Path(f"{small}.data-00000-of-00001").unlink()
    with pytest.raises(CompressnetError, match="data-00000-of-00001: cannot be read"):
        read_bundle(small)


# ---- work and memory that the size of the files bounds


def _index(tmp_path: Path, items: list[tuple[bytes, bytes]], data: bytes = b"\0" * 8, **table: int) -> Path:
    (tmp_path / "m.index").write_bytes(_table([(b"", _field(1, 1)), *items], **table))
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    return tmp_path / "m"


def test_a_block_that_is_named_again_and_again_is_refused(tmp_path: Path) -> None:
    block = _block([(b"", _field(1, 1))], 1)
    table = block + bytes(5)
    index = _block([(b"k%d" % n, _varint(0) + _varint(len(block))) for n in range(500)], 1)
    handles = _varint(0) + _varint(len(block)) + _varint(len(table)) + _varint(len(index))
    table += index + bytes(5) + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    (tmp_path / "m.index").write_bytes(table)
    with pytest.raises(CompressnetError, match=r"m\.index: not a readable.*(overlap|a name is there twice)"):
        list_bundle(tmp_path / "m")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(b"v%d" % n, _TWO) for n in range(300)], r"'v0'|'v1' overlaps"),
        ([(b"a", _TWO), (b"b", _TWO + _field(4, 4))], "'b' needs 12 bytes, it has 8"),
        ([(b"a", _TWO), (b"a", _TWO)], "a name is there twice"),
        ([(b"n" * 1001, _TWO)], "a name of 1,00. bytes"),
        (
            [(b"a", _field(1, 1) + b"".join(_field(2, _field(2, _field(1, d))) for d in (2**63,)))],
            "impossible",
        ),
        (
            [(b"a", _field(1, 1) + _field(2, _field(2, _field(1, 2**40)) * 2 + _field(2, b"")))],
            "impossible: .1099511627776, 1099511627776, 0.",
        ),
    ],
)
def test_variables_that_cannot_all_be_there(
    tmp_path: Path, items: list[tuple[bytes, bytes]], message: str
) -> None:
    with pytest.raises(CompressnetError, match=message):
        read_bundle(_index(tmp_path, items))


def test_what_is_no_file_is_not_read(tmp_path: Path, small: Path) -> None:
    data = Path(f"{small}.data-00000-of-00001")
    data.unlink()
    data.symlink_to("/dev/zero")
    with pytest.raises(CompressnetError, match="data-00000-of-00001: cannot be read: not a file"):
        read_bundle(small)
