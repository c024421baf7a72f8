"""Smoke runs of all recipes that the section `training` has not trained."""

from __future__ import annotations

from functools import partial

from benchmarks.cuda_checks import training
from benchmarks.cuda_checks.cases import ROOT, Case, Cases, Finding, Settings


def cases(settings: Settings, seconds: float) -> Cases:
    done = training.recipes(settings)
    names = [path.stem for path in sorted((ROOT / "recipes").glob("*.yaml")) if path.stem not in done]
    return Cases(
        [Case(name, partial(_smoke, settings, name), 90) for name in names],
        parallel=4 if settings.kind == "cuda" else 2,
    )


def _smoke(settings: Settings, name: str) -> Finding:
    done = training.smoke(settings, name, training.smoke_folder(settings, name), seconds=85)
    return Finding(f"{done['steps']} steps", f"{done['seconds']} s of training")
