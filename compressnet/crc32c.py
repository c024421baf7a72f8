"""CRC-32C (Castagnoli), the checksum of TensorFlow's and LevelDB's files.

The bytes are cut into lanes of one length. One look-up for all lanes takes a byte of each; the checksums of
lanes are then joined: `crc(a + b) = shift(crc(a), len(b)) ^ crc(b)`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reflected
_LANE = 1 << 12  # bytes


def crc32c(data: bytes) -> int:
    """The checksum of `data`, e.g. 0xE3069283 of b"123456789"."""
    whole = len(data) // _LANE * _LANE
    state = 0xFFFFFFFF
    for lane in _of_lanes(np.frombuffer(data, np.uint8, whole).reshape(-1, _LANE)) if whole else ():
        state = _shifted(state) ^ int(lane)
    table = _table().tolist()
    for byte in data[whole:]:
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum as these files store it: rotated and offset, so that no data holds its own."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _of_lanes(lanes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The register after each lane (N, bytes), begun at 0."""
    table, state = _table(), np.zeros(len(lanes), np.uint32)
    for column in np.ascontiguousarray(lanes.T):
        state = table[(state ^ column) & 0xFF] ^ (state >> 8)
    return state


def _shifted(state: int) -> int:
    """The register after `_LANE` zeros: a linear function of it."""
    first, second, third, fourth = _lane_of_zeros()
    return first[state & 255] ^ second[state >> 8 & 255] ^ third[state >> 16 & 255] ^ fourth[state >> 24]


@cache
def _table() -> NDArray[np.uint32]:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ np.uint32(_POLYNOMIAL), values >> 1)
    return values


@cache
def _lane_of_zeros() -> list[list[int]]:
    """For each byte of the register, what each of its values becomes."""
    table = _table()
    state = (np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32)[:, None])).ravel()
    for _ in range(_LANE):
        state = table[state & 0xFF] ^ (state >> 8)
    return state.reshape(4, 256).tolist()
