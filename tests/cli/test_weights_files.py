"""Nothing wrong gets from a file to a figure: damaged, edited and hostile weights, through the program."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import compressnet
from compressnet import weights
from compressnet.architecture import seal
from compressnet.errors import CompressnetError
from tests.cli.conftest import Cli
from tests.conftest import ROOT

ZOO = Path(compressnet.__file__).parent / "zoo" / "rof.safetensors"
Tensors = dict[str, Tensor]


def described(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[weights.KEY])


def rewritten(path: Path, change: Callable[[Tensors], Any] | None = None, **fields: Any) -> Path:
    """A copy of the zoo's weights with other tensors or description, digested and sealed as ours."""
    tensors = safetensors.torch.load_file(ZOO)
    if change is not None:
        change(tensors)
    described_ = {**described(ZOO), **fields}
    known = ("task", "task_args", "model", "model_args", "edits", "assets", "data", "smoke")
    made = object.__new__(weights.Architecture)
    for key in known:
        object.__setattr__(made, key, described_[key])
    described_["digest"] = weights.digest(tensors, made)
    described_["seal"] = seal(described_)
    safetensors.torch.save_file(tensors, path, metadata={weights.KEY: json.dumps(described_, sort_keys=True)})
    return path


def unsealed(path: Path, **fields: Any) -> Path:
    """A copy whose description was changed by hand."""
    text = json.dumps({**described(ZOO), **fields}, sort_keys=True)
    safetensors.torch.save_file(safetensors.torch.load_file(ZOO), path, metadata={weights.KEY: text})
    return path


def put(name: str, value: float, count: int = 1) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name].view(-1)[:count] = value

    return change


def cast(name: str, dtype: torch.dtype) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].to(dtype)

    return change


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_a_flipped_bit_is_noticed(place: Path) -> None:
    whole, tensors = ZOO.read_bytes(), weights.load(ZOO)[1]
    path = place / "w.safetensors"
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for number in range(60):
        rng = random.Random(number)
        data = flipped(whole[:header], rng) + whole[header:] if number % 2 else flipped(whole, rng)
        path.write_bytes(data)
        try:
            _, read = weights.load(path)
        except CompressnetError:
            continue
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items()), number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("last.bias", float("nan")), "'last.bias': 1 of 3 values are not finite"),
        (put("blocks.3.conv.weight", float("inf"), 7), "'blocks.3.conv.weight': 7 of 5184 values"),
        (cast("last.bias", torch.int8), "'last.bias' is int8 in the file, float32 in the model"),
        (cast("last.bias", torch.bool), "'last.bias' is bool in the file"),
        (cast("last.weight", torch.complex64), "'last.weight' is complex64 in the file"),
        (lambda tensors: tensors.pop("last.bias"), "1 names differ, first 'last.bias'"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "1 names differ, first 'more'"),
        (
            lambda tensors: tensors.update({"last.bias": torch.zeros(4)}),
            "(4,) in the file, (3,) in the model",
        ),
    ],
)
def test_values_that_are_not_the_models(
    cli: Cli, place: Path, photo: Path, change: Callable[[Tensors], Any], message: str
) -> None:
    rewritten(place / "w.safetensors", change)
    for words in (["apply", "w.safetensors", photo, "-o", "out.png"], ["eval", "w.safetensors"]):
        error = cli(*words, code=1).error
        assert error.startswith("w.safetensors")
        assert message in error
    assert not Path("out.png").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_converted_and_that_is_said(cli: Cli, place: Path, dtype: torch.dtype) -> None:
    rewritten(place / "w.safetensors", cast("last.bias", dtype))
    said = cli("import", "w.safetensors", "-o", "new.safetensors").stderr
    kind = str(dtype).removeprefix("torch.")
    assert f"1 of 34 tensors are converted to the model's type, first 'last.bias' from {kind}" in said
    assert weights.load(Path("new.safetensors"))[1]["last.bias"].dtype == torch.float32


