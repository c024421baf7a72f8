"""Networks of several operators and with a dial, through all commands, with no flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import compressnet
from compressnet import signature, weights
from compressnet.models.can_released import OPERATORS
from tests.cli.conftest import Cli
from tests.models.test_can import _as_released, _noisy, can24, can32

SMALL = ("--smoke", "--device", "cpu", "--set", "data.min_side=32", "--set", "data.max_side=40", "--set",
         "data.crop=32", "--set", "train.steps=6", "--set", "train.batch=1")  # fmt: skip


TWO: dict[str, Any] = {"operators": ["rof", "l0"]}
DIAL: dict[str, Any] = {"operators": ["l0"], "dial": {"lambda": [0.002, 0.02]}}
DATA = ("--data", "photo_folder:root=set,test_root=set", "--device", "cpu")


def saved(path: str, task_args: dict[str, Any], assets: dict[str, Any] | None = None) -> str:
    """A weights file of a network that hears its condition; its assets are as wrong as one likes."""
    arguments = {"condition": "film", "conditions": 1 if "dial" in task_args else len(task_args["operators"])}
    network = _noisy(signature.build("model", "can24", arguments))
    task = {"task": "conditioned_operator", "task_args": task_args}
    known: Any = {**task, "model": "can24", "model_args": arguments, "assets": assets or task_args}
    weights.save(Path(path), network, weights.Architecture(**known))
    return path


@pytest.fixture
def pictures(place: Path) -> None:
    """A folder of two photographs, `set`."""
    (place / "set").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (14, 18, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(place / "set" / f"{number}.png")


@pytest.fixture
def picture(place: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(place / "picture.png")
    return "picture.png"


def made(cli: Cli, subject: str, picture: str, *words: str) -> np.ndarray:
    cli("apply", subject, picture, "-o", "made.png", "--force", "--device", "cpu", *words)
    with Pillow.open("made.png") as image:
        return np.asarray(image).astype(int)


@pytest.mark.parametrize("condition", ["film", "planes"])
def test_several_operators(cli: Cli, picture: str, condition: str) -> None:
    words = (*SMALL, "--set", f"model.condition={condition}", "--set", "train.lr=0.01")
    cli("train", "fip_all_photos", *words, "-o", "run")
    figures = json.loads(cli("eval", "run", "--device", "cpu", "--json").stdout)
    assert list(figures["rows"]) == ["rof", "l0"]
    assert all(row["psnr_nothing"] > 0 for row in figures["rows"].values())
    assert len(figures["details"]["samples"]) == 4
    previews = [path.stem for path in Path("run/previews").iterdir()]
    assert previews
    assert all(name.endswith((", rof", ", l0")) for name in previews)
    rof, l0 = (made(cli, "run", picture, "--set", f"operator={name}") for name in ("rof", "l0"))
    assert np.abs(rof - l0).max() >= 1
    made(cli, "run", picture, "--set", "blend=[rof:0.5,l0:0.5]")
    told = cli("apply", "run", picture, "-o", "x.png", "--set", "operator=rtv", code=2).stderr
    assert "'operator' should be 'rof' or 'l0' (got 'rtv')" in told
    bare = cli("apply", "run", picture, "-o", "x.png", "--set", "blend=rof:0.5,l0:0.5", code=2).stderr
    assert "'blend' is a list: write [rof:0.5,l0:0.5]" in bare
    assert "as [rof:0.5, l0:0.5]" in cli("apply", "run", "--options").stdout
    assert (
        "name the operator, as in --set operator=rof"
        in cli("apply", "run", picture, "-o", "x.png", code=2).stderr
    )
    assert json.loads(cli("count-params", "run", "--json", "--strict").stdout)
    told = cli("bench", "run", "--input-size", "16", "--rounds", "2", "--processes", "1", "--device", "cpu",
               "--backend", "eager,strips", "--json").stdout  # fmt: skip
    assert json.loads(told)


def test_a_dial(cli: Cli, picture: str) -> None:
    cli("train", "fip_dial_photos", *SMALL, "--set", "train.lr=0.01", "-o", "run")
    rows = json.loads(cli("eval", "run", "--device", "cpu", "--json").stdout)["rows"]
    assert len(rows) == 9
    assert next(iter(rows)) == "lambda=0.002"
    assert list(rows)[-1] == "lambda=0.02"
    assert all(", lambda=0.0" in path.stem for path in Path("run/previews").iterdir())
    weak, strong = (made(cli, "run", picture, "--set", f"lambda={value}") for value in (0.002, 0.02))
    assert np.abs(weak - strong).max() >= 1
    told = cli("apply", "run", picture, "-o", "x.png", "--set", "lambda=0.5", code=2).stderr
    assert "the network was trained from 0.002 to 0.02; --set force=true takes it as it is" in told
    made(cli, "run", picture, "--set", "lambda=0.5", "--set", "force=true")
    options = json.loads(cli("apply", "run", "--options", "--json").stdout)
    assert (options["lambda"]["minimum"], options["lambda"]["maximum"]) == (0.002, 0.02)


def test_exported_with_a_second_input(cli: Cli, place: Path) -> None:
    onnx = pytest.importorskip("onnx")
    two, dial = saved("two.safetensors", TWO), saved("dial.safetensors", DIAL)
    for net, meaning in (
        (two, "the condition: the shares of rof, l0, in this order, which add to 1"),
        (dial, "the condition: lambda / 0.01, from 0.2 to 2"),
    ):
        assert meaning in " ".join(cli("export", net, "-o", "net.onnx", "--force").stdout.split())
        written = onnx.load("net.onnx")
        assert [node.name for node in written.graph.input] == ["input", "condition"]
        assert meaning in json.loads(written.metadata_props[0].value)["values"]


def test_the_authors_networks_of_ten_and_with_a_dial(cli: Cli, place: Path, picture: str) -> None:
    ten, dial = _noisy(can32(in_channels=13)), _noisy(can24(in_channels=4))
    for name, net in (("ten", ten), ("dial", dial)):
        arrays: dict[str, Any] = dict(_as_released(net))
        np.savez(f"{name}.npz", **arrays)
    assert (
        "--operator: this network does ten operators"
        in cli("import", "ten.npz", "-o", "x.safetensors", "--operator", "l0", code=2).stderr
    )
    for name in ("ten", "dial"):
        cli("import", f"{name}.npz", "-o", f"{name}.safetensors")
    assert compressnet.load("ten.safetensors").assets == {"operators": list(OPERATORS)}
    rof, rtv = (made(cli, "ten.safetensors", picture, "--set", f"operator={name}") for name in ("rof", "rtv"))
    assert np.abs(rof - rtv).max() >= 1
    weak, strong = (
        made(cli, "dial.safetensors", picture, "--set", f"lambda={value}") for value in (0.001, 0.01)
    )
    assert np.abs(weak - strong).max() >= 1


# --- one of several is measured ----------------------------------------------------------------------------


@pytest.mark.usefixtures("pictures")
def test_one_operator_or_a_blend_is_measured(cli: Cli) -> None:
    two = saved("two.safetensors", TWO)

    def measured(*words: str) -> dict[str, Any]:
        done: dict[str, Any] = json.loads(cli("eval", two, *DATA, *words, "--json").stdout)
        return done

    every, rof = measured(), measured("--set", "operator=rof")
    assert list(every["rows"]) == ["rof", "l0"]
    assert rof["rows"] == {"rof": every["rows"]["rof"]}
    assert rof["metrics"] == rof["rows"]["rof"]
    assert (rof["data"]["count"], list(rof["details"]["samples"])) == (2, ["0.png, rof", "1.png, rof"])
    assert (every["measures"]["operator"], rof["measures"]["operator"]) == (None, "rof")
    alone, half = (measured("--set", f"blend=[{text}]") for text in ("rof:1", "rof:0.5,l0:0.5"))
    assert alone["rows"] == rof["rows"]
    assert list(half["rows"]) == ["0.5 rof + 0.5 l0"]
    nothing = [report["metrics"]["mse_nothing"] for report in (rof, half, measured("--set", "operator=l0"))]
    assert nothing == sorted(nothing) or nothing == sorted(nothing, reverse=True)
    words = ("--set", "blend=[rof:0.5,l0:0.5]", "--pictures", "drawn")
    shown = cli("eval", two, *DATA, *words).stdout
    assert "┃ operator" in shown
    assert sorted(path.name for path in Path("drawn").iterdir()) == [
        f"{number}.png, 0.5 rof + 0.5 l0.png" for number in range(2)
    ]
    assert "operator" in json.loads(cli("eval", two, "--options", "--json").stdout)


@pytest.mark.usefixtures("pictures")
def test_one_strength_is_measured(cli: Cli) -> None:
    dial = saved("dial.safetensors", DIAL)
    every, one, beyond = (
        json.loads(cli("eval", dial, *DATA, *words, "--json").stdout)
        for words in ((), ("--set", "lambda=0.02"), ("--set", "lambda=0.05", "--set", "force=true"))
    )
    assert one["rows"] == {"lambda=0.02": every["rows"]["lambda=0.02"]}
    assert list(beyond["rows"]) == ["lambda=0.05"]
    assert one["measures"]["lambda"] == 0.02
    assert "┃ lambda " in cli("eval", dial, *DATA, "--set", "lambda=0.02").stdout
    told = cli("eval", dial, *DATA, "--set", "lambda=2.0", "--set", "force=true", code=2).error
    assert told == "operator l0: 'lambda' should be less than or equal to 1 (got 2.0)"
    options = json.loads(cli("eval", dial, "--options", "--json").stdout)
    assert options["lambda"]["anyOf"][0] == {"type": "number", "minimum": 0.002, "maximum": 0.02}


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (TWO, ["operator=rtv"]),
        (TWO, ["operator=3"]),
        (TWO, ["operator=rof", "blend=[l0:1]"]),
        (TWO, ["blend=[rof:0.5]"]),
        (TWO, ["blend=[rof:-1,l0:2]"]),
        (TWO, ["blend=[rtv:1]"]),
        (TWO, ["blend=rof"]),
        (TWO, ["blend=rof:0.5,l0:0.5"]),
        (TWO, ["blend=[rof: 0.5, l0: 0.5]"]),
        (TWO, ["blend={rof: 0.5, l0: 0.5}"]),
        (DIAL, ["lambda=0.5"]),
        (DIAL, ["lambda=-1"]),
        (DIAL, ["lambda=strong"]),
    ],
    ids=str,
)
def test_what_apply_refuses_eval_refuses_too(
    cli: Cli, picture: str, task: dict[str, Any], settings: list[str]
) -> None:
    saved("net.safetensors", task)
    words = [word for text in settings for word in ("--set", text)]
    key = settings[0].partition("=")[0]
    applied = cli("apply", "net.safetensors", picture, "-o", "x.png", *words, code=2).error
    told = cli("eval", "net.safetensors", *DATA, *words, code=2).error
    assert told.removeprefix(f"--set {key}: ") == applied


@pytest.mark.parametrize(
    ("task", "words", "options", "note"),
    [
        (TWO, ["operator=l0"], {"operator": "l0", "blend": None}, "operator: l0"),
        (
            TWO,
            ["blend=[rof:0.25,l0:0.75]"],
            {"operator": None, "blend": ["rof:0.25", "l0:0.75"]},
            "operator: 0.25 rof + 0.75 l0",
        ),
        (DIAL, ["lambda=0.004"], {"lambda": 0.004, "force": False}, "lambda=0.004"),
        (DIAL, [], {"lambda": 0.01}, "lambda=0.01"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_apply_tells_what_it_did(
    cli: Cli, picture: str, task: dict[str, Any], words: list[str], options: dict[str, Any], note: str
) -> None:
    net = saved("net.safetensors", task)
    given = [word for text in words for word in ("--set", text)]
    done = cli("apply", net, picture, "-o", "x.png", *given, "--json")
    found = json.loads(done.stdout)["options"]
    assert options.items() <= found.items()
    assert (found["dtype"], found["max_memory"]) == ("float32", None)
    assert note in done.stderr.splitlines()


# --- files that were changed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "assets", "message"),
    [
        (TWO, {"weights": [-1.0, 1.0]}, "damaged: 'weights.0' should be greater than 0 (got -1.0)"),
        (TWO, {"weights": [0.0, 1.0]}, "damaged: 'weights.0' should be greater than 0 (got 0.0)"),
        (TWO, {"weights": [1.0]}, "weights: one for each of 2 operators, and none with a dial"),
        (TWO, {"weights": "even"}, "damaged: 'weights' should be a valid list (got 'even')"),
        (TWO, {"operators": ["rof", "l9"]}, "operators: there is no operator 'l9'"),
        (TWO, {"operators": ["rof", "l0:lambda=7"]}, "operators: operator l0: 'lambda' should be less than"),
        (TWO, {"operators": ["rof", "rof:weight=0.055"]}, "operators: 'rof:weight=0.055' is named twice"),
        (TWO, {"operators": ["l0", "rof"]}, "operators: they are not those of the task"),
        (TWO, {"operators": []}, "damaged: 'operators' list should have at least 1 item"),
        (TWO, {"operators": None}, "damaged: 'operators' should be a valid list (got null)"),
        (TWO, {"operator": "rof"}, "damaged: there is no field 'operator'"),
        (TWO, {"asked": [["rof"]]}, "damaged: there is no field 'asked'"),
        (DIAL, {"dial": {"lambda": [0.02, 0.002]}}, "dial.lambda: [0.02, 0.002] is no range"),
        (DIAL, {"dial": {"lambda": [0.02]}}, "damaged: 'dial.lambda' list should have at least 2 items"),
        (DIAL, {"dial": {"lambda": [0.002, 7.0]}}, "dial.lambda: operator l0: 'lambda' should be less than"),
        (DIAL, {"dial": {"lambda": [0.002, 0.03]}}, "dial: it is not that of the task"),
        (DIAL, {"dial": {"sigma": [1.0, 2.0]}}, "dial.sigma: operator l0: unknown key 'sigma'"),
        (DIAL, {"dial": {}}, "dial: one setting of one operator"),
        (DIAL, {"dial": None}, "operators: name several, or a dial"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_changed_assets_are_refused(
    cli: Cli, picture: str, task: dict[str, Any], assets: dict[str, Any], message: str
) -> None:
    saved("net.safetensors", task, {**task, **assets})
    for words in (("eval", *DATA), ("apply", picture, "-o", "x.png"), ("bench",)):
        told = cli(words[0], "net.safetensors", *words[1:], code=1).error
        assert told.startswith(f"net.safetensors: the stored assets: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {**TWO, "weights": [float("nan"), 1.0]},
            "its description: damaged, not JSON: the number NaN is not",
        ),
        ({**TWO, "weights": [-1.0, 1.0]}, "task conditioned_operator: 'weights' should be greater than 0"),
        ({**DIAL, "dial": {"lambda": [0.02, 0.002]}}, "dial.lambda: [0.02, 0.002] is no range"),
    ],
    ids=str,
)
def test_changed_arguments_are_refused(
    cli: Cli, picture: str, arguments: dict[str, Any], message: str
) -> None:
    saved("net.safetensors", arguments)
    told = cli("apply", "net.safetensors", picture, "-o", "x.png", code=1).error
    assert told.startswith(f"net.safetensors: {message}")


def test_a_network_of_one_operator_is_told_none(cli: Cli, picture: str) -> None:
    task: Any = {"task": "image_operator", "task_args": {"operator": "rof"}, "model": "can24"}
    network = signature.build("model", "can24", {})
    weights.save(Path("net.safetensors"), network, weights.Architecture(**task, model_args={}, assets=TWO))
    told = cli("apply", "net.safetensors", picture, "-o", "x.png", code=1).error
    assert told == "net.safetensors: the stored assets: operators: the network is told none"


@pytest.mark.usefixtures("pictures")
def test_a_reference_is_needed_for_targets_alone(cli: Cli, picture: str) -> None:
    styled = saved("styled.safetensors", {"operators": ["rof", "style:levels=3,reference=gone.png"]})
    one = "operator=style"
    cli("apply", styled, picture, "-o", "x.png", "--set", one)
    assert compressnet.load(styled).assets["operators"][1] == "style:levels=3,reference=gone.png"
    for words in ((), ("--set", one), ("--set", "blend=[rof:0.5,style:0.5]")):
        told = cli("eval", styled, *DATA, *words, code=1).error
        assert told == "styled.safetensors: operator style: reference: gone.png: no such file"
    cli("eval", styled, *DATA, "--set", "operator=rof")
    pytest.importorskip("onnxruntime")
    cli("export", styled, "-o", "styled.onnx")
