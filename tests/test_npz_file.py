from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from compressnet.errors import CompressnetError
from compressnet.npz_file import read_npz


def _npy(shape: str = "(3,)", descr: str = "'<f4'", data: bytes = bytes(12), version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2, "little") + header + data


def _zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def _encrypted() -> bytes:
    data = bytearray(_zip(("a.npy", _npy())))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    return bytes(data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numpy(tmp_path: Path, save: object) -> None:
    arrays = {
        "a/b": np.arange(6, dtype=">f8").reshape(2, 3).T,
        "scalar": np.array(2, np.float32),
        "empty": np.zeros((0, 4), np.float16),
        "flags": np.array([True, False]),
    }
    save(tmp_path / "x.npz", **arrays)  # type: ignore[operator]
    found = read_npz(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable .npz archive: File is not a zip file"),
        (_npy(), "not a readable .npz archive"),
        (_zip(), "there is no array in it"),
        (_zip(("a.npy", b"")), "array 'a' cannot be read"),
        (_zip(("a.npy", _npy("(9000000000,)"))), "array 'a' has an impossible shape (9000000000,)"),
        (_zip(("a.npy", _npy("(1000, 1000)"))), "array 'a' claims 4,000,000 bytes of values and has 12"),
        (_zip(("a.npy", _npy("(2,)"))), "claims 8 bytes of values and has 12"),
        (_zip(("a.npy", _npy("(0, 99999999999)", data=b""))), "impossible shape"),
        (_zip(("a.npy", _npy("(-3,)"))), "impossible shape"),
        (_zip(("a.npy", _npy("[3]"))), "array 'a' cannot be read: shape is not valid"),
        (_zip(("a.npy", _npy("(" * 900))), "array 'a' cannot be read"),
        (_zip(("a.npy", _npy(descr="'|O'", data=bytes(24)))), "array 'a' holds object, not numbers"),
        (_zip(("a.npy", _npy(descr="[('x', '<f4')]"))), "not numbers"),
        (_zip(("a.npy", _npy(descr="'<U1'"))), "array 'a' holds <U1, not numbers"),
        (_zip(("a.npy", _npy(descr="'<c8'", data=bytes(24)))), "array 'a' holds complex64, not numbers"),
        (_zip(("a.npy", _npy(version=9))), "array 'a' is of version (9, 0) of numpy's format"),
        (_zip(("a.npy", _npy("(5000000,)", data=bytes(20_000_000)))), " bytes, packed in "),
        (_zip(("a.npy", _npy()), method=zipfile.ZIP_LZMA), "array 'a' is packed by method 14"),
        (_zip(("a.txt", b"x")), "array 'a.txt' is not an array (.npy)"),
        (_zip(("a\x1b[2J.npy", b"")), r"array 'a\x1b[2J' cannot be read"),
        (_encrypted(), "array 'a' is encrypted"),
        (_zip(("a.npy", _npy()))[:-30], "not a readable .npz archive"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    with pytest.raises(CompressnetError) as caught:
        read_npz(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_than_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    data = bytearray(_zip(*[(f"{n}.npy", _npy()) for n in range(2)]))
    for found in (data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02")):
        data[found + 24 : found + 28] = (2**28).to_bytes(4, "little")  # the size unpacked
    path.write_bytes(data)
    with pytest.raises(CompressnetError, match=r"2 arrays of 536,870,912 bytes; at most"):
        read_npz(path)


def test_a_damaged_value_is_noticed(tmp_path: Path) -> None:
    data = _zip(("a.npy", _npy(data=b"abcdefghijkl")), method=zipfile.ZIP_STORED)
    path = tmp_path / "x.npz"
    path.write_bytes(data.replace(b"abcdefghijkl", b"abcdefghijkm"))
    with pytest.raises(CompressnetError, match="array 'a' cannot be read: Bad CRC-32"):
        read_npz(path)
