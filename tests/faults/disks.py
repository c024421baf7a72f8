"""A full disk, a read-only one, one without inodes, folders that vanish, outputs that cannot be written.

python -m tests.faults.disks [PART ...]       grows full read_only inodes vanishing streams homes devices

Needs root: the first four mount small tmpfs below WORK and unmount them at the end.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import networks
from .common import PROGRAM, QUIET, TOO_LONG, Finished, Tally, must, run, shell, unclear, value_of, work

SEQUENCE = ["lstm_1997_tasks", "--set", "train.steps=60", "--set", "train.checkpoint_every=5", "--set",
            "train.evaluate_every=20", "--set", "data.val_count=20",
            "--set", "data.steps=20", "--threads", "1"]  # fmt: skip
TEXT = ["lm_sample", "--set", "train.steps=20", "--set", "train.checkpoint_every=2", "--set",
        "train.evaluate_every=10", "--set", "model.hidden_size=64",
        "--threads", "1"]  # fmt: skip
IMAGE = ["fip_sample", "--set", "train.steps=4", "--set", "data.crop=64", "--set", "data.max_side=310",
         "--set", "data.sizes=1",
         "--set", "train.checkpoint_every=2", "--threads", "1"]  # fmt: skip
JOBS = {"sequence": SEQUENCE, "text": TEXT}
FULL, READ_ONLY = "No space left", "Read-only"
tally = Tally("disks", shown=9)


def mounted(options: str) -> Finished:
    """Mount a tmpfs at `small()`, or find that it cannot be."""
    small().mkdir(exist_ok=True)
    return shell(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(small())])


def small() -> Path:
    """Where the small disk is."""
    return work() / "small"


def unmount() -> None:
    """Take the small disk away, once nobody uses it."""
    for _ in range(20):
        if shell(["umount", str(small())]).returncode == 0:
            return
        time.sleep(0.3)


@contextlib.contextmanager
def disk(options: str) -> Iterator[Path]:
    """A small disk."""
    must(mounted(options))
    try:
        yield small()
    finally:
        unmount()


def remount(options: str) -> None:
    """Make the small disk another."""
    must(shell(["mount", "-o", f"remount,{options}", str(small())]))


def fill() -> None:
    """Leave no byte on the small disk."""
    with contextlib.suppress(OSError), open(small() / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def refused(name: str, done: Finished, wants: str = "") -> Finished:
    """It must end with 1 or 2 and one line of error, which says `wants`."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    why = unclear(done)
    if not why and done.returncode not in (1, 2):
        why = f"exit code {done.returncode}, no error"
    if not why and len(errors) > 1:
        why = f"{len(errors)} lines of error"
    if not why and wants not in done.stderr:
        why = f"the line does not say '{wants}'"
    tally.check(not why, f"{name}: {why}"[:120], done.stderr.strip()[-260:])
    return done


def accepted(name: str, done: Finished) -> Finished:
    """It must work."""
    why = unclear(done) or ("" if done.returncode == 0 else "not done")
    tally.check(not why, f"{name}: {why}"[:120], (done.stderr + done.stdout).strip()[-260:])
    return done


def check_nothing_left(name: str) -> None:
    """No half-written file may be left on the small disk."""
    left = [path.name for path in small().rglob(".*.tmp")]
    tally.check(not left, f"{name}: half-written files are left", str(left))


@functools.cache
def whole(name: str) -> str:
    """The digest of a run that nothing happens to, in whole-NAME."""
    digest: str = json.loads(must(train(name, f"whole-{name}")).stdout)["digest"]
    return digest


def train(name: str, folder: str, *more: str) -> Finished:
    """Train one of `JOBS`."""
    return run("train", *JOBS[name], "-o", folder, *more, "--json", env=QUIET)


def resume(folder: str) -> Finished:
    """Go on with a run."""
    return run("train", "--resume", folder, "--json", env=QUIET)


def grows() -> None:
    """A disk that gets full in training; then there is more room, and it goes on to the same weights."""
    for name, size in (("text", "2m"), ("sequence", "52k"), ("sequence", "80k"), ("text", "4m")):
        with disk(f"size={size}"):
            done = train(name, "small/run")
            if done.returncode == 0:
                tally.held("enough room")
                continue
            refused(f"train on a disk of {size}", done, FULL)
            check_nothing_left("a full disk")
            accepted("runs ls on a full disk", run("runs", "ls", "--runs", "small", "--json"))
            if not (begun := (small() / "run").exists()):
                tally.held("no run was begun")
            else:
                refused("resume on a disk still full", resume("small/run"))
            remount("size=60m")
            done = resume("small/run") if begun else train(name, "small/run")
            accepted("on, once there is room", done)
            same = value_of(done.stdout, "digest") == whole(name)
            tally.check(same, "other weights after a full disk", f"{name}, {size}")


