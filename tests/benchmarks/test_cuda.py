"""The checks on CUDA, without a GPU and without torch: what crashes, hangs or lacks time loses no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.cuda_checks import packages, runner
from benchmarks.cuda_checks.cases import ROOT, Row, Section, Settings
from benchmarks.cuda_checks.report import Results

FAKES = "tests.benchmarks.fake_sections"


def checked(folder: Path, *names: str, seconds: float = 20.0, weights: tuple[float, ...] = ()) -> list[Row]:
    rows: list[Row] = []
    shares = weights or (1.0,) * len(names)
    sections = [Section(n, f"{FAKES}:{n}", share) for n, share in zip(names, shares, strict=True)]
    runner.check(sections, Settings(str(folder), device="cpu"), seconds, rows.append)
    return rows


def states(rows: list[Row]) -> list[tuple[str, str, str]]:
    return [(row.section, row.case, row.state) for row in rows]


GOOD = [("good", "plain", "ok"), ("good", "skipped", "skipped"), ("good", "wrong", "failed")]
GOOD += [("good", "broken", "failed")]


def test_a_finding_is_one_line_and_its_traceback_in_the_log(tmp_path: Path) -> None:
    rows = checked(tmp_path, "good")
    assert states(rows) == GOOD
    assert (rows[0].figure, rows[0].message) == ("1.5", "one | two")
    assert [row.message for row in rows[1:]] == [
        "nothing to check", "3 is not 4", "ValueError: of two lines",
    ]  # fmt: skip
    log = (tmp_path / "logs/good.txt").read_text()
    assert "Traceback" in log
    assert "the second" in log


def test_a_crash_loses_its_own_case_alone(tmp_path: Path) -> None:
    rows = checked(tmp_path, "crashing", "good")
    assert states(rows) == [
        ("crashing", "before", "ok"), ("crashing", "crash", "failed"), ("crashing", "after", "ok"), *GOOD,
    ]  # fmt: skip
    assert "SIGSEGV" in rows[1].message
    assert "logs/crashing.txt" in rows[1].message
    assert "Fatal Python error" in (tmp_path / "logs/crashing.txt").read_text()
    assert (tmp_path / "noted").read_text().split() == ["before", "after"]  # nothing is done twice


def test_what_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    rows = checked(tmp_path, "hanging", "good", seconds=60.0)
    assert states(rows) == [("hanging", "hang", "failed"), ("hanging", "after", "ok"), *GOOD]
    assert "hung" in rows[0].message
    pid = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{pid}/status")
    assert not status.exists() or "zombie" in status.read_text()


def test_time_that_is_over_leaves_the_rest_for_others(tmp_path: Path) -> None:
    rows = checked(tmp_path, "slow", "good", seconds=8.0, weights=(1.0, 3.0))
    assert states(rows) == [
        ("slow", "first", "ok"), ("slow", "slow", "not reached"), ("slow", "last", "not reached"), *GOOD,
    ]  # fmt: skip
    assert "unfinished after" in rows[1].message
    assert (tmp_path / "noted").read_text() == "first\n"


def test_without_time_a_section_is_not_begun(tmp_path: Path) -> None:
    rows = checked(tmp_path, "slow", "good", seconds=2.0, weights=(9.0, 1.0))
    assert states(rows)[-1] == ("good", "all", "not reached")


def test_time_left_over_goes_to_later_sections(tmp_path: Path) -> None:
    rows = checked(tmp_path, "told", "told", seconds=10.0)
    first, second = (float(row.figure) for row in rows)
    assert first == pytest.approx(5.0, abs=0.5)
    assert second > 8.0


def test_a_section_that_cannot_begin_is_one_row(tmp_path: Path) -> None:
    rows = checked(tmp_path, "silent", "told")
    assert states(rows) == [("silent", "start", "failed"), ("told", "seconds", "ok")]
    assert "exit code 1" in rows[0].message
    assert "ImportError: no module of that name" in rows[0].message


def test_cases_of_processes_run_side_by_side(tmp_path: Path) -> None:
    rows = checked(tmp_path, "side_by_side", seconds=10.0)
    assert sorted(states(rows)) == [("side_by_side", "a", "ok"), ("side_by_side", "b", "ok")]


def test_all_missing_packages_are_named_at_once() -> None:
    there = {name: "99" for name, _ in map(packages.split, packages.dependencies())} | {"typer": "0.9.1"}
    del there["pydantic"], there["tqdm"]
    lacking = packages.missing(there.get, lambda name: ["shellingham"] if name == "typer" else [])
    assert "typer>=0.20" in lacking
    assert {"pydantic>=2.7", "pydantic-core", "annotated-types", "shellingham", "tqdm"} <= set(lacking)
    line = packages.how_to_install(lacking)
    assert "\n" not in line
    assert "pip install 'annotated-types'" in line


def test_here_nothing_is_missing() -> None:
    assert packages.missing() == []


def test_versions_are_compared_as_numbers() -> None:
    assert packages.numbers("2.11.0+cu130") > packages.numbers("2.6")
    assert packages.numbers("0.20") > packages.numbers("0.9")
    assert packages.split("scikit_image>=0.24") == ("scikit-image", "0.24")


def test_results_are_on_disk_as_they_come(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(Row("a", "x", "ok", "1.0"))
    results.add(Row("a", "y | z", "failed", "", "wrong"))
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines] == ["ok", "failed"]
    results.write({"device": "cpu"})
    assert json.loads((tmp_path / "cuda.json").read_text())["counts"] == {"ok": 1, "failed": 1}
    table = (tmp_path / "cuda.md").read_text()
    assert table.index("## Failed") < table.index("## a")
    assert "| y \\| z | failed |" in table


def entry(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks/cuda.py"), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
    )


def test_the_command_refuses_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = entry("-o", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "name a new one" in done.stderr


@pytest.mark.parametrize(
    ("device", "cuda", "count", "why"),
    [
        ("cuda", None, 0, "torch 9.9 is built without CUDA"),
        ("cuda", "12.8", 0, "torch 9.9 finds no GPU"),
        ("cuda:2", "12.8", 2, "the last GPU here is cuda:1"),
    ],
)
def test_without_the_gpu_nothing_begins(
    tmp_path: Path, device: str, cuda: str | None, count: int, why: str
) -> None:
    fake = "from types import SimpleNamespace as Some\n__version__ = '9.9'\n"
    fake += f"version, cuda = Some(cuda={cuda!r}), Some(device_count=lambda: {count})\n"
    (tmp_path / "torch.py").write_text(fake)
    done = entry("-o", tmp_path / "out", "--device", device, PYTHONPATH=str(tmp_path))
    tail = "--device cpu --quick tries the checks themselves"
    assert (done.returncode, done.stderr) == (1, f"error: --device {device}: {why}; {tail}\n")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_its_tables_when_time_is_short(tmp_path: Path) -> None:
    began = time.monotonic()
    done = entry("-o", tmp_path / "out", "--device", "cpu", "--quick", "--minutes", "0.01")
    assert time.monotonic() - began < 30
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "out/cuda.json").read_text())["counts"]
    assert counts["not reached"] == 6
    assert "not reached" in (tmp_path / "out/cuda.md").read_text()
