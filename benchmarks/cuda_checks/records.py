"""Records of `compressnet bench` in DIR/records, as they would lie in results/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.cuda_checks import program
from benchmarks.cuda_checks.cases import Case, Cases, Finding, Settings

_PHOTO = ("can24", "vs", "can32", "--input-size", "1920x1080", "--dtype", "float32,bfloat16")
_ENOUGH = 300.0  # seconds with which each is measured in two processes


def cases(settings: Settings, seconds: float) -> Cases:
    processes = 2 if seconds >= _ENOUGH else 1
    return Cases(
        [Case(name, partial(_record, settings, name, words, processes), 200) for name, words in plan()]
    )


def plan() -> Iterator[tuple[str, tuple[object, ...]]]:
    """(record, the words of its command): what matters most comes first."""
    for hidden, steps in ((512, 35), (1024, 35), (512, 256), (1024, 256)):
        sides = ("torch_lstm", "vs", "sru", f"lstmp:proj_size={hidden // 4},output_size=0")
        sizes = ("--set", f"input_size={hidden}", "--set", f"hidden_size={hidden}")
        shape = ("--batch", 32, "--seq-len", steps, "--mode", "forward,forward+backward", "--no-memory")
        yield f"cuda_cells_h{hidden}_t{steps}", (*sides, *sizes, *shape)
    yield "cuda_can_1080p", _PHOTO
    yield "cuda_can_1080p_channels_last", (*_PHOTO, "--channels-last")
    yield "cuda_can_1080p_compile", (*_PHOTO, "--channels-last", "--backend", "eager,compile", "--no-memory")


def _record(settings: Settings, name: str, words: tuple[object, ...], processes: int) -> Finding:
    folder = Path(settings.out) / "records"
    folder.mkdir(parents=True, exist_ok=True)
    more = (
        "--device",
        settings.device,
        "--processes",
        processes,
        "--record",
        name,
        "--results",
        folder,
        "--force",
    )
    program.compressnet("bench", *words, *more, seconds=195)
    rows = json.loads((folder / f"{name}.json").read_text())["rows"]
    shown = [f"{row['name']} {row['mode']} {row['median_ms']:.3g} ms" for row in rows]
    return Finding(f"{len(rows)} rows", "; ".join(shown))
