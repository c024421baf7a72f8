"""Everything of this project on a GPU, checked in one go and in a given time.

    python benchmarks/cuda.py --minutes 8 -o runs/cuda
    python benchmarks/cuda.py --minutes 5 -o runs/quick --device cpu --quick      # does it run?
    python benchmarks/cuda.py -o runs/cuda --only records --only compile
    python benchmarks/cuda.py -o runs/cuda --train fip_photos --checkpoint runs/fip_photos-1

Works from a checkout, without an installation and without a network: it names all packages that are missing,
builds the C kernels in place, and runs each section in a process of its own. A section that crashes or hangs
costs its own time only; what it leaves over goes to the later ones. DIR then holds results.jsonl (written as
results come), cuda.md and cuda.json (all of them), logs/ and records/. Exit code 0: nothing failed.

With --train, the last section trains for the time that is left but a minute; a run that is given with
--checkpoint is copied and gone on with. The run is DIR/training.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
# This file's folder goes: in it this file would be found as `cuda`, the name of NVIDIA's own package.
sys.path[:] = [
    str(ROOT),
    *(place for place in sys.path if Path(place or ".").resolve() != ROOT / "benchmarks"),
]

from benchmarks.cuda_checks import gpu, packages, runner  # noqa: E402
from benchmarks.cuda_checks.cases import Row, Section, Settings  # noqa: E402
from benchmarks.cuda_checks.report import Results  # noqa: E402

_HERE = "benchmarks.cuda_checks"
SECTIONS = (
    Section("environment", f"{_HERE}.environment:cases", 100),
    Section("modules", f"{_HERE}.modules:cases", 90),
    Section("sru_triton", f"{_HERE}.sru_triton:cases", 60),
    Section("training", f"{_HERE}.training:cases", 90),
    Section("crossing", f"{_HERE}.crossing:cases", 70),
    Section("records", f"{_HERE}.records:cases", 150),
    Section("compile", f"{_HERE}.compiling:cases", 70),
    Section("recipes", f"{_HERE}.recipes:cases", 50),
    Section("long_training", f"{_HERE}.long_training:cases", 60),
)
_RESERVE = 4.0  # seconds, for the tables


def main() -> int:
    arguments = parse()
    began = time.monotonic()
    settings = Settings(
        out=str(arguments.output.absolute()),
        device=arguments.device,
        quick=arguments.quick,
        train=arguments.train,
        checkpoint=str(arguments.checkpoint.absolute()) if arguments.checkpoint else None,
    )
    if lacking := packages.missing():
        fail(packages.how_to_install(lacking), 1)
    check_folder(arguments.output)
    if why := gpu.lacking(settings.device):
        fail(f"--device {settings.device}: {why}; --device cpu --quick tries the checks themselves", 1)
    results = Results(make_folder(arguments.output))
    packages.put_on_path(settings.work / "packages")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version()}
    about |= {"command": " ".join(sys.argv), "minutes": arguments.minutes, "device": settings.device}
    end = began + 60 * arguments.minutes - _RESERVE

    def sink(row: Row) -> None:
        results.add(row)
        runner.tell(sys.stdout, row)

    try:
        sink(kernels(arguments.output, end))
        runner.check(chosen(arguments), settings, end - time.monotonic(), sink)
    finally:
        finish(results, about, began)
    return 1 if results.counts()["failed"] else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default: 8)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="two recipes, small sizes, no records")
    names = [section.name for section in SECTIONS]
    parser.add_argument("--only", action="append", choices=names, help="a section; repeatable")
    parser.add_argument("--train", metavar="RECIPE", help="train this one at the end")
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="go on with a copy of this run")
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        parser.error(f"--minutes {arguments.minutes:g}: it must be above 0")
    if arguments.device.partition(":")[0] not in ("cpu", "cuda"):
        parser.error(f"--device {arguments.device}: write cuda, cuda:N or cpu")
    if arguments.checkpoint and not arguments.train:
        parser.error("--checkpoint: name the recipe of the run too, with --train")
    if arguments.checkpoint and not arguments.checkpoint.is_dir():
        parser.error(f"--checkpoint {arguments.checkpoint}: there is no such run")
    return arguments


def check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail(f"{folder}: is there and not an empty folder: name a new one with -o", 2)


def make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{folder}: cannot be made: {error.strerror}", 2)
    return folder


def chosen(arguments: argparse.Namespace) -> list[Section]:
    """The sections that were asked for, in their order."""
    left_out = set() if arguments.train else {"long_training"}
    if arguments.quick:
        left_out |= {"records", "recipes"}
    if arguments.only:
        return [section for section in SECTIONS if section.name in arguments.only]
    return [section for section in SECTIONS if section.name not in left_out]


def kernels(folder: Path, end: float) -> Row:
    began = time.monotonic()
    whole, text = packages.build_kernels(folder / "logs" / "kernels.txt", min(120.0, end - began))
    spent = round(time.monotonic() - began, 2)
    return Row("environment", "C kernels", "ok" if whole else "failed", "", text, spent)


def finish(results: Results, about: dict[str, Any], began: float) -> None:
    spent = time.monotonic() - began
    results.write({**about, "seconds": round(spent, 1)})
    shutil.rmtree(results.folder / "work" / "packages", ignore_errors=True)
    runner.say(sys.stdout, f"{results.summary()} in {spent:.0f} s: {results.folder / 'cuda.md'}")


def fail(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"error: {text}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
