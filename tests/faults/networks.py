"""Small networks of every kind, trained in a second or two each: what the campaigns damage.

NETWORKS names a folder for them that several campaigns share, one after the other (default: below WORK).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

import compressnet

from .common import call, must, work

ZOO = Path(compressnet.__file__).parent / "zoo" / "rof.safetensors"
KINDS = {
    "image": ["fip_photos", "data.min_side=32", "data.max_side=40", "data.sizes=1", "data.crop=32",
              "train.batch=2", "train.steps=4",
              "train.compile=false", "train.checkpoint_every=2", "train.evaluate_every=4",
              "train.warmup_steps=1"],
    "text": ["lm_sample", "model.hidden_size=8", "train.steps=4", "train.evaluate_every=4", "data.unroll=4",
             "train.batch=2"],
    "sequence": ["lstm_1997_tasks", "train.steps=20", "train.evaluate_every=20",
                 "train.checkpoint_every=10", "data.steps=10",
                 "data.val_count=10", "data.test_count=10"],
    "sentence": ["sentences_sru", "model.hidden_size=4", "model.embedding_size=4", "train.steps=4",
                 "train.evaluate_every=4"],
}  # fmt: skip
"""A run of every task, made small: its recipe, and what is set."""


def trained(kind: str) -> Path:
    """The folder of a finished run of this kind; it is trained where there is none."""
    os.environ["COMPRESSNET_CPU_SETTINGS"] = "off"
    folder = Path(os.environ.get("NETWORKS") or work() / "networks") / kind
    if not (folder / "checkpoints" / "last").exists():
        recipe, *settings = KINDS[kind]
        if kind == "image":
            settings.append(f"data.root={picture().parent}")
        given = [word for setting in settings for word in ("--set", setting)]
        given += ["--smoke"] if kind == "sentence" else []  # on the built-in sentences
        must(call("train", recipe, *given, "-o", folder, "--threads", "1", "--cache", work() / "cache"))
    return folder


def checkpoint(kind: str) -> Path:
    """The newest checkpoint of that run."""
    checkpoints = trained(kind) / "checkpoints"
    return checkpoints / (checkpoints / "last").read_text().strip()


def weights() -> list[Path]:
    """Weights files of all kinds: those that WEIGHTS names, else the zoo's and those of `KINDS`."""
    if given := os.environ.get("WEIGHTS", "").split():
        return [Path(name).absolute() for name in given]
    return [ZOO, *(checkpoint(kind) / "model.safetensors" for kind in KINDS if kind != "image")]


def picture() -> Path:
    """A small photograph, alone in its folder."""
    path = work() / "pictures" / "small.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(path)
    return path
