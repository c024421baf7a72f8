"""Mutated TensorFlow bundles and .npz files through `import`'s readers.

python -m tests.faults.bundle_files [COUNT] [FIRST]

    bundle = INDEX (a table of blocks: name -> entry in protocol buffers) + DATA (the arrays in a row)
"""

from __future__ import annotations

import functools
import io
import os
import random
import struct
import sys
import zipfile
from typing import NamedTuple

import numpy as np
import torch

from compressnet import create
from compressnet.models.can import CAN
from compressnet.models.can_released import _variable_name, released_kind
from compressnet.tf_bundle import list_bundle, read_arrays

from .common import arguments, work
from .fuzzing import Case, campaign
from .mutation import changed

MAGIC = 0xDB4775248B80FB57
DATA = "data-00000-of-00001"
Pairs = list[tuple[bytes, bytes]]


def varint(number: int) -> bytes:
    """A whole number as protocol buffers have it."""
    out = b""
    while True:
        more = number > 0x7F
        out += bytes([(number & 0x7F) | (0x80 if more else 0)])
        number >>= 7
        if not more:
            return out


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def _block(pairs: Pairs) -> bytes:
    data = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs)
    return data + struct.pack("<II", 0, 1)


def table(pairs: Pairs, repeat: int = 1) -> bytes:
    """An index with all pairs in one block, which is named `repeat` times."""
    data = _block(pairs)
    index_at, end = len(data) + 5, bytes(5)
    index = _block([(b"z%d" % n, varint(0) + varint(len(data))) for n in range(repeat)])
    out, meta = data + end + index + end, _block([])
    handles = varint(len(out)) + varint(len(meta)) + varint(index_at) + varint(len(index))
    return out + meta + end + handles + bytes(40 - len(handles)) + struct.pack("<Q", MAGIC)


def bundle(arrays: dict[str, np.ndarray]) -> tuple[Pairs, bytes]:
    """Names and entries of arrays, and their data."""
    pairs, data = [(b"", field(1, 1) + field(2, 0))], b""
    for name, array in sorted(arrays.items()):
        shape = b"".join(field(2, field(1, size)) for size in array.shape)
        raw = array.astype("<f4").tobytes()
        where = field(3, 0) + field(4, len(data)) + field(5, len(raw))
        pairs.append((name.encode(), field(1, 1) + field(2, shape) + where))
        data += raw
    return pairs, data


def released() -> dict[str, np.ndarray]:
    """Arrays named as those of the authors' CAN24+AN."""
    arrays = {}
    for key, tensor in create("can24").state_dict().items():
        array = tensor.numpy()
        arrays[_variable_name(key, False)] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return arrays


class Files(NamedTuple):
    """The same arrays in all forms."""

    pairs: Pairs
    table: bytes
    data: bytes
    plain: bytes
    packed: bytes


def files() -> Files:
    """A bundle and two .npz files of a network."""
    arrays = released()
    pairs, data = bundle(arrays)
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **{name.replace("/", "__"): array for name, array in arrays.items()})  # type: ignore[arg-type]
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    return Files(pairs, table(pairs), data, plain.getvalue(), packed.getvalue())


def zipped(name: str, data: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of one file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr(name, data)
    return out.getvalue()


def npy(descr: str = "'<f4'", shape: str = "(3,)", data: bytes = bytes(12)) -> bytes:
    """An .npy file of any header."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + data


def special(good: Files) -> list[dict[str, bytes]]:
    """Files that somebody thought of, by suffix."""
    arrays = [
        npy(shape="(10000000000,)"), npy(shape="(-1,)"), npy(shape="(2147483648, 2147483648, 4)"),
        npy(shape="x"), npy(shape="((((((((((" * 50), npy(descr="'|O'"),
        npy(descr="[('a', '<f4')]"), b"",
    ]  # fmt: skip
    large = zipped("a.npy", npy(shape="(500000000,)", data=bytes(2 * 10**8)), zipfile.ZIP_DEFLATED)
    pickled = b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."
    zips = [*(zipped("a.npy", array) for array in arrays), zipped("../../a.npy", npy()),
            zipped("a.txt", b"x"), large, npy(), pickled, b""]  # fmt: skip
    many = [(b"", field(1, 1)), *((b"v%d" % n, good.pairs[5][1]) for n in range(30_000))]
    indices = [table(good.pairs, repeat=20_000), table(many), b""]
    return [*({"npz": data} for data in zips), *({"index": data, DATA: good.data} for data in indices)]


def entry(rng: random.Random) -> bytes:
    """An entry that no checkpoint has: type, shape, shard, place, length, and slices."""
    sizes = [0, 1, 3, 24, 2**31, 2**62, 2**63, 2**64 - 1]
    shape = b"".join(field(2, field(1, rng.choice(sizes))) for _ in range(rng.choice([0, 1, 2, 4, 33])))
    described: list[int | bytes] = [shape, shape, b"", b"\xff", 7]
    parts = [
        field(1, rng.choice([0, 1, 1, 1, 2, 7, 99])),
        field(2, rng.choice(described)),
        field(3, rng.choice([0, 0, 1, 2**40])),
        field(4, rng.choice([0, 0, 4, *sizes])),
        field(5, rng.choice([0, 4, 12, *sizes])),
    ]
    return b"".join(parts) + (field(7, b"") if rng.random() < 0.1 else b"")


def mutated(good: Files, rng: random.Random) -> tuple[str, dict[str, bytes]]:
    """Files of which one is damaged, and what kind of damage."""
    kind = rng.choice(["index"] * 3 + ["entry"] * 2 + ["data", "npz"] + ["npz compressed"] * 2)
    if kind.startswith("npz"):
        return kind, {"npz": changed(good.packed if "compressed" in kind else good.plain, rng)}
    if kind == "index":
        return kind, {"index": changed(good.table, rng), DATA: good.data}
    if kind == "data":
        return kind, {"index": good.table, DATA: changed(good.data, rng)}
    pairs, at = list(good.pairs), rng.randrange(len(good.pairs))
    shards = field(1, rng.choice([0, 1, 2, 10**5, 2**63])) + field(2, rng.choice([0, 1]))
    pairs[at] = (pairs[at][0], entry(rng) if at else shards)
    return kind, {"index": table(pairs), DATA: good.data}


def imported(damaged: dict[str, bytes]) -> str:
    """Read files as `import` does."""
    stem = work() / f"mutant-{os.getpid()}"
    for suffix, data in damaged.items():
        stem.with_name(f"{stem.name}.{suffix}").write_bytes(data)
    if "npz" not in damaged:
        list_bundle(stem)
    arrays = read_arrays(stem.with_suffix(".npz") if "npz" in damaged else stem)
    released_kind(arrays)
    CAN.from_released(arrays)
    return "imported"


def main() -> int:
    """The campaign; its exit code."""
    torch.set_num_threads(1)
    given, good = arguments(2000), files()
    chosen = special(good)

    def case(number: int) -> Case:
        if (at := number - given.first) < len(chosen):
            return Case(f"special {at}", functools.partial(imported, chosen[at]))
        kind, damaged = mutated(good, random.Random(number))
        return Case(kind, functools.partial(imported, damaged))

    return campaign("bundles and npz", case, given).finish()


if __name__ == "__main__":
    sys.exit(main())
