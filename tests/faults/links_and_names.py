"""Names that nobody expects, links below an output, and other processes that want or take away a run.

python -m tests.faults.links_and_names [COUNT] [FIRST]

COUNT names go through `apply`, `data check` and `train`; from 100 on,
what other processes do comes on top.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image as Pillow

from . import networks
from .common import PROGRAM, QUIET, Finished, Tally, arguments, call, must, unclear, work
from .fuzzing import Case, Wrong, campaign

PIECES = [b"a", b"photo", b" ", b"  ", b"\n", b"\t", b"\r", b"\x1b[2J", b"\x1b]0;x\x07", b"\x7f", b"\x01",
          b"\xc2\x9b31m", "\u202e".encode(), "\u2066".encode(), "\u2028".encode(), b"\xff", b"\xed\xa0\x80",
          b"\xc3", b"%s", b"{0}", b"[red]", b"[-]", b"'", b'"', b"\\", b"*", b"?", b"@last", b"=", b":",
          b",", b"~", b"$HOME", b"-o", b"e\xcc\x81", b"\xc3\xa9", "字".encode(), "😀".encode(),
          b"x" * 100]  # fmt: skip
LONGEST = 255  # bytes of a name
FEW = 100  # so few cases are to be done in seconds: without other processes
SEQUENCE = ["lstm_1997_tasks", "--set", "train.checkpoint_every=5", "--set", "train.evaluate_every=50",
            "--set", "data.val_count=5", "--set", "data.steps=20",
            "--threads", "1", "--json"]  # fmt: skip


def strange(rng: random.Random, suffix: str) -> str:
    """A name; one of five is as long as names can be."""
    stem = b"".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 6)))
    if rng.random() < 0.2:
        stem = stem * LONGEST
    stem = stem[: LONGEST - len(suffix)].lstrip(b".~")
    return os.fsdecode((stem or b"a") + suffix.encode())


def fresh(kind: str) -> Path:
    """An empty folder."""
    folder = work() / f"{kind}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def told(done: Finished, code: int, json_only: bool = False) -> Finished:
    """An end with this exit code, and nothing on stderr that steers a terminal.

    Args:
        json_only: what is wrong is told in the JSON on stdout.
    """
    why = unclear(done)
    if why and not (json_only and done.returncode == code == 1 and not done.stderr):
        raise Wrong(why[:100], done.stderr[-200:])
    if done.returncode != code:
        raise Wrong(f"{done.args[0]}: exit code {done.returncode}, not {code}", done.stderr[-200:])
    return done


def photographs(rng: random.Random, folder: Path, count: int = 1) -> list[str]:
    """Pictures of strange names, and of one of them the twin in the other normal form of its letters."""
    names = [strange(rng, ".png") for _ in range(count)] + ["caf\u00e9.png", "cafe\u0301.png"] * (count > 1)
    for name in set(names):
        shutil.copy(networks.picture(), folder / name)
    return sorted(set(names))


def applied_to_a_file(rng: random.Random) -> str:
    """A strange name in, a strange name out."""
    folder, out = fresh("in"), fresh("out")
    (name,), target = photographs(rng, folder), out / strange(rng, ".png")
    told(call("apply", "operator:rof", folder / name, "-o", target, "--json"), 0)
    if os.listdir(out) != [target.name]:
        raise Wrong("apply wrote something else", repr(os.listdir(out)))
    told(call("apply", "operator:rof", folder / name, "-o", target), 1)  # it exists
    return "applied"


def applied_to_a_folder(rng: random.Random) -> str:
    """All of them are done, and listed by their names."""
    folder, out = fresh("in"), fresh("out") / "new"
    names = photographs(rng, folder, 3)
    done = told(call("apply", "operator:rof", folder, "-o", out, "--json"), 0)
    told_of = sorted(Path(row["output"]).name for row in json.loads(done.stdout)["files"])
    if sorted(os.listdir(out)) != names or told_of != names:
        raise Wrong("apply lost a name", f"{names} {told_of}")
    with Pillow.open(out / names[0]) as image:
        image.load()
    return "applied"


def checked(rng: random.Random) -> str:
    """A defect is told under its name; without it there is none."""
    folder = fresh("in")
    names = photographs(rng, folder, 3)
    told(call("data", "check", f"photo_folder:root={folder}", "--json"), 0)
    (folder / names[0]).write_bytes(b"no picture")
    done = call("data", "check", f"photo_folder:root={folder}", "--json")
    found = json.loads(told(done, 1, json_only=True).stdout)
    if len(found["problems"]) != 1:
        raise Wrong("data check: not one problem", repr(found["problems"])[:200])
    told(call("data", "check", f"photo_folder:root={folder}"), 1)
    return "checked"


def trained(rng: random.Random) -> str:
    """A set of strange names is trained on."""
    recipe, *settings = networks.KINDS["image"]
    folder, run = fresh("in"), fresh("run") / "run"
    photographs(rng, folder)
    settings += [f"data.root={folder}", "train.steps=1", "train.evaluate_every=1"]
    words = [word for setting in settings for word in ("--set", setting)]
    told(call("train", recipe, *words, "-o", run, "--threads", "1", "--cache", work() / "cache"), 0)
    return "trained"


def measured(rng: random.Random) -> str:
    """Texts of strange names."""
    folder = fresh("in")
    path = folder / strange(rng, ".txt")
    path.write_text("the class is a name\n" * 3)
    told(call("apply", networks.trained("text"), path, "--json"), 0)
    return "measured"


def linked(rng: random.Random) -> str:
    """Links below an output lead nowhere without --force."""
    folder, out, elsewhere = fresh("in"), fresh("out"), fresh("elsewhere")
    (folder / "sub").mkdir()
    (name,) = photographs(rng, folder / "sub")
    way = rng.choice(["folder", "dangling folder", "file", "dangling file"])
    target = elsewhere / ("there" if "folder" in way else "there.png")
    if way == "folder":
        target.mkdir()
    elif way == "file":
        target.write_bytes(b"precious")
    place = out / "sub" if "folder" in way else out / "sub" / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target)
    before = [path.name for path in elsewhere.rglob("*")]
    told(call("apply", "operator:rof", folder, "-o", out), 1)
    if [path.name for path in elsewhere.rglob("*")] != before:
        raise Wrong("apply wrote through a link", way)
    if way == "file" and target.read_bytes() != b"precious":
        raise Wrong("apply wrote over a linked file")
    return f"a link to a {way} refused"


WAYS: list[Callable[[random.Random], str]] = [applied_to_a_file, applied_to_a_folder, checked, measured,
                                              linked, linked, applied_to_a_file, trained]  # fmt: skip


def start(*words: str, folder: Path) -> subprocess.Popen[str]:
    """A training in a process of its own."""
    pipe = subprocess.PIPE
    command = [PROGRAM, "train", *SEQUENCE, *words]
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=QUIET)


def ended(process: subprocess.Popen[str]) -> Finished:
    """How it ended."""
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(["train"], process.returncode, out, err)


def two_want_one_name(tally: Tally) -> None:
    """Of two processes with one -o one trains and the other is told; without -o both train."""
    ways: list[tuple[list[str], list[int]]] = [(["-o", "run"], [0, 1]), ([], [0, 0])]
    for words, codes in ways:
        folder = fresh("two")
        both = [start(*words, "--set", "train.steps=50", folder=folder) for _ in range(2)]
        done = [ended(process) for process in both]
        good = sorted(one.returncode for one in done) == codes and not any(map(unclear, done))
        good &= "exists" in done[0].stderr + done[1].stderr or codes == [0, 0]
        tally.check(good, f"two processes, {' '.join(words) or 'no -o'}", done[0].stderr + done[1].stderr)
        runs = [path.parent for path in folder.rglob("run.json")]
        whole = [json.loads((run / "run.json").read_text())["status"] for run in runs]
        tally.check(whole == ["done"] * codes.count(0), "not each run is whole", f"{runs} {whole}")
        left = [str(path) for path in folder.rglob(".*.tmp")]
        tally.check(not left, "half-made runs are left", str(left))


def moved_while_it_trains(tally: Tally) -> None:
    """It ends with a line; what was moved goes on to the weights of a run that nobody moved."""
    folder = fresh("moved")
    process = start("-o", "run", "--set", "train.steps=20000", folder=folder)
    end = time.monotonic() + 120
    while not (folder / "run" / "checkpoints" / "last").exists() and time.monotonic() < end:
        time.sleep(0.01)
    (folder / "run").rename(folder / "away")
    done = ended(process)
    tally.check(done.returncode == 1 and "gone" in done.stderr and not unclear(done), "moved", done.stderr)
    tally.check(not (folder / "run").exists(), "a moved run is made anew", "")
    step = max(int(path.name[5:]) for path in (folder / "away" / "checkpoints").glob("step-*"))
    more = ["--set", f"train.steps={step + 7}"]
    ours = must(call("train", "--resume", folder / "away", *more, "--threads", "1", "--json"))
    theirs = must(call("train", *SEQUENCE, *more, "-o", folder / "whole"))
    same = json.loads(ours.stdout)["digest"] == json.loads(theirs.stdout)["digest"]
    tally.check(same, "a moved run ends with other weights")


def main() -> int:
    """The campaign; its exit code."""
    torch.set_num_threads(1)
    os.environ["COMPRESSNET_CPU_SETTINGS"] = "off"
    given = arguments(400)
    networks.trained("text")

    def case(number: int) -> Case:
        way = WAYS[number % len(WAYS)]
        return Case(way.__name__, functools.partial(way, random.Random(number)))

    tally = campaign("names, links, other processes", case, given)
    if given.cases >= FEW:
        two_want_one_name(tally)
        moved_while_it_trains(tally)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