def full() -> None:
    """A disk without a byte: everything that writes says so, and leaves what was there."""
    picture = networks.picture()
    whole("text"), whole("sequence")
    with disk("size=200k"):
        fill()
        refused("train begun on a full disk", train("sequence", "small/run"), FULL)
        tally.check(not (small() / "run").exists(), "a run that could not be made leaves its folder")
        os.unlink(small() / "filler")
        accepted("train again with the same -o", train("sequence", "small/run", "--set", "train.steps=5"))
        (small() / "old.png").write_bytes(picture.read_bytes())
        fill()
        apply = functools.partial(run, "apply", "zoo:rof", picture, "-o")
        refused("apply", apply("small/out.png"), FULL)
        tally.check(not (small() / "out.png").exists(), "apply left a part of a picture")
        refused("apply to a folder", apply("small/out"))
        refused("apply --force", apply("small/old.png", "--force"))
        same = (small() / "old.png").read_bytes() == picture.read_bytes()
        tally.check(same, "a picture is lost by a full disk")
        prompt = ("--prompt", "the class", "--set", "length=2000")
        refused("text", run("apply", "whole-text", *prompt, "-o", "small/out.txt"), FULL)
        refused("export", run("export", "zoo:rof", "-o", "small/rof.onnx"))
        tally.check(not (small() / "rof.onnx").exists(), "export left a part of a file")
        bench = ("sru:input_size=4,hidden_size=4", "--processes", "1", "--rounds", "2")
        refused("bench --record", run("bench", *bench, "--record", "x", cwd=small()))
        refused("eval --record", run("eval", work() / "whole-sequence", "--record", "y", cwd=small()))
        refused("eval", run("eval", "small/run"))
        refused("recipes cp", run("recipes", "cp", "lm_sample", "small/lm.yaml"))
        cache = ("--cache", "small/cache")
        refused("a cache", run("train", *IMAGE, "-o", "cached", *cache, env=QUIET), "--cache")
        places = {"XDG_CACHE_HOME": str(small()), "TMPDIR": str(small())}
        accepted("recipes ls, TMPDIR full", run("recipes", "ls", cwd=small(), env={**QUIET, **places}))
        check_nothing_left("a full disk")


def read_only() -> None:
    """A disk that cannot be written: what reads works, the rest says so."""
    picture = networks.picture()
    whole("text")
    with disk("size=20m"):
        shutil.copytree(work() / "whole-text", small() / "run")
        shutil.copytree(work() / "whole-text", small() / "cut")
        facts = small() / "cut" / "run.json"
        facts.write_text(facts.read_text().replace('"done"', '"running"'))
        remount("ro")
        accepted("runs ls", run("runs", "ls", "--runs", "small"))
        accepted("apply a run", run("apply", "small/run", "--prompt", "the class"))
        accepted("count-params", run("count-params", "lstm", cwd=small()))
        refused("train", train("sequence", "small/new"), READ_ONLY)
        refused("train in a read-only folder", run("train", *SEQUENCE, cwd=small(), env=QUIET), READ_ONLY)
        refused("resume", resume("small/cut"), READ_ONLY)
        refused("eval", run("eval", "small/run"), READ_ONLY)
        refused("apply", run("apply", "zoo:rof", picture, "-o", "small/out.png"), READ_ONLY)
        refused("apply to a folder", run("apply", "zoo:rof", picture, "-o", "small/out"), READ_ONLY)
        refused("export", run("export", "zoo:rof", "-o", "small/rof.onnx"))
        cache = ("--cache", "small/cache")
        refused("a cache", run("train", *IMAGE, "-o", "cached-ro", *cache, env=QUIET), "--cache")


def inodes() -> None:
    """A disk on which no more files can be made, then some."""
    with disk("size=20m,nr_inodes=12"):
        refused("train without inodes", train("sequence", "small/run"), FULL)
        check_nothing_left("no inodes")
        remount("nr_inodes=500")
        begun = (small() / "run").exists()
        done = accepted("on, with inodes", resume("small/run") if begun else train("sequence", "small/run"))
        same = value_of(done.stdout, "digest") == whole("sequence")
        tally.check(same, "other weights after a lack of inodes")
        remount("nr_inodes=0")


def vanishing() -> None:
    """The folder of a run, or its checkpoints, go away while it trains."""
    for part in ("", "checkpoints"):
        folder = work() / "gone"
        words = ["train", *SEQUENCE, "--set", "train.steps=100000", "-o", str(folder)]
        pipe = subprocess.PIPE
        process = subprocess.Popen([PROGRAM, *words], cwd=work(), stdout=pipe, stderr=pipe, text=True,
                                   env=QUIET)  # fmt: skip
        end = time.monotonic() + 60
        while time.monotonic() < end and not (folder / "checkpoints" / "last").exists():
            time.sleep(0.05)
        shutil.rmtree(folder / part, ignore_errors=True)
        try:
            out, err = process.communicate(timeout=60)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            code, err = TOO_LONG, "no end within 60 s"
        refused(f"{part or 'run'} goes away", subprocess.CompletedProcess(words, code, out, err), "gone")
        shutil.rmtree(folder, ignore_errors=True)


