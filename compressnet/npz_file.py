"""Reads `.npz` files, which are zip archives of arrays, without trusting what they say of their sizes.

`numpy.load` takes the memory that a header asks for before it looks whether the values are there.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from compressnet.errors import CompressnetError, short

_MOST_BYTES = 2**28  # of all arrays, unpacked; the networks that there are to import have 2 MB
_MOST_ARRAYS = 10_000
# Deflate makes 1,000 bytes of one at most. Weights are packed badly, the zeros of an optimiser well.
_SMALL, _RATIO = 2**24, 100
# As numpy writes them. Others ask for memory of their own (a dictionary of 4 GB).
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): npy.read_array_header_2_0,  # differs in the names of fields, which are refused
}


class _Unfit(Exception):
    """What is wrong with one array."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of numbers of an `.npz` file by their names.

    Raises:
        CompressnetError: not such a file, damaged, of other things than numbers, or too large; the message
            names file and array.
    """
    if not path.is_file():
        raise CompressnetError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except CompressnetError:
        raise
    except Exception as error:  # a broken archive ends in whatever the module raises that reads that part
        raise CompressnetError(f"{path}: not a readable .npz archive: {_reason(error)}") from error


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if len(members) > _MOST_ARRAYS or total > _MOST_BYTES:
        raise CompressnetError(
            f"{path}: {len(members):,} arrays of {total:,} bytes; at most {_MOST_ARRAYS:,} and "
            f"{_MOST_BYTES:,} are read"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        try:
            if name in arrays or name == member.filename:
                raise _Unfit("is there twice" if name in arrays else "is not an array (.npy)")
            if member.flag_bits & 1:
                raise _Unfit("is encrypted")
            if member.compress_type not in _METHODS:
                raise _Unfit(f"is packed by method {member.compress_type}; only deflate is read")
            if member.file_size > max(_SMALL, _RATIO * member.compress_size):
                raise _Unfit(f"claims {member.file_size:,} bytes, packed in {member.compress_size:,}")
            with archive.open(member) as stream:
                arrays[name] = _array(stream, member.file_size)
        except _Unfit as error:
            raise CompressnetError(f"{path}: array '{short(name)}' {error}") from error
        except Exception as error:
            raise CompressnetError(
                f"{path}: array '{short(name)}' cannot be read: {_reason(error)}"
            ) from error
    if not arrays:
        raise CompressnetError(f"{path}: there is no array in it")
    return arrays


def _array(stream: IO[bytes], size: int) -> NDArray[Any]:
    """An array in numpy's format, version 1 to 3, from a stream of `size` bytes."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise _Unfit(f"is of version {version} of numpy's format")
    with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
        try:
            shape, by_columns, dtype = _HEADERS[version](stream)
        except (SyntaxError, ValueError, TypeError, LookupError) as error:
            if isinstance(error, ValueError) and "malformed node" not in str(error):
                raise  # numpy's own words
            raise _Unfit("has a header that is not numpy's") from error
    if dtype.hasobject or dtype.names or dtype.subdtype or dtype.kind not in "biuf":
        raise _Unfit(f"holds {short(str(dtype))}, not numbers")
    if any(dim < 0 for dim in shape) or math.prod(max(dim, 1) for dim in shape) > _MOST_BYTES:
        raise _Unfit(f"has an impossible shape {short(str(shape))}")
    needed = math.prod(shape) * dtype.itemsize
    if needed != size - stream.tell():
        raise _Unfit(f"claims {needed:,} bytes of values and has {size - stream.tell():,}")
    values = np.frombuffer(stream.read(), dtype=dtype).copy()
    return values.reshape(shape, order="F" if by_columns else "C")


def _reason(error: BaseException) -> str:
    return short(" ".join(str(error).split()) or type(error).__name__, 160)
