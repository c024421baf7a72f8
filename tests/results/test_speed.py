"""Recorded benchmarks, and what RESULTS.md tells of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compressnet.analysis import machine
from compressnet.errors import CompressnetError
from compressnet.results import pages, records, speed
from tests.results.test_pages import cells
from tests.results.test_pages import record as evaluation

LSTM, SRU = "torch_lstm:hidden_size=4,input_size=3", "sru:hidden_size=4,input_size=3"


def row(side: str, median_ms: float, ratio: float, **changes: Any) -> dict[str, Any]:
    return {
        "name": side,
        "side": side,
        "occurrence": 1,
        "args": {"input_size": 3, "hidden_size": 4},
        "mode": "forward",
        "backend": "eager",
        "dtype": "float32",
        "threads": 1,
        "cpu": "auto",
        "clock": "wall",
        "batch": 32,
        "channels_last": False,
        "inputs": [[35, 32, 3]],
        "median_ms": median_ms,
        "ratio": {"value": ratio, "low": ratio - 0.25, "high": ratio + 0.25},
        "seconds": [median_ms / 1e3] * 7,
        **changes,
    }


def record(name: str = "fast", rows: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    rows = rows or [row(LSTM, 20.0, 1.0), row(SRU, 8.0, 2.5)]
    groups = {(one["mode"], one["threads"]) for one in rows}
    return {
        "name": name,
        "kind": "speed",
        "command": f"compressnet bench torch_lstm vs sru --record {name}",
        "date": "2026-01-31",
        "device": "a processor, AVX2",
        "commit": "0123456789",
        "machine": {"logical": 2, "torch": "2"},
        "cpu_settings": {"auto": {"matmul": "fast", "malloc": True}},
        "kernels": ["sru"],
        "processes": 3,
        "load": [[0.5, 1.25]] * len(groups),
        "rows": rows,
        "warnings": [],
        **changes,
    }


def tables(*given: dict[str, Any]) -> list[str]:
    """The sections between the introduction and the commands."""
    first, *between, last = speed.sections(given)
    assert first.startswith("## Speed")
    assert last.startswith("### How these were measured")
    return between


def test_a_comparison_is_one_line_with_all_it_depends_on() -> None:
    (section,) = tables(record())
    heading, _, typed, _, *table = section.splitlines()
    assert heading == "### sru against torch_lstm"
    assert typed == f"`{SRU}` against `{LSTM}`"
    assert len(table) == 3
    got = dict(zip(cells("\n".join(table), 0), cells("\n".join(table), 2), strict=True))
    assert got == {
        "input": "35x32x3",
        "mode": "forward",
        "threads": "1",
        "CPU settings": "auto",
        "torch_lstm ms": "20.0",
        "sru ms": "8.000",
        "times as fast [95 %]": "**2.50x [2.25, 2.75]**",
        "load": "0.5 to 1.2",
        "record": "[fast](results/fast.json)",
    }


def test_what_is_alike_stands_in_one_table_in_a_readable_order() -> None:
    def pair(ms: float, **where: Any) -> list[dict[str, Any]]:
        return [row(LSTM, ms, 1.0, **where), row(SRU, 1.0, ms, **where)]

    of_torch = record("b", pair(5.0, cpu="torch") + pair(6.0, cpu="torch", mode="forward+backward"))
    tuned = record("a", pair(3.0) + pair(4.0, mode="forward+backward") + pair(2.0, threads=2))
    long = record("c", pair(9.0, inputs=[[256, 32, 3]]))
    stream = record("d", pair(8.0, inputs=[[1, 1, 3]], mode="stream-step"))
    (section,) = tables(of_torch, tuned, long, stream)
    rows = [cells(section, number) for number in range(6, 6 + 7)]
    assert [(one[0], one[1], one[2], one[3], one[4]) for one in rows] == [
        ("1x1x3", "stream-step", "1", "auto", "8.000"),
        ("35x32x3", "forward", "1", "auto", "3.000"),
        ("35x32x3", "forward", "1", "torch", "5.000"),
        ("35x32x3", "forward", "2", "auto", "2.000"),
        ("35x32x3", "forward+backward", "1", "auto", "4.000"),
        ("35x32x3", "forward+backward", "1", "torch", "6.000"),
        ("256x32x3", "forward", "1", "auto", "9.000"),
    ]


def test_other_ways_and_equal_names_are_told_apart() -> None:
    spaced = "conv2d:kernel_size=[3, 3]"
    given = record(
        rows=[row(spaced, 4.0, 1.0), row(spaced, 2.0, 2.0, backend="compile", dtype="bfloat16")],
    )
    (section,) = tables(given)
    assert section.startswith("### conv2d compile bfloat16 against conv2d\n")
    assert "| conv2d ms | conv2d compile bfloat16 ms |" in section
    wider = SRU.replace("4", "8")
    (section,) = tables(record(rows=[row(SRU, 4.0, 1.0), row(wider, 8.0, 0.5)]))
    assert section.startswith("### sru, hidden_size 8 against sru, hidden_size 4\n\n")
    assert f"`{wider}` against `{SRU}`" in section
    (section,) = tables(record(rows=[row(SRU, 4.0, 1.0), row(SRU, 2.0, 2.0, cpu="torch")]))
    assert section.startswith("### sru torch against sru auto\n")
    assert cells(section, 6)[3] == "torch against auto"
    (section,) = tables(record(rows=[row("zoo:rof", 4.0, 1.0), row("zoo:rof", 2.0, 2.0, occurrence=2)]))
    assert section.startswith("### zoo:rof (2) against zoo:rof\n")


def test_a_network_alone_has_a_time_and_no_ratio() -> None:
    (section,) = tables(record(rows=[row("operator:rof", 1234.5, 1.0, clock="cpu")], load=[None]))
    assert section.startswith("### operator:rof\n\n`operator:rof`\n")
    shown = ["1,234.5", "-", "not known", "[fast](results/fast.json)"]
    assert cells(section, 6) == ["35x32x3", "forward, processor time", "1", "auto", *shown]


def test_how_to_repeat_it() -> None:
    rows = [row(LSTM, 20.0, 1.0), row(SRU, 8.0, 2.5, seconds=[0.008] * 9)]
    given = record(rows=rows, warnings=["load 9"], kernels=[], processes=1, commit=None)
    line = speed.sections([given])[-1].splitlines()[-1]
    assert line == (
        "- fast: `compressnet bench torch_lstm vs sru --record fast`; a processor, AVX2, 2 processors, "
        "torch 2; CPU settings auto: matmul fast, malloc tuned; C kernels: none; 7 to 9 passes in 1 process; "
        "2026-01-31, commit not known; warnings: 1, in the record"
    )


def test_the_page_keeps_speed_and_figures_of_merit_apart() -> None:
    alone = pages.results_page([evaluation()])
    assert "## Speed" not in alone
    both = pages.results_page([record(), evaluation()])
    assert both.index("## Speed") < both.index("## mine")
    assert "## fast" not in both.replace("### fast", "")
    assert pages.summary_table([record(), evaluation()], []) == pages.summary_table([evaluation()], [])


def test_a_record_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = f"{tmp_path}/runs/x"
    report = {
        **{key: record()[key] for key in ("cpu_settings", "kernels", "processes", "load")},
        "format": 1,
        "machine": machine.facts().as_dict(),
        "rows": [row(LSTM, 20.0, 1.0), row(run, 8.0, 2.5, against=LSTM)],
        "warnings": [f"{run}: not stable"],
    }
    command = f"compressnet bench {run} --data-root /data"
    path = speed.write_record(tmp_path / "results", "mine", report, command)
    assert path == tmp_path / "results" / "mine.json"
    assert str(tmp_path) not in path.read_text()
    (read,) = records.read_records(tmp_path / "results")
    assert read["command"] == "compressnet bench runs/x"
    assert read["device"] == machine.facts().name
    assert read["rows"][0] == report["rows"][0]
    assert read["rows"][1]["side"] == "runs/x"
    assert read["rows"][1]["seconds"] == report["rows"][1]["seconds"]
    assert set(report) < set(read)
    (section,) = tables(read)
    assert section.startswith(f"### runs/x against {LSTM.partition(':')[0]}\n")
    with pytest.raises(CompressnetError, match="exists: add --force"):
        speed.write_record(tmp_path / "results", "mine", report, command)
    speed.write_record(tmp_path / "results", "mine", report, "other", overwrite=True)
    assert json.loads(path.read_text())["command"] == "other"