def test_an_edited_file_is_refused_and_import_takes_it(cli: Cli, place: Path, photo: Path) -> None:
    tensors = safetensors.torch.load_file(ZOO)
    tensors["last.bias"] += 0.25
    path = place / "edited.safetensors"
    text = json.dumps(described(ZOO), sort_keys=True)
    safetensors.torch.save_file(tensors, path, metadata={weights.KEY: text})
    error = cli("apply", path, photo, "-o", "out.png", code=1).error
    assert "its values are not those that were written" in error
    assert f"compressnet import {path} -o NEW.safetensors" in error
    cli("import", path, "-o", "new.safetensors")
    assert torch.equal(weights.load(Path("new.safetensors"))[1]["last.bias"], tensors["last.bias"])
    cli("apply", "new.safetensors", photo, "-o", "out.png")
    assert "exists: add --force" in cli("import", path, "-o", "new.safetensors", code=1).error
    assert "--operator" in cli("import", path, "-o", "x.safetensors", "--operator", "l0", code=2).error


@pytest.mark.parametrize(
    "fields", [{"smoke": True}, {"task_args": {"operator": "l0"}}, {"data": {}}, {"digest": "0" * 64}]
)
def test_an_edited_description_is_refused(cli: Cli, place: Path, fields: dict[str, Any]) -> None:
    unsealed(place / "w.safetensors", **fields)
    assert "its description was changed after it was written" in cli("eval", "w.safetensors", code=1).error


CONV = {"in_channels": 24, "out_channels": 24, "kernel_size": 3}
DEEP: Any = "x"
for _ in range(40):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": 3}, "'task' should be a valid string"),
        ({"model_args": []}, "'model_args' should be a valid dictionary"),
        ({"smoke": 1}, "'smoke' should be a valid boolean"),
        ({"edits": [{"modules": {"last": {"layer": "identity"}}}]}, "'edits.0.modules.last.args' is missing"),
        ({"edits": [{"ties": [["a"]]}]}, "'edits.0.ties.0' "),
        ({"edits": [{"other": 1}]}, "there is no field 'edits.0.other'"),
        ({"more": 1}, "there is no field 'more'"),
        ({"assets": {"operator": 3}}, "'operator' should be a valid string"),
        ({"assets": {"operator": "l1"}}, "there is no operator 'l1'"),
        ({"assets": {"operator": "l0"}}, "their operator is 'l0', not 'rof'"),
        ({"assets": {"deep": DEEP}}, "more than 32 levels"),
        ({"data": {"count": 10**30}}, "has more than 64 bits"),
        ({"task": "language_modelling", "task_args": {}}, "'tokenizer' is missing"),
        ({"task": "sequence_regression", "task_args": {}}, "'problem' is missing"),
        (
            {"model": "language_model", "model_args": {"num_layers": 100}},
            "many more tensors than the file",
        ),
        ({"model": "language_model", "model_args": {"vocab_size": 16_000_000}}, "names differ"),
        ({"model": "can32"}, "names differ"),
        ({"model_args": {"in_channels": 5}}, "'blocks.0.conv.weight' is (24, 3, 3, 3) in the file"),
        (
            {"edits": [{"modules": {"blocks.77": {"layer": "identity", "args": {}}}}]},
            "'blocks.77', which the",
        ),
        ({"edits": [{"modules": {"": {"layer": "identity", "args": {}}}}]}, "'', which the model has not"),
        (
            {
                "edits": [
                    {
                        "modules": {
                            "blocks": {"layer": "identity", "args": {}},
                            "blocks.1.conv": {"layer": "conv2d", "args": CONV},
                        }
                    }
                ]
            },
            "'blocks' and 'blocks.1.conv', which lies in it",
        ),
        ({"edits": [{"ties": [["last.bias", "blocks.0.conv.weight"]]}]}, "which are not alike"),
        ({"edits": [{"ties": [["last.bias", "last.bias"]]}]}, "which are not alike"),
        ({"edits": [{"ties": [["last.bias", "forward"]]}]}, "ties 'forward', which the model has not"),
    ],
)
def test_descriptions_of_strangers(cli: Cli, place: Path, fields: dict[str, Any], message: str) -> None:
    rewritten(place / "w.safetensors", **fields)
    error = cli("eval", "w.safetensors", "--data", "sample", code=1).error
    assert error.startswith("w.safetensors")
    assert message in error


