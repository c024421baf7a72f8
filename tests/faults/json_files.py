"""Mutated JSON of runs, records, zoo cards and benchmarks, through the commands that read it.

python -m tests.faults.json_files [COUNT] [FIRST]

state.json is sealed anew, as a stranger can. Never anything comes of it but a value or one line.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from compressnet_cli.bench import compare

from compressnet import subject
from compressnet.analysis.machine import Machine, same

from . import networks
from .common import ROOT, Finished, arguments, call, must, unclear, work
from .fuzzing import Case, Wrong, campaign
from .mutation import BAD_JSON, changed, damaged

RECORDS = [
    "rof_zoo",
    "l0_released",
    "lm_ptb_sru",
    "lstm_1997_adding_seed0",
    "sentences_trec_sru_0",
    "sru_stream_auto",
    "lstmp_auto",
    "published",
]
STEPS = ["train.steps=24", "train.checkpoint_every=24", "train.evaluate_every=24"]


def mutated(value: Any, rng: random.Random, seal: bool = False) -> tuple[str, bytes]:
    """A JSON text that is another, and how."""
    how = rng.random()
    if how < 0.15:
        return "text", rng.choice(BAD_JSON).encode()
    if how < 0.3:
        return "bytes", changed(json.dumps(value).encode(), rng)
    kind, new = damaged(value, rng)
    if seal and isinstance(new, dict):
        rest = {key: item for key, item in new.items() if key != "seal"}
        new = {**rest, "seal": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}
    return kind, json.dumps(new).encode()


def told(done: Finished, kind: str) -> str:
    """An end in which a value was printed, or one that a person can act on."""
    if why := unclear(done):
        raise Wrong(f"{done.args[0]}: {why[:100]}", f"{kind}: {done.stderr[-200:]}")
    long = [line for line in done.stderr.splitlines() if len(line) > 2000]
    if long:
        raise Wrong(f"{done.args[0]}: a very long line", long[0][:100])
    return "refused" if done.returncode else "a value"


def run_file(name: str, rng: random.Random) -> Case:
    """run.json, or state.json of the newest checkpoint: the run is listed and goes on."""
    whole, folder = networks.trained("sequence"), work() / f"run-{os.getpid()}" / "run"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(whole, folder)
    path = folder / name
    if name == "state.json":
        path = folder / "checkpoints" / networks.checkpoint("sequence").name / name
    kind, data = mutated(json.loads(path.read_text()), rng, seal=name == "state.json")
    path.write_bytes(data)

    def tried() -> str:
        told(call("runs", "ls", "--runs", folder.parent), kind)
        settings = [word for setting in STEPS for word in ("--set", setting)]
        return told(call("train", "--resume", folder, *settings, "--threads", "1"), kind)

    return Case(f"{name} {kind}", tried)


def record(rng: random.Random) -> Case:
    """A record of an evaluation or a benchmark, or others' figures: the page of results is made."""
    folder, name = work() / f"records-{os.getpid()}", rng.choice(RECORDS)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(ROOT / "results" / "rof_zoo.json", folder / "other.json")
    kind, data = mutated(json.loads((ROOT / "results" / f"{name}.json").read_text()), rng)
    (folder / f"{name}.json").write_bytes(data)
    return Case(f"{name} {kind}", lambda: told(call("results", folder), kind))


def card(rng: random.Random) -> Case:
    """The card of a network of the zoo: it is listed."""
    folder = work() / f"zoo-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    shutil.copy(networks.ZOO, folder)
    kind, data = mutated(json.loads(networks.ZOO.with_suffix(".json").read_text()), rng)
    (folder / "rof.json").write_bytes(data)

    def tried() -> str:
        with mock.patch.object(subject, "_folder", return_value=folder):
            return told(call("zoo", "ls"), kind)

    return Case(f"card {kind}", tried)


def benchmark(rng: random.Random) -> Case:
    """A `bench --json`: it is compared with one as it was written."""
    report = _report()
    kind, data = mutated(report, rng)
    path = work() / f"bench-{os.getpid()}.json"
    path.write_bytes(data)

    def tried() -> str:
        old = compare.read(path)
        same(Machine.from_dict(old["machine"]), Machine.from_dict(report["machine"]))
        json.dumps(compare.against(old, report, path))
        return "a value"

    return Case(f"bench {kind}", tried)


@functools.cache
def _report() -> dict[str, Any]:
    path = work() / "bench.json"
    if not path.exists():
        words = ["sru:input_size=4,hidden_size=4", "vs", "lstm:input_size=4,hidden_size=4"]
        done = must(
            call(
                "bench",
                *words,
                "--processes",
                "1",
                "--rounds",
                "2",
                "--threads",
                "1",
                "--no-memory",
                "--json",
            )
        )
        path.write_text(done.stdout)
    report: dict[str, Any] = json.loads(path.read_text())
    return report


WAYS: list[Callable[[random.Random], Case]] = [functools.partial(run_file, "run.json"),
                                               functools.partial(run_file, "state.json"), record, record,
                                               card, benchmark]  # fmt: skip


def main() -> int:
    """The campaign; its exit code."""
    torch.set_num_threads(1)
    given = arguments(1000)
    networks.trained("sequence")
    _report()

    def case(number: int) -> Case:
        return WAYS[number % len(WAYS)](random.Random(number))

    return campaign("JSON files", case, given).finish()


if __name__ == "__main__":
    sys.exit(main())
