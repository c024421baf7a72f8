"""Which tiles a layer of a CAN takes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from compressnet.kernels import can_layer
from compressnet.models import can_tiles
from compressnet.models.can import can24
from compressnet.models.can_winograd import Winograd

needs_kernel = pytest.mark.skipif(
    not can_layer.available() or can_layer.level() < 3, reason="no kernel, or a processor without AVX2"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and nothing remembered from before."""
    monkeypatch.setenv("COMPRESSNET_CACHE", str(tmp_path / "cache"))
    costs = can_tiles.costs
    costs.cache_clear()
    yield tmp_path / "cache" / "cpu"
    costs.cache_clear()


@pytest.mark.parametrize(("length", "dilation"), [(1, 1), (720, 1), (719, 16), (90, 64), (5, 8)])
@pytest.mark.parametrize("size", [2, 4, 6])
def test_tiles_are_counted(length: int, dilation: int, size: int) -> None:
    phases = [range(first, length, dilation) for first in range(min(dilation, length))]
    assert can_tiles._along(size, length, dilation) == sum(-(-len(phase) // size) for phase in phases)


@needs_kernel
def test_costs_are_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = can_tiles.costs(24)
    assert all(0.01 < cost < 1000 for cost in first.values())
    (path,) = cache.iterdir()
    can_tiles.costs.cache_clear()
    monkeypatch.setattr(can_tiles, "_measured", None)  # no more
    assert can_tiles.costs(24) == first
    assert set(json.loads(path.read_text())["probe"]) == {"0", "2", "4", "6"}


@needs_kernel
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-9],
        lambda text: text.replace('"6": ', '"6": "x", "7": '),
        lambda text: text.replace('"6": ', '"8": '),
        lambda text: text.replace('"6": ', '"6": NaN, "7": '),
        lambda text: text.replace('"channels": "24"', '"channels": "32"'),
        lambda text: json.dumps(
            {"key": json.loads(text)["key"], "probe": {str(n): -1.0 for n in (0, 2, 4, 6)}}
        ),
    ],
    ids=["torn", "a text", "a size missing", "NaN", "of others", "below zero"],
)
def test_a_damaged_table_is_measured_anew(cache: Path, damage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    can_tiles.costs(24)
    (path,) = cache.iterdir()
    path.write_text(damage(path.read_text()))
    can_tiles.costs.cache_clear()
    new = {"0": 1.0, "2": 2.0, "4": 3.0, "6": 4.0}
    monkeypatch.setattr(can_tiles, "_measured", lambda channels: new)
    assert can_tiles.costs(24) == {0: 1.0, 2: 2.0, 4: 3.0, 6: 4.0}
    assert json.loads(path.read_text())["probe"] == new


@needs_kernel
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "nested", "huge", "a link to nowhere"])
def test_what_is_no_table_is_not_waited_for(cache: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(can_tiles, "_measured", lambda channels: {str(n): 1.0 for n in can_layer.TILES})
    can_tiles.costs(24)
    (path,) = cache.iterdir()
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a link to nowhere":
        path.symlink_to(path.with_name("nowhere"))
    else:
        path.write_text("[" * 90_000 if kind == "nested" else "[" + "1," * 10**6)
    can_tiles.costs.cache_clear()
    assert can_tiles.costs(24) == dict.fromkeys(can_layer.TILES, 1.0)


@needs_kernel
@pytest.mark.parametrize("cheap", can_layer.TILES)
def test_a_wrong_table_costs_time_alone(cheap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        can_tiles, "costs", lambda channels: {n: 1e-9 if n == cheap else 1e9 for n in can_layer.TILES}
    )
    net, x = can24(kernels="mixed").eval(), torch.rand(1, 3, 37, 70)
    run = Winograd(net)
    assert set(run.tiles(37, 70)) == {cheap}
    with torch.no_grad():
        expected = net(x)
    assert (run(x) - expected).abs().max() <= 2e-5 * expected.abs().max()