def test_a_model_that_is_one_layer_has_no_parts(place: Path) -> None:
    edit: Any = {"modules": {"cells": {"layer": "identity", "args": {}}}}
    model = torch.nn.Linear(2, 2)
    with pytest.raises(CompressnetError, match="a model that is one layer"):
        weights.apply_edit(model, edit)


def test_an_edit_happens_whole_or_not_at_all() -> None:
    model = compressnet.create("can24")
    before = dict(model.named_modules())
    edit: Any = {
        "modules": {"last": {"layer": "identity", "args": {}}},
        "ties": [["blocks.1.conv.weight", "blocks.0.conv.weight"]],
    }
    with pytest.raises(CompressnetError, match="not alike"):
        weights.apply_edit(model, edit)
    assert dict(model.named_modules()) == before


def test_outputs_that_are_not_finite_name_their_sample(cli: Cli, place: Path, photo: Path) -> None:
    def explode(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if name.endswith("conv.weight"):
                tensor.fill_(3e38)

    rewritten(place / "w.safetensors", explode)
    error = cli("apply", "w.safetensors", photo, "-o", "out.png", code=1).error
    assert error.startswith(f"{photo}: the network's output: ")
    assert "values are not finite" in error
    assert not Path("out.png").exists()
    error = cli("eval", "w.safetensors", "--data", "sample", code=1).error
    assert error.startswith("astronaut: the network's output: ")


def test_saving_refuses_what_is_not_finite(place: Path) -> None:
    architecture, model = weights.open_model(ZOO)
    model.get_parameter("last.bias").data[1] = float("-inf")
    with pytest.raises(CompressnetError, match=r"cannot write w.safetensors: 'last.bias': 1 of 3 values"):
        weights.save(Path("w.safetensors"), model, architecture)
    assert not Path("w.safetensors").exists()


def test_opened_models_are_as_those_that_were_built(place: Path) -> None:
    """What is not stored is made again: the classes of words."""
    arguments = {"vocab_size": 30, "softmax": "classes", "class_sizes": [5, 25], "hidden_size": 8}
    architecture = weights.Architecture("language_modelling", {"classes": 2}, "language_model", arguments)
    model = weights.build(architecture)
    weights.save(Path("w.safetensors"), model, architecture)
    random_state = torch.get_rng_state()
    opened = weights.open_model(Path("w.safetensors"))[1]
    assert torch.equal(torch.get_rng_state(), random_state)
    words = torch.randint(30, (4, 2))
    assert torch.equal(opened.eval()(words)[0], model.eval()(words)[0])
    assert torch.equal(opened.output.class_of, model.output.class_of)  # type: ignore[union-attr, arg-type]
    with pytest.raises(CompressnetError, match="class_sizes: their sum is 6, there are 30 words"):
        weights.build(weights.Architecture("t", {}, "language_model", {**arguments, "class_sizes": [5, 1]}))


def test_a_run_with_a_damaged_newest_checkpoint(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = shutil.copytree(smoke_run, place / "run")
    digest = json.loads((run / "run.json").read_text())["digest"]
    newest, earlier = run / "checkpoints" / "step-8", run / "checkpoints" / "step-4"
    assert (earlier / "state.safetensors").is_file()
    state = newest / "state.safetensors"
    state.write_bytes(flipped(state.read_bytes(), random.Random(0)))
    facts = (run / "run.json").read_text()
    (run / "run.json").write_text(facts.replace('"done"', '"interrupted"'))
    error = cli("train", "--resume", "run", code=1).error
    assert error.startswith("run/checkpoints/step-8/state.safetensors is damaged")
    assert "`train --resume run@step-4` goes on from there" in error
    before = (newest / "state.json").stat().st_mtime_ns
    done = json.loads(cli("train", "--resume", "run@step-4", "--json").stdout)
    assert done["digest"] == digest
    assert (newest / "state.json").stat().st_mtime_ns != before
    assert (run / "checkpoints" / "last").read_text() == "step-8\n"
    assert cli("train", "--resume", "run@step-5", code=1).error.startswith("run has no checkpoint 'step-5'")


@pytest.mark.parametrize("name", ["state.json", "state.safetensors", "model.safetensors"])
def test_a_checkpoint_that_lacks_a_file(cli: Cli, place: Path, smoke_run: Path, name: str) -> None:
    run = shutil.copytree(smoke_run, place / "run")
    (run / "checkpoints" / "step-8" / name).unlink()
    error = cli("train", "--resume", "run", "--set", "train.steps=9", code=1).error
    assert f"step-8: {name} is missing; `train --resume run@step-4`" in error


@pytest.mark.parametrize(
    "pointer",
    ["../../..", "/etc", "", "step-", "step-²", "step-08", "step--8", "step-8/../step-4", "a" * 5000],
)
def test_pointers_stay_inside_the_run(cli: Cli, place: Path, smoke_run: Path, pointer: str) -> None:
    run = shutil.copytree(smoke_run, place / "run")
    (run / "checkpoints" / "best").write_text(pointer)
    error = cli("eval", "run", code=1).error
    assert error.startswith("run/checkpoints/best is damaged: it says ")
    assert len(error) < 200
    assert cli("eval", f"./run@{pointer[:99] or 'x'}", code=1).error.startswith("run")
    cli("eval", "run@step-8", "--data", "sample")


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "dreaming"), ("threads", 0), ("smoke", 1), ("command", "x"), ("best", [1])],
)
def test_run_json_has_one_form(cli: Cli, place: Path, smoke_run: Path, field: str, value: Any) -> None:
    run = shutil.copytree(smoke_run, place / "runs" / "bad")
    shutil.copytree(smoke_run, place / "runs" / "good")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, field: value}))
    assert cli("eval", "runs/bad", code=1).error.startswith(f"runs/bad/run.json: damaged: '{field}")
    rows = json.loads(cli("runs", "ls", "--json").stdout)
    assert [row["status"].split(":")[0] for row in rows] == ["damaged", "done (smoke)"]


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"null",
        b'{"event": "resume"}',
        b'{"event": ["x"], "step": 1}',
        b'{"event": "train", "step": 1e999}',
        b'{"event": "evaluation", "step": "3"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"x" * (3 << 20),
    ],
)  # fmt: skip
def test_a_bad_line_of_metrics_hides_nothing(cli: Cli, place: Path, smoke_run: Path, line: bytes) -> None:
    run = shutil.copytree(smoke_run, place / "runs" / "run")
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    (run / "metrics.jsonl").write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]) + b"\n")
    (row,) = json.loads(cli("runs", "ls", "--json").stdout)
    assert row["status"] == "done (smoke)"
    assert row["step"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": ["much"]}, "'history.0"),
        ({"world": 0}, "'world' "),
        ({"step": 9}, "is damaged: it is of step 9"),
        ({"epoch": 77}, "is damaged: it was changed after it was written"),
        ({"seal": None}, "is damaged: it was changed after it was written"),
    ],
)
def test_state_json_has_one_form(
    cli: Cli, place: Path, smoke_run: Path, change: dict[str, Any], message: str
) -> None:
    run = shutil.copytree(smoke_run, place / "run")
    path = run / "checkpoints" / "step-8" / "state.json"
    values = {**json.loads(path.read_text()), **change}
    path.write_text(
        json.dumps(values if "epoch" in change or "seal" in change else {**values, "seal": seal(values)})
    )
    error = cli("train", "--resume", "run", "--set", "train.steps=9", code=1).error
    assert "run/checkpoints/step-8/state.json" in error
    assert message in error
    assert "run@step-4" in error


