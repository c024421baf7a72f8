"""Reads TensorFlow's checkpoint bundles (format V2) without TensorFlow.

A bundle is `<prefix>.index`, a LevelDB table from variable names to records (dtype, shape, shard, offset,
size), and `<prefix>.data-00000-of-00001` (or several shards), the raw little-endian values. A `.meta` file
beside them is not needed. Everything in the files is checked before it is used: they come from strangers.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressnet.crc32c import masked_crc32c
from compressnet.errors import CompressnetError, short, shown
from compressnet.npz_file import read_npz

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MAX_DIMS = 32
_MAX_INDEX = 2**24
_MAX_RECORDS = 100_000
_MAX_NAME = 1000  # bytes
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    7: "string",
    9: "int64",
    10: "bool",
    14: "bfloat16",
}


class Entry(NamedTuple):
    """Where a variable is: TensorFlow's dtype by name, shape, shard number, bytes in that shard, checksum."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    sliced: bool
    checksum: int | None


class _Malformed(Exception):
    """What is wrong with the bytes; the file is named by whoever catches it."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Named arrays from a TensorFlow bundle (see `read_bundle`) or from an `.npz` file (see `read_npz`).

    Raises:
        CompressnetError: neither, or damaged.
    """
    return read_npz(path) if path.suffix == ".npz" else read_bundle(path)


