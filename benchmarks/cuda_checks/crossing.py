"""Runs of the device on the CPU, and runs of the CPU on the device: `eval`, `apply`, `export`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.cuda_checks import program, training
from benchmarks.cuda_checks.cases import Case, Cases, Failed, Finding, Settings, Skip

_PICTURE, _LINE = (96, 64), "the mean of the two is in the middle"


def cases(settings: Settings, seconds: float) -> Cases:
    rows: list[Case] = []
    origins = dict.fromkeys((settings.kind, "cpu"))
    for recipe in training.recipes(settings):
        for origin in origins:
            at = f"{recipe}, a run of {origin}"
            rows.append(Case(f"{at}: eval", partial(_eval, settings, recipe, origin), 120))
            rows.append(Case(f"{at}: apply", partial(_apply, settings, recipe, origin), 120))
        rows.append(
            Case(f"{recipe}, a run of {settings.kind}: export", partial(_export, settings, recipe), 90)
        )
    # What makes runs does so before others look for them.
    make(settings, list(origins))
    return Cases(rows, parallel=4 if settings.kind == "cuda" else 2)


def make(settings: Settings, origins: list[str]) -> None:
    """The smoke runs that the section `training` has not left."""
    for recipe in training.recipes(settings):
        for origin in origins:
            folder = training.smoke_folder(settings, recipe, origin)
            if not (folder / "checkpoints/last").is_file():
                device = settings.device if origin == settings.kind else "cpu"
                try:
                    training.smoke(replace(settings, device=device), recipe, folder)
                except Failed:
                    continue  # the log has it, and so have the rows that need this run


def _run(settings: Settings, recipe: str, origin: str) -> Path:
    folder = training.smoke_folder(settings, recipe, origin)
    if not (folder / "checkpoints/last").is_file():
        raise Failed(f"there is no smoke run of {recipe} on {origin}")
    return folder


def _devices(settings: Settings) -> list[str]:
    return list(dict.fromkeys((settings.device, "cpu")))


def _eval(settings: Settings, recipe: str, origin: str) -> Finding:
    """The same figures on both devices."""
    run = _run(settings, recipe, origin)
    reports = [_evaluated(run, device) for device in _devices(settings)]
    figures = [report["metrics"] for report in reports]
    off = max(_off(figures[0][key], value) for key, value in figures[-1].items())
    if off > 1e-2:
        raise Failed(f"figures differ by {off:.1e}: {figures}")
    shown = ", ".join(f"{key} {value:.4g}" for key, value in list(figures[0].items())[:2])
    return Finding(f"{off:.1e}", shown)


def _evaluated(run: Path, device: str) -> Any:
    for split in ("test", "val"):  # a set may have no test split
        try:
            return program.as_json("eval", run, "--device", device, "--split", split)
        except Failed as error:
            if split == "val" or "split" not in str(error):
                raise
    raise AssertionError("one of them has returned")


def _off(one: float, other: float) -> float:
    return abs(one - other) / max(abs(other), 1e-3)


def _apply(settings: Settings, recipe: str, origin: str) -> Finding:
    run = _run(settings, recipe, origin)
    folder = settings.work / "applied" / f"{recipe}-{origin}"
    folder.mkdir(parents=True, exist_ok=True)
    kind = _reads(run)
    if kind == "image":
        return _apply_to_picture(settings, run, folder)
    given = _input(kind, folder)
    documents = [program.as_json("apply", run, given, "--device", device) for device in _devices(settings)]
    figures = [list(_numbers(document)) for document in documents]
    if len(figures[0]) != len(figures[-1]) or not figures[0]:
        raise Failed(f"not the same rows: {documents}")
    off = max(_off(a, b) for a, b in zip(figures[0], figures[-1], strict=True))
    if off > 1e-2:
        raise Failed(f"figures differ by {off:.1e}")
    return Finding(f"{off:.1e}", f"{len(figures[0])} figures")


def _apply_to_picture(settings: Settings, run: Path, folder: Path) -> Finding:
    photo = folder / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(_PICTURE, Image.Resampling.BICUBIC).save(photo)
    made = []
    for device in _devices(settings):
        out = folder / f"{device.partition(':')[0]}.png"
        words = ("apply", run, photo, "-o", out, "--device", device, "--force")
        program.compressnet(*words, *_asked(run))
        made.append(np.asarray(Image.open(out)).astype(int))
    off = int(np.abs(made[0] - made[-1]).max())
    if off > 1:
        raise Failed(f"pixels differ by {off} of 255")
    return Finding(str(off), "of 255, the largest difference of a pixel")


def _asked(run: Path) -> list[str]:
    """Of a network of several operators: the first one."""
    from compressnet.data.conditions import Choice, conditions_of
    from compressnet.subject import load

    conditions = conditions_of(load(str(run)).assets)
    return ["--set", f"operator={conditions.positions()[0].name}"] if isinstance(conditions, Choice) else []


def _reads(run: Path) -> str:
    """The first kind of input that a run's task reads."""
    from compressnet import registry
    from compressnet.run import Run

    task: Any = registry.find("task", Run.open(run).recipe.task.name)
    return str(task.reads[0])


def _input(kind: str, folder: Path) -> Path:
    """A file of a kind of input; of rows one of the adding problem, with which recipes begin."""
    rows = [f"{number / 10},{float(number in (2, 7))}" for number in range(10)]
    texts = {"text": ("text.txt", _LINE), "rows": ("sequence.csv", "\n".join(rows))}
    if kind not in texts:
        raise Skip(f"there is no file here of the kind '{kind}'")
    name, text = texts[kind]
    (folder / name).write_text(text + "\n")
    return folder / name


def _numbers(document: Any) -> Any:
    """All floating-point numbers of a document, in its order."""
    if isinstance(document, float):
        yield document
    elif isinstance(document, dict | list):
        for part in document.values() if isinstance(document, dict) else document:
            yield from _numbers(part)


def _export(settings: Settings, recipe: str) -> Finding:
    from importlib.util import find_spec

    if lacking := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise Skip(f"not installed: {', '.join(lacking)}")
    out = settings.work / f"{recipe}.onnx"
    done = program.as_json("export", _run(settings, recipe, settings.kind), "-o", out, "--force", seconds=85)
    return Finding(f"{done['difference']:.1e}", "of ONNX Runtime from torch")