def line(name: str, command: str, good: tuple[int, ...] = (0,), **environment: str) -> None:
    """A line of a shell must end with one of these codes, and without what nobody can act on."""
    text = command.replace("compressnet", PROGRAM)
    done = shell(["bash", "-c", text], env={**QUIET, **environment}, timeout=120)
    bad = any(word in done.stderr for word in ("Traceback", "this is a bug", "Exception ignored"))
    kind = f"{name}: exit code {done.returncode}"
    tally.check(not bad and done.returncode in good, kind, done.stderr.strip()[-250:])


def streams() -> None:
    """stdout and stderr that are closed, full, or without a reader."""
    whole("text")
    commands = ["recipes ls", "models ls", "count-params lstm vs lstmp", "count-params lstm --json",
                "runs ls --runs .", "--version", "--help",
                "recipes show lm_sample", "apply whole-text --prompt the"]  # fmt: skip
    for command in commands:
        head = f"compressnet {command} | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}"
        line(f"{command} | head -1", head, (0, 1, 141))
        line(f"{command} | true", f"set -o pipefail; compressnet {command} | true", (0, 1, 141))
        line(f"{command} > /dev/full", f"compressnet {command} > /dev/full", (1, 2))
        line(f"{command}, stdout closed", f"compressnet {command} >&-", (0, 1, 2))
    line("stderr closed, error", "compressnet apply nothing 2>&-", (1, 2))
    line("stderr full, error", "compressnet apply nothing 2>/dev/full", (1, 2))
    line("all closed", "compressnet recipes ls <&- >&- 2>&-", (0, 1, 2))
    line("apply, stdin closed", f"compressnet apply zoo:rof {networks.picture()} -o closed.png <&-")
    line("train, stderr closed", "compressnet train lstm_1997_tasks --smoke -o closed 2>&-")
    line("train, stdout full", "compressnet train lstm_1997_tasks --smoke -o closed2 > /dev/full", (0, 1))


def homes() -> None:
    """HOME, TMPDIR and the working folder that are not there, or no folder."""
    image, sequence = "compressnet train fip_sample --smoke -o", "compressnet train lstm_1997_tasks --smoke"
    no_cache, gone = "unset XDG_CACHE_HOME;", "mkdir -p gone2; cd gone2; rmdir ../gone2;"
    line("HOME unset", f"unset HOME XDG_CACHE_HOME; {image} home1", (0, 1))
    line("HOME is no folder", f"{no_cache} {image} home2", (1,), HOME="/proc/nothing")
    line("HOME is no folder, no cache", f"{no_cache} {sequence} -o home3", HOME="/proc/nothing")
    line("HOME is a file", f"{no_cache} {image} home4", (1,), HOME=str(networks.picture()))
    missing = {"TMPDIR": "/nothing/here"}
    line("TMPDIR is missing", f"{image} tmp1", (0,), **missing)
    bench = "compressnet bench sru:input_size=4,hidden_size=4 --processes 1 --rounds 2"
    line("TMPDIR is missing, bench", bench, (0, 1), **missing)
    line("TMPDIR is missing, export", "compressnet export zoo:rof -o tmp.onnx", (0, 1), **missing)
    line("no working folder", f"{gone} {sequence}", (1, 2))
    line("no working folder, count", f"{gone} compressnet count-params lstm", (0, 1))
    line("no working folder, recipes", f"{gone} compressnet recipes ls", (0, 1))


def devices() -> None:
    """A device stays one, and a link is not written through without --force."""
    whole("text")
    device, link, target = work() / "full", work() / "link.txt", work() / "target.txt"
    if not device.exists():
        os.mknod(device, 0o020666, os.makedev(1, 7))
    apply = functools.partial(run, "apply", "whole-text", "--prompt", "the class", "-o")
    refused("-o DEVICE --force, full", apply("full", "--force"), FULL)
    tally.check(device.is_char_device(), "-o DEVICE --force: the device is replaced by a file")
    target.write_text("precious\n")
    link.symlink_to(target.name)
    refused("-o LINK without --force", apply("link.txt"))
    tally.check(target.read_text() == "precious\n", "-o LINK without --force overwrites")


PARTS: dict[str, Callable[[], None]] = {
    part.__name__: part for part in (grows, full, read_only, inodes, vanishing, streams, homes, devices)
}


def main() -> int:
    """The campaign; its exit code."""
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
