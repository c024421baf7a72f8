"""Damaged run folders through `runs ls`, `apply`'s and `eval`'s way to the weights, and `train --resume`.

python -m tests.faults.run_folders [COUNT] [FIRST]

What is resumed ends with the weights that the undamaged run ends with, or something was said.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import sys
from pathlib import Path

import torch

from compressnet.errors import CompressnetError
from compressnet.subject import load

from .common import Finished, arguments, call, must, unclear, value_of, work
from .fuzzing import Case, Wrong, campaign
from .mutation import EVIL, places, put, without

TRAIN = ["lstm_1997_tasks", "--set", "train.steps=30", "--set", "train.checkpoint_every=5", "--set",
         "train.evaluate_every=10", "--set", "data.val_count=5",
         "--set", "data.steps=10", "--threads", "1"]  # fmt: skip
RESUME = ["--set", "train.steps=36", "--threads", "1", "--json"]
POINTERS = ["../../../x", "/etc", "..", ".", "", "step-999", "step-", "step-²", "step--5", "\0", "a" * 5000,
            "step-30\nstep-25", "\x1b[31mx", "[red]", "é",
            "step-30/../../checkpoints/step-30"]  # fmt: skip
CHECKPOINTS = [
    "step-31",
    "step-1000000000000",
    "step-²",
    "step-",
    "step-030",
    "step-3x",
    "STEP-30",
    "step-٣",
    "step--1",
]
FILES = [
    ".x.99999999999999999999.tmp",
    "..tmp",
    ".x.0.tmp",
    ".step-1.-1.tmp",
    ".x.².tmp",
    ".x.tmp",
    ".a\nb.1.tmp",
]
LINES = ["[]", "1", "null", '"x"', "{}", '{"event": "resume"}', '{"event": "resume", "step": "x"}',
         '{"event": "evaluation"}', '{"event": "train", "step": null}', "\0", "{", "[" * 100000,
         '{"event": "resume", "step": 1e999}', '{"event": "evaluation", "step": "\x1b[31m"}', "é" * 1000,
         '{"step": "5", "event": "train"}', '{"event": ["x"], "step": 3}']  # fmt: skip


def base() -> tuple[Path, str]:
    """A run, and the digest of the weights with which it ends when it is resumed."""
    folder, reference = work() / "base", work() / "reference"
    if not folder.exists():
        must(call("train", *TRAIN, "-o", folder))
        shutil.copytree(folder, reference)
        must(call("train", "--resume", reference, *RESUME))
    return folder, json.loads((reference / "run.json").read_text())["digest"]


def damaged(folder: Path, rng: random.Random) -> str:
    """Damage a run in one way; returns which."""
    ways = {_json: 4, _file: 7, _pointer: 2, _metrics: 1, _renamed: 1, _removed: 1, _strange_file: 1}
    return rng.choices(list(ways), list(ways.values()))[0](folder, rng)


def _json(folder: Path, rng: random.Random) -> str:
    path = rng.choice([folder / "run.json", folder / "checkpoints" / "step-30" / "state.json"])
    value = json.loads(path.read_text())
    place = rng.choice(list(places(value)))
    gone = rng.random() < 0.3 and bool(place)
    path.write_text(json.dumps(without(value, place) if gone else put(value, place, rng.choice(EVIL))))
    return f"{path.name} {'.'.join(map(str, place))[:30]} {'gone' if gone else 'other'}"


def _file(folder: Path, rng: random.Random) -> str:
    newest = folder / "checkpoints" / "step-30"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    important = ["state.safetensors", "model.safetensors", "state.json"]
    files += [
        folder / "metrics.jsonl",
        folder / "recipe.yaml",
        folder / "run.json",
        *(newest / name for name in important),
    ]
    path, how = rng.choice(files), rng.choice(["bytes", "bytes", "bytes", "cut", "empty", "gone", "a folder"])
    data = path.read_bytes()
    if how == "bytes":
        new = bytearray(data)
        for _ in range(rng.choice([1, 1, 3, 20])):
            new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(new))
    elif how in ("cut", "empty"):
        path.write_bytes(data[: rng.randrange(len(data) + 1) if how == "cut" else 0])
    else:
        path.unlink()
        if how == "a folder":
            path.mkdir()
    return f"{how} {path.relative_to(folder)}"


def _pointer(folder: Path, rng: random.Random) -> str:
    text = rng.choice(POINTERS)
    (folder / "checkpoints" / rng.choice(["best", "last"])).write_text(text)
    return f"pointer {text[:30]!r}"


def _metrics(folder: Path, rng: random.Random) -> str:
    path, line = folder / "metrics.jsonl", rng.choice(LINES)
    lines = path.read_text().splitlines()
    lines.insert(rng.randrange(len(lines) + 1), line)
    path.write_bytes("\n".join(lines).encode() + (b"" if rng.random() < 0.9 else b"\xff\xfe\n"))
    return f"metrics {line[:40]!r}"


def _renamed(folder: Path, rng: random.Random) -> str:
    name = rng.choice(CHECKPOINTS)
    (folder / "checkpoints" / "step-30").rename(folder / "checkpoints" / name)
    return f"renamed {name}"


def _removed(folder: Path, rng: random.Random) -> str:
    name = rng.choice(["", "step-30", "step-25"])
    shutil.rmtree(folder / "checkpoints" / name)
    return f"folder {name or 'checkpoints'} gone"


def _strange_file(folder: Path, rng: random.Random) -> str:
    name = rng.choice(FILES)
    (rng.choice([folder, folder / "checkpoints"]) / name).write_text("")
    return f"a file {name!r}"


def told(done: Finished, what: str) -> Finished:
    """An end that a person can act on."""
    if why := unclear(done):
        raise Wrong(f"{what}: {why[:100]}", done.stderr[-200:])
    return done


def tried(folder: Path, label: str, digest: str) -> str:
    """List the run, open its weights, go on with it."""
    told(call("runs", "ls", "--runs", folder.parent), "runs ls")
    for which in ("", "@last"):
        with contextlib.suppress(CompressnetError):
            load(f"{folder}{which}")
    done = told(call("train", "--resume", folder, *RESUME), "train --resume")
    if done.returncode:
        return "refused"
    if value_of(done.stdout, "digest") == digest:
        return "resumed to the same weights"
    if "warning" in done.stderr:
        return "resumed to other weights, with a warning"
    if label.startswith("bytes"):
        raise Wrong("resumed to other weights without a word", label)
    return "resumed to other weights of an earlier checkpoint or recipe"


def main() -> int:
    """The campaign; its exit code."""
    torch.set_num_threads(1)
    os.environ["COMPRESSNET_CPU_SETTINGS"] = "off"
    given = arguments(500)
    whole, digest = base()

    def case(number: int) -> Case:
        folder = work() / f"runs-{os.getpid()}" / "damaged"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(whole, folder)
        label = damaged(folder, random.Random(number))
        return Case(label, functools.partial(tried, folder, label, digest))

    return campaign("run folders", case, given).finish()


if __name__ == "__main__":
    sys.exit(main())
