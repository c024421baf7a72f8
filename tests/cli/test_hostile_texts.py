"""Texts from strangers, in recipes, `--set`, subjects, files to import: one short line, and an exit code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from compressnet import create
from compressnet.models.can_released import _variable_name
from tests.cli.conftest import Cli

RECIPE = """version: 1
task: {name: image_operator, operator: rof}
model: {name: can24}
data: {name: sample}
train: {steps: &s 8, log_every: *s}
seed: 3
"""
LANGUAGE = """version: 1
task: {name: language_modelling}
model: {name: language_model, hidden_size: 4, num_layers: 1}
data: {name: text_file, train: text.txt, unroll: 4, min_count: 1}
train: {steps: 1}
"""


def _one_short_line(text: str) -> None:
    assert len(text) < 700  # with a list of all names
    assert text.isprintable()


# ---- YAML


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("&a {x: *a}", "an alias of what it stands in"),
        (f"[&a [{'1, ' * 9}], &b [{'*a, ' * 9}], &c [{'*b, ' * 9}], &d [{'*c, ' * 9}], [{'*d, ' * 9}]]",
         "more than 20,000 values"),
        ("{a: " * 700 + "}" * 700, "deep"),
        ("-" + "8" * 6000, "more than the 64 bits of an integer"),
        ("!!float one", "'one' is no float"),
        ("{<<: {steps: 1}}", "merge keys (<<) are not read"),
        ("{true: 1}", "a key is a text, not 'true'"),
        ('"\\e[2J\\ud8ff"', "the character U+D8FF is no text"),
        ("y" * 70_000, "longer than 64 kB"),
        ('"\\e[31mred"', "seed: should be a valid integer"),
        ("z" * 9000, "seed: should be a valid integer"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["recipe", "set", "subject"])
def test_values_that_are_not_read(cli: Cli, place: Path, way: str, value: str, message: str) -> None:
    (place / "r.yaml").write_text(RECIPE if way != "recipe" else RECIPE.replace("seed: 3", f"seed: {value}"))
    if way == "subject":
        error = cli("count-params", f"layer:lstm:hidden_size={value}", code=2).error
        message = message.replace("seed: should", "'hidden_size' should")
    else:
        overrides = ["--set", f"seed={value}"] if way == "set" else []
        error = cli("recipes", "validate", "r.yaml", *overrides, code=2).error
        assert error.startswith("r.yaml:" if way == "recipe" else "--set seed=")
    assert message in error
    _one_short_line(error)


def test_a_plain_alias_goes_on_working(cli: Cli, place: Path) -> None:
    (place / "r.yaml").write_text(RECIPE)
    assert cli("recipes", "validate", "r.yaml").stderr == ""


def test_recipes_that_are_no_files_of_usual_size(cli: Cli, place: Path) -> None:
    (place / "zero.yaml").symlink_to("/dev/zero")
    (place / "long.yaml").write_text(RECIPE + "#" * 70_000)
    assert "cannot read the recipe zero.yaml: not a file" in cli("train", "zero.yaml", code=1).error
    assert cli("train", "long.yaml", code=2).error == "long.yaml:1: longer than 64 kB"


def test_names_in_messages_are_cut_and_cleaned(cli: Cli) -> None:
    for words in (
        ["count-params", "x" * 5000],
        ["count-params", "model:\x1b[2J" + "x" * 5000],
        ["count-params", "./" + "x" * 5000],
        ["count-params", "lstm:\x9b=3"],
        ["count-params", "recurrent_stack:cell=" * 200 + "lstm"],
        ["train", "fip_sample", "--set", "train." + "x" * 5000 + "=1"],
        ["train", "fip_sample", "--set", ".".join("x" * 3000) + "=1"],
    ):
        _one_short_line(cli(*words, code=None).error)


# ---- bounds


@pytest.mark.parametrize(
    "given",
    [
        *("train.steps=1000000001", "train.epochs=1e299", "train.epochs=.inf", "train.batch=1048577"),
        *("train.lr=1e308", "train.weight_decay=1e9", "train.log_every=99999999999", "train.workers=257"),
        *("train.checkpoint_minutes=1e30", "train.clip_norm=.inf", "seed=9223372036854775808", "seed=-1"),
        *("eval.workers=1000", "eval.batch=2000000", "version=true", "version=1.0", "train.steps=true"),
        *("data.crop=16777217", "data.sizes=1000000000", "data.max_side=99999999", "train.lr=.nan"),
        *("task.operator=rof:max_iterations=1000000000", "task.operator=rof:weight=1e300"),
        *("task.operator=l0:kappa=1.00000001", "task.operator=l0:lambda=.inf"),
    ],
)
def test_what_could_only_hang_or_overflow_is_refused(cli: Cli, place: Path, given: str) -> None:
    (place / "r.yaml").write_text(RECIPE)
    error = cli("recipes", "validate", "r.yaml", "--set", given, code=2).errors[0]
    assert error.startswith(f"--set {given}: ")
    _one_short_line(error)


@pytest.mark.parametrize(
    "given",
    [
        *("train.steps=1000000000", "train.batch=1048576", "seed=9223372036854775807", "train.workers=256"),
        *("data.crop=16777216", "train.lr=30", "task.operator=l0:kappa=1.05"),
    ],
)
def test_what_is_large_and_makes_sense_is_taken(cli: Cli, place: Path, given: str) -> None:
    (place / "r.yaml").write_text(RECIPE)
    cli("recipes", "validate", "r.yaml", "--set", given)


@pytest.mark.parametrize(
    ("subject", "key"),
    [
        ("lstm:hidden_size=16777217", "hidden_size"),
        ("sru:num_layers=100000", "num_layers"),
        ("sru:version=true", "version"),
        ("bytenet:sets=100000", "sets"),
        ("bytenet:kernel_size=100000", "kernel_size"),
        ("language_model:init_range=1e308", "init_range"),
        ("language_model:cutoffs=[99999999999]", "cutoffs"),
        ("conv2d:in_channels=3,out_channels=3,kernel_size=[3, 100000]", "kernel_size"),
        ("dilated_conv2d:in_channels=3,out_channels=3,dilation=99999999", "dilation"),
        ("adaptive_norm:channels=3,eps=.inf", "eps"),
        ("lstm:hidden_size=3,hidden_size=4", "hidden_size"),
    ],
)
def test_sizes_of_subjects(cli: Cli, subject: str, key: str) -> None:
    assert f"'{key}'" in cli("count-params", subject, code=2).error


def test_more_elements_than_64_bits_count(cli: Cli) -> None:
    words = "conv2d:in_channels=16777216,out_channels=16777216,kernel_size=1000"
    assert "too large for any memory" in cli("count-params", words, code=2).error


# ---- texts


def test_a_text_of_one_line(cli: Cli, place: Path) -> None:
    (place / "r.yaml").write_text(LANGUAGE)
    for end in ("", "\n"):
        (place / "text.txt").write_text("the cat sat on a mat " * 60 + end)
        assert cli("data", "check", "r.yaml").errors == []
    (place / "text.txt").write_text("the cat sat\n")
    errors = cli("data", "check", "r.yaml", code=1).errors
    assert len(errors) == 2
    assert all("there is no text in what lies between" in error and "data.val" in error for error in errors)


def test_the_hint_on_unknown_words_knows_what_was_set(cli: Cli, place: Path) -> None:
    (place / "r.yaml").write_text(LANGUAGE)
    (place / "text.txt").write_text("a b c d\n" * 50 + "e f\n" * 10)
    (error, *_) = cli("data", "check", "r.yaml", code=1).errors
    assert "trained with data.min_count=2, rare ones are <unk>" in error
    (error, *_) = cli("data", "check", "r.yaml", "--set", "data.min_count=3", code=1).errors
    assert "data.min_count=2" not in error
    assert "rarer than data.min_count, 3" in error


@pytest.mark.parametrize("where", ["runs", "deep/er/run"])
def test_missing_data_leaves_nothing(cli: Cli, place: Path, where: str) -> None:
    (place / "r.yaml").write_text(LANGUAGE)
    words = ["--runs", where] if where == "runs" else ["-o", where]
    assert "text.txt: no such file" in cli("train", "r.yaml", *words, code=1).error
    assert [path.name for path in place.iterdir()] == ["r.yaml"]


# ---- import


def _released() -> dict[str, np.ndarray]:
    arrays = {}
    for key, tensor in create("can24").state_dict().items():
        array = tensor.numpy()
        arrays[_variable_name(key, False)] = (
            array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        ).copy()
    return arrays


def _claims_more(name: str) -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (12345, 67890)}\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{name}.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g_conv1/weights": np.zeros((3, 3, 3, 24), np.int32)}, "g_conv1/weights holds int32, not floats"),
        ({"g_conv2/w0": np.float32("nan")}, "g_conv2/w0 holds NaN or infinite values"),
        ({"g_conv_last/biases": np.full(3, 1e300)}, "g_conv_last/biases holds NaN or infinite values"),
        ({f"x{n}": np.zeros(1) for n in range(999)}, "and 989 more"),
        ({"\x1b[2J" + "x" * 900: np.zeros(1)}, r"unknown \x1b[2Jxxx"),
    ],
)
def test_arrays_that_are_no_weights(
    cli: Cli, place: Path, change: dict[str, np.ndarray], message: str
) -> None:
    np.savez(place / "a.npz", **{**_released(), **change})  # type: ignore[arg-type]
    done = cli("import", "a.npz", "-o", "a.safetensors", code=1)
    assert done.error.startswith("a.npz: ")
    assert message in done.error
    assert "Warning" not in done.stderr
    assert not (place / "a.safetensors").exists()


def test_archives_that_cannot_be_read(cli: Cli, place: Path) -> None:
    for data, message in (
        (b"", "a.npz: not a readable .npz archive"),
        (b"PK\x05\x06", "a.npz: not a readable .npz archive"),
        (_claims_more("g"), "a.npz: array 'g' has an impossible shape (12345, 67890)"),
    ):
        (place / "a.npz").write_bytes(data)
        assert message in cli("import", "a.npz", "-o", "a.safetensors", code=1).error
    (place / "empty.index").write_bytes(b"")
    assert "empty.index: not a readable" in cli("import", "empty", "-o", "a.safetensors", code=1).error
