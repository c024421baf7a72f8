"""`bench` as people call it, on networks so small that it takes moments. No figure is asserted."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from compressnet_cli.bench.report import recorded_metric
from compressnet_cli.bench.worker import Worker
from PIL import Image as Pillow

import compressnet
from compressnet.analysis.bench import Case, Plan
from compressnet.analysis.machine import facts
from compressnet.errors import CompressnetError
from compressnet.files import process_alive
from compressnet.kernels.library import built
from compressnet.results.speed import milliseconds
from compressnet.run import Run
from compressnet.side import read_sides
from compressnet.tasks.image_apply import fast_forms
from tests.cli.conftest import Cli

QUICK = ("--rounds", "2", "--threads", "1", "--processes", "1", "--no-memory")
SMALL = ("can24", "--input-size", "16", *QUICK)


def measured(cli: Cli, *words: object) -> dict[str, Any]:
    value = json.loads(cli("bench", *words, "--json").stdout)
    assert isinstance(value, dict)
    return value


def test_every_figure_is_there(cli: Cli) -> None:
    report = measured(cli, "can24", "vs", "zoo:rof", "--input-size", "24x16", "--batch", "2", *QUICK[:6])
    fresh, trained = report["rows"]
    assert [fresh["name"], trained["name"]] == ["can24", "zoo:rof"]
    assert fresh["inputs"] == [[2, 3, 16, 24]]
    assert fresh["parameters"] == trained["parameters"] == 37219
    assert fresh["file_bytes"] == 4 * 37219
    assert trained["file_bytes"] > 4 * 37219
    assert 0 < fresh["p10_ms"] <= fresh["median_ms"] <= fresh["p90_ms"] <= fresh["p99_ms"]
    assert fresh["peak_bytes"] > 0
    assert fresh["per_second"] == pytest.approx(2 * 16 * 24 / 1e6 / (fresh["median_ms"] / 1e3))
    assert len(fresh["seconds"]) == 2
    assert fresh["ratio"]["value"] == 1
    assert trained["against"] == "can24"
    assert report["machine"]["torch"]
    assert set(report["cpu_settings"]["auto"]) == {"matmul", "malloc"}


def test_the_table(cli: Cli) -> None:
    done = cli("bench", *SMALL, "--backend", "eager,strips", "--dtype", "float32,bfloat16")
    for word in ("can24 eager float32", "can24 strips bfloat16", "MP/s", "CPU settings auto", "1x3x16x16"):
        assert word in done.stdout


def test_a_folded_network_is_as_large_as_what_runs(cli: Cli) -> None:
    words = "can24:norm=bn", "--input-size", "16", "--backend", "eager,folded", *QUICK
    whole, folded = measured(cli, *words)["rows"]
    module = compressnet.fold(compressnet.create("can24", norm="bn"))
    parameters = sum(p.numel() for p in module.parameters())
    assert folded["parameters"] == parameters < whole["parameters"]
    assert folded["tensor_bytes"] == folded["file_bytes"] == 4 * parameters


@pytest.mark.parametrize("mode", ["forward", "forward+backward", "train-step"])
def test_modes(cli: Cli, mode: str) -> None:
    (row,) = measured(cli, *SMALL, "--mode", mode)["rows"]
    assert row["mode"] == mode


def test_sequences_and_operators(cli: Cli) -> None:
    (row,) = measured(cli, "torch_lstm:input_size=4,hidden_size=5", "--seq-len", "7", *QUICK)["rows"]
    assert row["inputs"] == [[7, 1, 4]]
    assert row["unit"] == "step"
    (row,) = measured(cli, "operator:rof", "--input-size", "8", *QUICK)["rows"]
    assert row["parameters"] == 0


def test_as_apply_runs_them(cli: Cli) -> None:
    """An operator beside a network in the fastest form that it has here, which is told."""
    words = "operator:rof", "zoo:rof", "--backend", "apply", "--input-size", "20x16", *QUICK
    operator, network = measured(cli, *words)["rows"]
    assert (operator["backend"], operator["runs_as"]) == ("apply", "eager")
    fastest = next(iter(fast_forms(compressnet.load("zoo:rof").model)))
    assert (network["backend"], network["runs_as"]) == ("apply", fastest)
    shown = cli("bench", *words).stdout
    assert f"zoo:rof: apply runs it as {fastest}" in shown
    assert "operator:rof: on a photograph" in shown
    failed = cli("bench", "lstm:input_size=4,hidden_size=5", "--backend", "apply", *QUICK, code=2)
    assert failed.stderr.startswith("error: --backend apply: lstm:")
    assert "has eager, compile, reference" in failed.stderr


def test_equal_sides_are_told_apart(cli: Cli) -> None:
    assert [row["name"] for row in measured(cli, "can24", *SMALL)["rows"]] == ["can24 (1)", "can24 (2)"]


def test_threads_are_groups_of_their_own(cli: Cli) -> None:
    rows = measured(cli, *SMALL[:3], "--rounds", "2", "--threads", "1,2", *QUICK[4:])["rows"]
    assert [(row["threads"], row["against"]) for row in rows] == [(1, "can24"), (2, "can24")]


def test_process_wide_settings_are_compared_by_processes(cli: Cli) -> None:
    report = measured(cli, *SMALL, "--cpu-settings", "torch,auto")
    assert [row["cpu"] for row in report["rows"]] == ["torch", "auto"]
    assert report["cpu_settings"]["torch"] == {"matmul": "exact", "malloc": False}


def test_several_processes(cli: Cli, place: Path) -> None:
    words = "can24", "can32", "--input-size", "16", "--rounds", "3", "--threads", "1", "--no-memory"
    done = cli("bench", *words, "--processes", "2", "--record", "two")
    assert "in 2 processes" in done.stdout
    report = json.loads(Path("results/two.json").read_text())
    assert report["processes"] == 2
    assert [len(row["seconds"]) for row in report["rows"]] == [4, 4]  # two each


def test_a_record_has_the_command_that_ran(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = "torch_lstm:input_size=4,hidden_size=5"
    shared = "--threads", "1,all", "--memory", "--force", "--processes=2", "--set", "hidden_size=6"
    words = "bench", *shared, net, *QUICK, "--set", "input_size=3", "--record", "one"
    monkeypatch.setattr(sys, "argv", ["compressnet", *words])
    cli(*words)
    told = json.loads(Path("results/one.json").read_text())["command"].split()
    kept = "--force", "--set", "hidden_size=6", net, *QUICK, "--set", "input_size=3", "--record", "one"
    assert told == ["compressnet", "bench", *kept]


def test_an_error_in_a_process_is_told_as_here(cli: Cli) -> None:
    words = "can24", "--backend", "c", "--processes", "2", "--no-memory"
    assert cli("bench", *words, code=2).error.startswith("--backend c: can24 has")


def test_an_earlier_measurement_beside_it(cli: Cli, place: Path) -> None:
    old = measured(cli, *SMALL)
    Path("old.json").write_text(json.dumps(old))
    (row,) = measured(cli, *SMALL, "--compare", "old.json")["compared_with"]["rows"]
    assert row["old_median_ms"] == old["rows"][0]["median_ms"]
    assert "against old.json" in cli("bench", *SMALL, "--compare", "old.json").stdout


def test_earlier_measurements_that_do_not_fit(cli: Cli, place: Path) -> None:
    old = measured(cli, *SMALL)
    old["machine"]["processor"] = "Some other processor"
    Path("other.json").write_text(json.dumps(old))
    error = cli("bench", *SMALL, "--compare", "other.json", code=1).error
    assert "other.json: measured on another machine: processor: Some other processor" in error
    old = measured(cli, *SMALL)
    Path("fits.json").write_text(json.dumps(old))
    other = measured(cli, "can24", "--input-size", "8", *QUICK, "--compare", "fits.json")["compared_with"]
    assert other["rows"] == []
    assert "none of these rows" in other["remarks"][-1]
    del old["rows"][0]["seconds"]
    Path("row.json").write_text(json.dumps(old))
    assert "rows.0.seconds' is missing" in cli("bench", *SMALL, "--compare", "row.json", code=1).error


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "machine": {}, "rows": 3}'])
def test_broken_earlier_measurements(cli: Cli, place: Path, text: str) -> None:
    Path("old.json").write_text(text)
    assert cli("bench", *SMALL, "--compare", "old.json", code=1).error.startswith("--compare old.json: ")


def test_a_picture(cli: Cli, place: Path) -> None:
    cli("bench", "can24", "can32", "--input-size", "16", *QUICK, "--plot", "out.png")
    with Pillow.open("out.png") as picture:
        assert min(picture.size) > 400
    assert "out.png exists" in cli("bench", *SMALL, "--plot", "out.png", code=1).error
    cli("bench", *SMALL, "--plot", "out.png", "--force")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["can42"], 2, "there is no 'can42' - did you mean 'can32'?"),
        (["can24", "vs"], 2, "'vs' stands between two sides"),
        (["can24", "--set", "hidden_size=3"], 2, "--set hidden_size: no side takes it (can24)"),
        (["can24", "--backend", "c"], 2, "--backend c: can24 has eager, compile, strips"),
        (["torch_lstm:input_size=4,hidden_size=4", "--backend", "strips"], 2, "has eager, compile"),
        (["can24", "--backend", "strips", "--mode", "train-step"], 2, "for --mode forward only"),
        (["sru:input_size=4,hidden_size=4", "--backend", "strips"], 2, "has eager, compile, reference, c"),
        (
            ["sru:input_size=4,hidden_size=4", "--backend", "c", "--dtype", "bfloat16"],
            2,
            "--backend c: the C kernel computes float32 on the CPU only",
        ),
        (["can24", "--mode", "backward"], 2, "--mode backward: choose from forward, forward+backward"),
        (["can24", "--mode", "stream-step"], 2, "can24 has no streaming form"),
        (["can24", "--dtype", "int8"], 2, "--dtype int8: choose from float32, bfloat16, float16"),
        (["can24", "--threads", "0"], 2, "--threads 0: write a number or all"),
        (["can24", "--threads", "1,"], 2, "--threads 1,: write a list as a,b"),
        (["can24", "--clock", "sun"], 2, "--clock sun: choose from wall, cpu"),
        (
            ["can24", "--clock", "cpu", "--cpu-settings", "auto,torch"],
            2,
            "--clock cpu: it is the time",
        ),
        (["can24", "--cpu-settings", "fast"], 2, "--cpu-settings fast: choose from auto, torch"),
        (["can24", "--seq-len", "5"], 2, "--seq-len: no side takes sequences"),
        (["torch_lstm:input_size=4,hidden_size=4", "--input-size", "8x8"], 2, "no side takes images"),
        (["can24", "--input-size", "8x8x8"], 2, "--input-size 8x8x8: write it as 1920x1080 or 256"),
        (["torch_lstm:input_size=4,hidden_size=4", "--channels-last"], 2, "--channels-last: torch_lstm"),
        (["operator:rof", "--mode", "train-step"], 2, "has no parameters to train"),
        (["lstm:hidden_size=4"], 2, "lstm: 'input_size' is missing"),
        (
            ["lstmp:input_size=4,hidden_size=4,proj_size=4"],
            2,
            "proj_size 4 must be smaller than hidden_size 4",
        ),
        (["can24", "--compare", "absent.json"], 1, "--compare absent.json: cannot be read"),
        (["can24", "--plot", "out.pdf"], 2, "--plot out.pdf: a picture ends in .png"),
        (["can24", "--plot", "absent/out.png"], 1, "there is no folder absent"),
        (["can24", "--record", "../x"], 2, "--record ../x: use lower-case letters"),
        (["absent.safetensors"], 1, "absent.safetensors: no such file"),
    ],
)
def test_bad_inputs(cli: Cli, words: list[str], code: int, message: str) -> None:
    assert message in cli("bench", *QUICK[:2], *QUICK[4:], *words, code=code).error


def test_sides_that_take_different_things(cli: Cli) -> None:
    words = "can24", "torch_lstm:input_size=4,hidden_size=4"
    assert "take megapixels and steps" in cli("bench", *words, *QUICK, code=2).error


@pytest.mark.skipif("sru" not in built(), reason="the kernel was not built here")
def test_the_kernel_and_its_reference(cli: Cli) -> None:
    words = ("sru:input_size=4,hidden_size=5", "--backend", "reference,c,eager", *QUICK)
    report = measured(cli, *words, "--mode", "forward,forward+backward,train-step,stream-step")
    assert [row["backend"] for row in report["rows"]] == ["reference", "c", "eager"] * 4
    assert {row["against"] for row in report["rows"]} == {"sru:hidden_size=5,input_size=4 reference"}


def test_record(cli: Cli, place: Path) -> None:
    words = ("torch_lstm", "vs", "sru", "--set", "input_size=4", "--set", "hidden_size=5", *QUICK)
    printed = measured(cli, *words, "--seq-len", "3", "--record", "cells")
    text = Path("results/cells.json").read_text()
    record = json.loads(text)
    assert {key: record[key] for key in printed} == printed
    assert (record["name"], record["kind"], record["device"]) == ("cells", "speed", facts().name)
    assert {"command", "date", "commit", "versions"} < record.keys()
    assert str(place) not in text
    cli("results", "--write")
    page = Path("RESULTS.md").read_text()
    assert "### sru against torch_lstm" in page
    for row in record["rows"]:
        assert f" {milliseconds(row['median_ms'])} |" in page
    again = measured(cli, *words, "--seq-len", "3", "--compare", "results/cells.json")["compared_with"]
    assert len(again["rows"]) == 2
    assert "exists: add --force" in cli("bench", *SMALL, "--record", "cells", code=1).error
    cli("bench", *SMALL, "--record", "cells", "--force")
    assert [row["side"] for row in json.loads(Path("results/cells.json").read_text())["rows"]] == ["can24"]


def test_nothing_is_recorded_of_a_smoke_run(cli: Cli, place: Path, smoke_run: Path) -> None:
    shutil.copytree(smoke_run, "run")
    error = cli("bench", "./run", *SMALL[1:], "--record", "mine", code=1).error
    assert error == "./run is a smoke run: nothing of it is recorded"
    assert not Path("results").exists()


def test_processor_time(cli: Cli) -> None:
    (row,) = measured(cli, *SMALL, "--clock", "cpu")["rows"]
    assert row["clock"] == "cpu"


def test_torchs_failures_are_one_line(cli: Cli) -> None:
    words = "conv2d:in_channels=3,out_channels=3,kernel_size=9", "--input-size", "4"
    for processes in ("1", "2"):
        error = cli("bench", *words, "--processes", processes, "--no-memory", code=1).error
        assert "conv2d:" in error
        assert "cannot be run: RuntimeError" in error


def test_other_cpu_settings_are_remarked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    old = measured(cli, *SMALL)
    old["cpu_settings"]["auto"] = {"matmul": "fast", "malloc": True}
    Path("old.json").write_text(json.dumps(old))
    remarks = measured(cli, *SMALL, "--compare", "old.json")["compared_with"]["remarks"]
    assert any("CPU settings auto" in line for line in remarks)


def test_the_metric_is_that_of_the_checkpoint(place: Path, smoke_run: Path) -> None:
    run = Run.open(Path(shutil.copytree(smoke_run, place / "run")))
    run.log("evaluation", step=4, split="val", psnr=30.5)
    run.log("evaluation", step=8, split="val", psnr=29.5)
    found = [
        recorded_metric(read_sides([f"{run.folder}@{name}"], {})[0]) for name in ("step-4", "step-8", "last")
    ]
    assert [metric.value for metric in found if metric] == [30.5, 29.5, 29.5]
    rof, l0 = (recorded_metric(read_sides([f"zoo:{name}"], {})[0]) for name in ("rof", "l0"))
    assert rof is not None
    assert l0 is not None
    assert rof.direction == "higher"
    assert rof.of != l0.of
    assert recorded_metric(read_sides(["can24"], {})[0]) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_children_too(environment: dict[str, str], tmp_path: Path, number: int) -> None:
    words = [sys.executable, "-m", "compressnet_cli", "bench", "can24", "--rounds", "1000", "--no-memory"]
    running = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        child = wait_for_child(running.pid)
        running.send_signal(number)
        _, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 128 + number
    assert "Traceback" not in stderr
    assert not process_alive(child)


def wait_for_child(parent: int) -> int:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    for _ in range(600):
        if path.exists() and (children := path.read_text().split()):
            time.sleep(1)  # well inside its imports or its work
            return int(children[0])
        time.sleep(0.05)
    pytest.skip("this system does not tell the children of a process")


def test_a_child_that_dies_is_an_error() -> None:
    plan = Plan(("can24",), (Case(0),), image_size=(8, 8))
    with Worker(plan, None) as worker:
        worker.child.kill()
        with pytest.raises(CompressnetError, match="a measuring process ended"):
            worker.facts(0)


def test_an_error_in_a_child_is_told_as_here() -> None:
    plan = Plan(("can24",), (Case(0, backend="c"),), image_size=(8, 8))
    with Worker(plan, None) as worker, pytest.raises(CompressnetError, match="can24 has eager, compile"):
        worker.facts(0)