def test_state_and_weights_of_a_checkpoint_belong_together(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = shutil.copytree(smoke_run, place / "run")
    checkpoints = run / "checkpoints"
    shutil.copy(checkpoints / "step-4" / "model.safetensors", checkpoints / "step-8" / "model.safetensors")
    error = cli("train", "--resume", "run", "--set", "train.steps=9", code=1).error
    assert error.startswith("run/checkpoints/step-8: its training state is not of the weights beside it")
    assert "run@step-4" in error
    assert "its weights are of another checkpoint" in cli("eval", "run@last", code=1).error
    cli("eval", "run@step-4")


def test_weights_of_another_network_are_not_the_runs(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = shutil.copytree(smoke_run, place / "run")
    for state in run.rglob("state.*"):
        state.unlink()
    shutil.copy(ROOT / "tests/fixtures/v0.1.0/text.safetensors", run / "checkpoints/step-8/model.safetensors")
    error = cli("eval", "run@step-8", code=1).error
    assert "it holds weights of the task 'language_modelling', the run trains 'image_operator'" in error


def test_damaged_weights_of_a_run_name_its_other_checkpoints(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = shutil.copytree(smoke_run, place / "run")
    path = run / "checkpoints" / "step-8" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(bytes(data))
    assert cli("eval", "run@step-8", code=1).error.endswith("other checkpoints of the run: run@step-4")


def test_floats_that_overflow_in_conversion_are_refused(cli: Cli, place: Path) -> None:
    def widen(tensors: Tensors) -> None:
        tensors["last.bias"] = torch.tensor([0.0, 1e300, 0.0], dtype=torch.float64)

    rewritten(place / "w.safetensors", widen)
    assert "'last.bias': 1 of 3 values are not finite" in cli("eval", "w.safetensors", code=1).error


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "checkpoints/best"])
def test_a_pipe_in_a_run_is_no_file_to_wait_for(cli: Cli, place: Path, smoke_run: Path, name: str) -> None:
    run = shutil.copytree(smoke_run, place / "runs" / "strange")
    shutil.copytree(smoke_run, place / "runs" / "usual")
    (run / name).unlink()
    os.mkfifo(run / name)
    rows = json.loads(cli("runs", "ls", "--json").stdout)
    assert [row["status"] for row in rows if row["run"] == "runs/usual"] == ["done (smoke)"]
    if name == "checkpoints/best":
        assert "best cannot be read: not a plain file" in cli("eval", "runs/strange", code=1).error


def test_import_says_that_a_file_was_edited(cli: Cli, place: Path) -> None:
    tensors = safetensors.torch.load_file(ZOO)
    tensors["last.bias"] -= 0.125
    text = json.dumps(described(ZOO), sort_keys=True)
    safetensors.torch.save_file(tensors, place / "by_hand.safetensors", metadata={weights.KEY: text})
    said = cli("import", "by_hand.safetensors", "-o", "new.safetensors").stderr
    assert "by_hand.safetensors: its values or its model are not those that were written" in said


def test_numbers_of_runs_are_those_of_one_recipe(place: Path, smoke_run: Path) -> None:
    from compressnet import run_names

    shutil.copytree(smoke_run, place / "fip_sample-smoke-7")
    shutil.copytree(smoke_run, place / "fip_sample-2")
    (place / "new").mkdir()
    assert run_names.take(place / "new", None, place, "fip_sample") == place / "fip_sample-3"
