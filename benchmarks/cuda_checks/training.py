"""Smoke runs, one recipe a task: whole, killed and resumed, and under torchrun. They lie in DIR/work/runs."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cuda_checks import program
from benchmarks.cuda_checks.cases import ROOT, Case, Cases, Failed, Finding, Settings, Skip

QUICK = ("fip_sample", "lm_sample")
_KILLED = {"fip_sample": {"train.deterministic": False}, "lm_sample": {"train.deterministic": True}}
_SAME = 1e-3  # of the scale, where kernels of a GPU sum in another order in each run


def cases(settings: Settings, seconds: float) -> Cases:
    rows = [Case(f"{recipe}: smoke run", partial(_whole, settings, recipe)) for recipe in recipes(settings)]
    rows += [
        Case(f"{recipe}: killed and resumed", partial(_killed, settings, recipe), 150) for recipe in _KILLED
    ]
    rows.append(Case("one process under torchrun", partial(_torchrun, settings)))
    rows.append(Case("messages of one process", partial(_messages, settings)))
    return Cases(rows, parallel=4 if settings.kind == "cuda" else 2)


def recipes(settings: Settings) -> list[str]:
    """One a task."""
    return list(QUICK) if settings.quick else list(of_tasks().values())


def of_tasks() -> dict[str, str]:
    """A recipe of each task that has one; one that trains on built-in samples where there is a choice."""
    import yaml

    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: not name.endswith("_sample")):
        recipe = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())
        found.setdefault(recipe["task"]["name"], name)
    return found


def smoke(settings: Settings, recipe: str, folder: Path, *words: object, seconds: float = 60.0) -> Any:
    """A smoke run in `folder`, which is made anew: what `train --json` says of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    train = ("train", recipe, "--smoke", "-o", folder, "--device", settings.device)
    return program.as_json(*train, *words, seconds=seconds)


def smoke_folder(settings: Settings, recipe: str, kind: str | None = None) -> Path:
    """Where the smoke run of a recipe on a kind of device is, if it was made."""
    return settings.work / "runs" / f"{recipe}-{kind or settings.kind}"


def _whole(settings: Settings, recipe: str) -> Finding:
    done = smoke(settings, recipe, smoke_folder(settings, recipe))
    return Finding(f"{done['steps']} steps", f"{done['seconds']} s of training")


def _killed(settings: Settings, recipe: str) -> Finding:
    """The weights of a run that was killed at its first checkpoint, against those of one that was not."""
    steps, every = (200, 10) if settings.kind == "cuda" else (9, 3)
    changed = {**_KILLED[recipe], "train.steps": steps, "train.checkpoint_every": every}
    changed |= {"train.evaluate_every": steps, "train.previews": 0}
    if settings.quick and recipe.startswith("fip"):
        changed |= {"data.crop": 32}
    words = [word for key, value in changed.items() for word in ("--set", f"{key}={str(value).lower()}")]
    runs = settings.work / "runs"
    whole, cut = runs / f"{recipe}-whole", runs / f"{recipe}-killed"
    smoke(settings, recipe, whole, *words, seconds=120)
    train = ("train", recipe, "--smoke", "-o", cut, "--device", settings.device, *words)
    shutil.rmtree(cut, ignore_errors=True)
    if not program.killed(*train, when=lambda: any(cut.glob("checkpoints/step-*"))):
        raise Skip("it had ended before it could be killed")
    program.compressnet("train", "--resume", cut, "--device", settings.device, seconds=120)
    return _compared(settings, whole, cut, "deterministic" if _KILLED[recipe]["train.deterministic"] else "")


def _compared(settings: Settings, whole: Path, cut: Path, how: str) -> Finding:
    import torch

    from benchmarks.cuda_checks import compare
    from compressnet.subject import load

    one, other = (load_parameters(load, path) for path in (cut, whole))
    if all(torch.equal(one[name], other[name]) for name in other):
        return Finding("0", f"the same weights as without the kill {how}".strip())
    off, where = compare.differences(one, other)
    if settings.kind == "cpu":
        raise Failed(f"the weights differ by {off:.1e} of the scale in {where}: on a CPU they must not")
    if how:
        raise Failed(
            f"the weights differ by {off:.1e} of the scale in {where} in spite of train.deterministic"
        )
    return Finding(f"{off:.1e}", f"difference of the weights, most in {where}; kernels need not repeat")


def load_parameters(load: Any, folder: Path) -> dict[str, Any]:
    """The weights of a run's last checkpoint, by name."""
    from compressnet.subject import parse

    state: dict[str, Any] = load(parse(f"{folder}@last", ("run",))).model.state_dict()
    return state


def _torchrun(settings: Settings) -> Finding:
    folder = settings.work / "runs" / "torchrun"
    shutil.rmtree(folder, ignore_errors=True)
    words = ("train", "lm_sample", "--smoke", "-o", folder, "--device", settings.device)
    program.run(program.TORCHRUN, "-m", "compressnet_cli", *words, seconds=90)
    return Finding(message="lm_sample trains")


def _messages(settings: Settings) -> Finding:
    """What training sends through NCCL (gloo on a CPU): one process alone would not ask for it."""
    script = ROOT / "benchmarks/cuda_checks/one_rank.py"
    backend = program.run(program.TORCHRUN, script, settings.device, seconds=90).split()[-1]
    return Finding(message=f"{backend}: sums, objects, barrier, gradients of DistributedDataParallel")