def read_bundle(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """The float32 variables of a bundle; `list_bundle` names the others too.

    Args:
        prefix: the common prefix of its files, any one of them, or the folder that holds one bundle.

    Raises:
        CompressnetError: no bundle there, or a damaged or compressed one; the message names the file.
    """
    index = _index_file(Path(prefix))
    shards, entries = _read_index(index)
    stem = index.with_suffix("")
    by_shard: dict[int, dict[str, Entry]] = {}
    for name, entry in entries.items():
        if entry.dtype != "float32" or entry.sliced:
            continue
        if entry.size != 4 * math.prod(entry.shape):
            raise CompressnetError(
                f"{index}: damaged: {shown(name)} has {entry.size} bytes for shape {short(str(entry.shape))}"
            )
        by_shard.setdefault(entry.shard, {})[name] = entry
    arrays: dict[str, NDArray[np.float32]] = {}
    for shard, its in by_shard.items():
        arrays |= _read_shard(stem.with_name(f"{stem.name}.data-{shard:05d}-of-{shards:05d}"), its)
    return {name: arrays[name] for name in entries if name in arrays}


def _read_shard(path: Path, entries: dict[str, Entry]) -> dict[str, NDArray[np.float32]]:
    """The float32 variables that lie in one file; none reaches into another, so that it bounds them all."""
    arrays, end, last = {}, 0, ""
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
            if entry.offset + entry.size > size:
                raise CompressnetError(
                    f"{path}: truncated: {shown(name)} needs {entry.offset + entry.size} bytes, it has {size}"
                )
            if entry.size and entry.offset < end:
                raise CompressnetError(f"{path}: damaged: {shown(name)} overlaps {shown(last)}")
            file.seek(entry.offset)
            data = file.read(entry.size)
            if entry.checksum not in (None, masked_crc32c(data)):
                raise CompressnetError(f"{path}: damaged: the checksum of {shown(name)} does not match")
            values = np.frombuffer(data, dtype="<f4")
            arrays[name] = values.astype(np.float32).reshape(entry.shape)
            end, last = (entry.offset + entry.size, name) if entry.size else (end, last)
    return arrays


def list_bundle(prefix: Path) -> dict[str, Entry]:
    """Every variable of a bundle, of any type, without reading its values. Arguments as `read_bundle`."""
    return _read_index(_index_file(Path(prefix)))[1]


def _index_file(path: Path) -> Path:
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            what = f"{len(found)} TensorFlow bundles (*.index) there; name one of them"
            raise CompressnetError(f"{path}: {what if found else 'no TensorFlow bundles (*.index) there'}")
        return found[0]
    index = path.with_name(_SUFFIX.sub("", path.name) + ".index")
    if not index.is_file():
        if path.is_file() and index.stem == path.name:
            raise CompressnetError(
                f"{path}: not a TensorFlow checkpoint (NAME.index and NAME.data-...), not an .npz file and "
                "not a .safetensors file of compressnet"
            )
        raise CompressnetError(
            f"{index}: no such file, the index of a TensorFlow checkpoint; nor is {path} one"
        )
    return index


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        if path.exists() and not path.is_file():
            raise CompressnetError(f"{path}: cannot be read: not a file")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise CompressnetError(f"{path}: cannot be read: {error.strerror}") from error


def _read_index(path: Path) -> tuple[int, dict[str, Entry]]:
    """Number of shards, and the variables by name."""
    with _opened(path) as file:
        table = file.read(_MAX_INDEX + 1)
    if len(table) > _MAX_INDEX:
        raise CompressnetError(
            f"{path}: not a readable TensorFlow bundle index: longer than {_MAX_INDEX >> 20} MB"
        )
    try:
        records = _records(table)
        if b"" not in records:
            raise _Malformed("it has no bundle header")
        header = _fields(records.pop(b""))
        shards = _int(header, 1)
        if not 1 <= shards <= 99999:
            raise _Malformed(f"it names {shards} shards")
        if _int(header, 2) != 0:
            raise _Malformed("its values are big-endian, which is not supported")
        entries = {name.decode("utf-8"): _entry(record) for name, record in records.items()}
        for name, entry in entries.items():
            if entry.shard >= shards:
                raise _Malformed(f"{shown(name)} lies in shard {entry.shard} of {shards}")
    except _Malformed as error:
        raise CompressnetError(f"{path}: not a readable TensorFlow bundle index: {error}") from error
    except UnicodeDecodeError as error:
        raise CompressnetError(f"{path}: damaged: a variable's name is not UTF-8") from error
    return shards, entries


def _records(table: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    for key, value in _table(table):
        if key in records:
            raise _Malformed("a name is there twice")
        if len(records) == _MAX_RECORDS:
            raise _Malformed(f"it has more than {_MAX_RECORDS:,} variables")
        records[key] = value
    return records


def _table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table."""
    if len(table) < _FOOTER:
        raise _Malformed(f"{len(table)} bytes, less than the footer alone (truncated?)")
    footer = table[-_FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise _Malformed("the magic number at its end is wrong (truncated, or another kind of file)")
    position = 0
    handle = []
    for _ in range(4):  # offset and size of the meta-index block, then of the index block
        number, position = _varint(footer, position)
        handle.append(number)
    total = 0
    for _, value in _block(table, handle[2], handle[3]):
        offset, position = _varint(value, 0)
        size, _ = _varint(value, position)
        total += size
        if total > len(table):
            raise _Malformed("its blocks overlap")
        yield from _block(table, offset, size)


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the block at `offset`: prefix-compressed entries, then the restart points."""
    if offset + size + 5 > len(table) - _FOOTER:  # one byte of type and a checksum follow it
        raise _Malformed(f"a block at byte {offset} reaches beyond the end (truncated?)")
    kind = table[offset + size]
    if kind != 0:
        name = "snappy" if kind == 1 else f"method {kind}"
        raise _Malformed(f"its blocks are compressed ({name}); save the checkpoint without compression")
    block = table[offset : offset + size]
    if size < 4:
        raise _Malformed(f"a block of {size} bytes at byte {offset}")
    end = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    if end < 0:
        raise _Malformed(f"the block at byte {offset} has more restart points than bytes")
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        fresh, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or position + fresh + length > end:
            raise _Malformed(f"an entry in the block at byte {offset} reaches beyond its end")
        if shared + fresh > _MAX_NAME:
            raise _Malformed(f"a name of {shared + fresh:,} bytes")
        key = key[:shared] + block[position : position + fresh]
        position += fresh
        yield key, block[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A base-128 number at `position`, and the position after it."""
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            raise _Malformed("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Malformed("a number has more than 64 bits")


def _fields(message: bytes) -> dict[int, list[Any]]:
    """A protobuf message: field number -> numbers or bytes, in their order."""
    fields: dict[int, list[Any]] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire = tag & 7
        value: int | bytes
        if wire == 0:
            value, position = _varint(message, position)
        elif wire in (1, 2, 5):
            length, position = _varint(message, position) if wire == 2 else (8 if wire == 1 else 4, position)
            if position + length > len(message):
                raise _Malformed("a record is cut off")
            value = message[position : position + length]
            position += length
        else:
            raise _Malformed(f"a record has a field of unknown wire type {wire}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _checksum(fields: dict[int, list[Any]]) -> int | None:
    data = _bytes(fields, 6)
    if len(data) not in (0, 4):
        raise _Malformed("a checksum is malformed")
    return int.from_bytes(data, "little") if data else None


def _entry(record: bytes) -> Entry:
    """A BundleEntryProto: 1 dtype, 2 shape, 3 shard, 4 offset, 5 size, 6 checksum, 7 slices."""
    fields = _fields(record)
    dims = _fields(_bytes(fields, 2)).get(2, [])  # TensorShapeProto: 2 dim { 1 size }
    if len(dims) > _MAX_DIMS or not all(isinstance(dim, bytes) for dim in dims):
        raise _Malformed("a shape is malformed")
    number = _int(fields, 1)
    shape = tuple(_int(_fields(dim), 1) for dim in dims)
    if math.prod(max(dim, 1) for dim in shape) >= 2**62:  # numpy's limit, also of arrays without an element
        raise _Malformed(f"a shape is impossible: {short(str(shape))}")
    return Entry(
        dtype=_DTYPES.get(number, f"type {number}"),
        shape=shape,
        shard=_int(fields, 3),
        offset=_int(fields, 4),
        size=_int(fields, 5),
        sliced=7 in fields,
        checksum=_checksum(fields),
    )


def _int(fields: dict[int, list[Any]], number: int) -> int:
    """The last value of a numeric field; protobuf leaves out zeros."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise _Malformed(f"field {number} of a record is no number")
    return value


def _bytes(fields: dict[int, list[Any]], number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise _Malformed(f"field {number} of a record is no message")
    return value
