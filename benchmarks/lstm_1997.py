"""Sequences that the LSTM of 1997 needs for its paper's problems: five seeds each, by the paper's criterion.

    python benchmarks/lstm_1997.py                                          # adding, temporal order 6a, reber
    python benchmarks/lstm_1997.py --problems adding --seeds 0,1 --out runs/1997

Trains recipes/lstm_1997_tasks.yaml one sequence at a time and stops where the paper does: the 2,000 most
recent sequences were processed correctly before they were learned from, and their mean error is small. The
log has a line for every hundred, so the count is good to a hundred. A run that is not there after 1.5 times
as many sequences as the paper needed has failed. Of reber, training is on 256 strings, as in the paper, and
stops when all of 1,000 others are predicted; the network is larger than the paper's, with starts of the gate
biases from a later paper (see recipes/lstm_1997_tasks.yaml): the paper's own learns more seldom. Then the
weights of that moment are tested on sequences of their own. Twenty minutes for all on an AMD EPYC (Zen 4).
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "compressnet_cli"]
LINES = 20  # of the log, 100 sequences each


class Problem(NamedTuple):
    """What the paper reports: sequences until its criterion held, and the mean error that it asks for."""

    sequences: int
    mean_error: float
    settings: tuple[str, ...] = ()

    @property
    def limit(self) -> int:
        return round(1.5 * self.sequences)


NEVER = "train.stop.threshold=-1"
GATES = "[-0.5, -1, -1.5, -2]"
STRINGS = (
    "data.count=256",
    "data.fresh=false",
    "data.val_count=1000",
    "data.test_count=256",
    "train.lr=0.2",
    "model.block_size=2",
    "model.biases=all",
    f"model.input_gate_biases={GATES}",
    f"model.output_gate_biases={GATES}",
    "train.log_every=256",
    "train.evaluate_every=512",
)
PROBLEMS = {
    "adding": Problem(74_000, 0.01, (NEVER,)),
    "temporal_order_6a": Problem(31_390, 0.1, (NEVER,)),
    # The paper has 8,440 to 39,740 by size and learning rate; the stop rule of the recipe is the criterion.
    "reber": Problem(39_740, math.inf, STRINGS),
}


class Progress(NamedTuple):
    """Sequences when 2,000 in a row were right, and when their mean error was small too; None: not yet."""

    right: int | None
    small: int | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "lstm_1997", help="folder of the runs")
    arguments = parser.parse_args()
    show("problem             seed   2,000 right   and small error   limit    wrong of tested   seconds")
    for name in arguments.problems.split(","):
        for seed in arguments.seeds.split(","):
            show(row(name, seed, arguments.out / f"{name}-{seed}"))


def show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def row(name: str, seed: str, folder: Path) -> str:
    problem = PROBLEMS[name]
    began = time.monotonic()
    progress = train(name, seed, folder)
    seconds = time.monotonic() - began
    figures = evaluated(folder)
    tested = 256 if name == "reber" else 2560
    wrong = f"{round(figures['wrong'] * tested)} of {tested}"
    right, small = (f"{count:,}" if count else "no" for count in progress)
    return f"{name:18} {seed:>5} {right:>13} {small:>17} {problem.limit:>7,} {wrong:>18} {seconds:>9.0f}"


def train(name: str, seed: str, folder: Path) -> Progress:
    """Train until the criterion holds; a signal ends the run, which then saves itself."""
    problem = PROBLEMS[name]
    settings = [*problem.settings, f"data.problem={name}", f"seed={seed}", f"train.steps={problem.limit}"]
    words = [word for setting in settings for word in ("--set", setting)]
    command = [*PROGRAM, "train", "lstm_1997_tasks", "-o", str(folder), "--device", "cpu", "--threads", "1"]
    log = folder.parent / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    ended = False
    with log.open("w") as output:
        process = subprocess.Popen([*command, *words], stdout=output, stderr=output)
        while process.poll() is None:
            time.sleep(1)
            if name != "reber" and reached(folder, problem.mean_error).small:
                process.send_signal(signal.SIGTERM)
                process.wait()
                ended = True
    if process.returncode and not ended:
        sys.exit(f"{' '.join(command)} failed: see {log}")
    return reached_strings(folder) if name == "reber" else reached(folder, problem.mean_error)


def reached(folder: Path, mean_error: float) -> Progress:
    """The criterion on training: `LINES` lines in a row without a wrong sequence."""
    lines = [event for event in events(folder) if event["event"] == "train"]
    right = small = None
    for end in range(LINES, len(lines) + 1):
        window = lines[end - LINES : end]
        if any(line["wrong"] for line in window):
            continue
        right = right or window[-1]["step"]
        if sum(line["error"] for line in window) / LINES < mean_error:
            small = small or window[-1]["step"]
    return Progress(right, small)


def reached_strings(folder: Path) -> Progress:
    """Of strings: every one of the validation."""
    for event in events(folder):
        if event["event"] == "evaluation" and not event["wrong"]:
            return Progress(event["step"], event["step"])
    return Progress(None, None)


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def evaluated(folder: Path) -> dict[str, float]:
    """The figures of the last weights on the test data."""
    command = [*PROGRAM, "eval", f"{folder}@last", "--device", "cpu", "--threads", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout)["metrics"]
    return figures


if __name__ == "__main__":
    main()
