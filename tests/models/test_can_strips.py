"""Strips give what the plain forward gives, for every size, strip height, form and memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressnet.errors import CompressnetError
from compressnet.models.activation_buffer import FileBuffer, Strip
from compressnet.models.can import CAN, can24
from compressnet.models.can_strip_layer import split
from compressnet.models.can_strips import (
    Plan,
    forward_in_strips,
    plain_bytes,
    plan,
    rows_in_all,
    supports,
)

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "can24_l0_released.npz"
SIZES = st.integers(1, 70)


def trained(seed: int = 0, depth: int = 7, width: int = 6, **arguments: Any) -> CAN:
    """Every parameter and buffer away from its neutral start."""
    torch.manual_seed(seed)
    net = CAN(depth, width, **arguments).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 4:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.endswith("w1"):
                parameter.fill_(-0.1)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in net.named_buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.3, 1.5) if "var" in name else buffer.uniform_(-0.5, 0.5)
    return net


@torch.no_grad()
def assert_equal_to_plain(net: CAN, x: Tensor, how: Plan | None = None) -> None:
    torch.testing.assert_close(forward_in_strips(net, x, how), net(x), rtol=0, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    height=SIZES,
    width=SIZES,
    strip=st.integers(1, 60_000),
    spill=st.booleans(),
    batch=st.integers(1, 2),
    threads=st.integers(1, 3),
)
def test_any_size_and_strip(
    height: int, width: int, strip: int, spill: bool, batch: int, threads: int
) -> None:
    x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
    assert_equal_to_plain(trained(), x, Plan(strip, spill, 0, threads))


@pytest.mark.parametrize("spill", [False, True])
def test_threads_change_nothing_from_run_to_run(spill: bool) -> None:
    net, x = trained(), torch.rand(1, 3, 150, 40)
    how = Plan(3000, spill, 0, threads=4)
    before = torch.get_num_threads()
    with torch.inference_mode():
        results = [forward_in_strips(net, x, how) for _ in range(8)]
    assert all(torch.equal(result, results[0]) for result in results)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {"variant": "paper"},
        {"norm": "bn"},
        {"norm": "none"},
        {"stats": "frozen"},
        {"stats": "frozen", "variant": "paper"},
        {"in_channels": 13, "out_channels": 1},
        {"depth": 3, "width": 1},
    ],
    ids=str,
)
def test_every_form(arguments: dict[str, Any], spill: bool) -> None:
    net = trained(**arguments)
    x = torch.rand(1, arguments.get("in_channels", 3), 37, 29)
    assert_equal_to_plain(net, x, Plan(5000, spill, 0))


def test_the_real_network_with_dilations_above_the_photograph() -> None:
    net = trained(depth=9, width=24)
    assert_equal_to_plain(net, torch.rand(1, 3, 50, 90))
    assert_equal_to_plain(net, torch.rand(1, 3, 90, 150).contiguous(memory_format=torch.channels_last))


def test_double_precision_agrees_to_the_last_digits() -> None:
    net = trained().double()
    x = torch.rand(1, 3, 41, 33, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            forward_in_strips(net, x, Plan(9000, False, 0)), net(x), rtol=0, atol=1e-12
        )


@torch.no_grad()
@pytest.mark.parametrize("spill", [False, True])
def test_bfloat16_keeps_statistics_in_float32(spill: bool) -> None:
    net = trained()
    x = torch.rand(1, 3, 64, 48)
    expected = net(x)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.bfloat16()
    plain, strips = net(x.bfloat16()), forward_in_strips(net, x.bfloat16(), Plan(4000, spill, 0))
    assert strips.dtype == torch.bfloat16
    scale = expected.abs().max()
    assert (strips.float() - expected).abs().max() < 1.5 * (
        plain.float() - expected
    ).abs().max() + 0.01 * scale


@given(height=st.integers(1, 90), dilation=st.integers(1, 100), rows=st.integers(0, 40))
def test_strips_cover_every_row_once(height: int, dilation: int, rows: int) -> None:
    strips = list(split(height, dilation, rows))
    covered = [
        strip.first + phase + row * strip.step
        for strip in strips
        for phase in range(strip.phases)
        for row in range(strip.begin, strip.end)
    ]
    assert sorted(covered) == list(range(height))
    assert all(strip.phases == 1 or strip.count == strip.total for strip in strips)


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_reports_every_row(threads: int) -> None:
    net, x = trained(), torch.rand(2, 3, 21, 9)
    seen: list[int] = []
    forward_in_strips(net, x, Plan(900, False, 0, threads), seen.append)
    assert sum(seen) == rows_in_all(net, x)
    assert len(seen) > 20


def test_the_plan_keeps_within_memory() -> None:
    net = can24()
    height, width = 3000, 4000
    buffer = height * width * 24 * 4
    assert plain_bytes(net, height, width) == 4 * buffer
    free = plan(net, height, width)
    assert not free.spill
    assert buffer < free.bytes < buffer + 2**25
    for limit in (2 * buffer, buffer + 2**24, buffer, 2**26, 2**23):
        how = plan(net, height, width, limit)
        assert how.bytes <= limit
        assert how.spill == (limit <= buffer)
        assert how.strip_bytes >= width * 24 * 4


def test_several_threads_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    net = can24()
    assert plan(net, 3000, 4000).threads == 8
    for limit, threads in ((2**29, 8), (2**25, 4), (2**23, 1)):
        how = plan(net, 3000, 4000, limit)
        assert how.threads == threads
        assert how.bytes <= limit


def test_too_little_memory_names_the_least_that_works() -> None:
    net = can24()
    with pytest.raises(CompressnetError, match=r"4000 pixels wide needs at least 5 MB, not 1$") as caught:
        plan(net, 3000, 4000, 2**20)
    assert "\n" not in str(caught.value)
    assert plan(net, 3000, 4000, 5 * 2**20).spill


def test_a_full_disk_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(CompressnetError, match="No space left on device; set TMPDIR"):
        forward_in_strips(trained(), torch.rand(1, 3, 9, 9), Plan(500, True, 0))


def test_reads_and_writes_that_the_system_cuts_short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("preadv", "pwritev"):
        whole = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, views, at, call=whole: call(fd, [views[0][:7]], at))
    with FileBuffer((10, 3, 2), torch.float32, torch.device("cpu")) as buffer:
        every = Strip(1, 0, 1, 0, 10, 10)
        values = torch.rand(1, 10, 3, 2)
        buffer.write(every, values)
        assert torch.equal(buffer.read(every), values)
        assert torch.equal(buffer.read(Strip(3, 1, 2, 1, 3, 3)), values[0, [[4, 7], [5, 8]]])


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs the golden file")
def test_the_authors_network() -> None:
    golden = dict(np.load(GOLDEN))
    net = CAN.from_released(golden)
    x = torch.from_numpy(golden["input_bgr_u8"][..., ::-1] / np.float32(255)).permute(2, 0, 1)[None]
    bgr = forward_in_strips(net, x, Plan(20_000, False, 0))[0].permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(bgr - golden["output_bgr"]).max() < 1e-5


def test_networks_of_another_build_are_left_to_the_plain_form() -> None:
    assert supports(can24())
    assert supports(can24(norm="none"))
    assert not supports(nn.Conv2d(3, 3, 1))
    assert supports(can24(norm="bn").eval())
    assert not supports(can24(norm="bn").train())  # takes and changes statistics of the batch
    net = can24()
    net.blocks[1].conv = nn.Sequential(nn.Conv2d(24, 4, 1), nn.Conv2d(4, 24, 1))
    assert not supports(net)
