"""Networks of a user's own: `py:FILE.py:NAME` in the commands that count, time and export."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import compressnet
from compressnet import subject, user_module
from compressnet.errors import UsageError
from compressnet.recipe import Recipe
from tests.cli.conftest import Cli

SOURCE = """
import torch
from torch import nn
from widths import WIDTH


class Net(nn.Module):
    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 1)

    def forward(self, x):
        return self.last(self.first(x).relu())


class Sized(Net):
    def example(self, batch=1, size=64):
        height, width = size if isinstance(size, tuple) else (size, size)
        return torch.rand(batch, 3, height, width)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.product = nn.Bilinear(3, 4, 5)

    def forward(self, a, b):
        return self.product(a, b)


def words(vocab=12):
    return nn.Sequential(nn.Embedding(vocab, 4), nn.Linear(4, 2))


def cell(): return nn.LSTM(8, 8)


def broken():
    raise KeyError("no such\\nkey")


def three():
    return 3
"""


@pytest.fixture
def mine(place: Path) -> Path:
    """my.py in a folder of its own, with a neighbour that it imports."""
    (place / "nets").mkdir()
    (place / "nets" / "widths.py").write_text("WIDTH = 8\n")
    (place / "nets" / "my.py").write_text(SOURCE)
    return place / "nets" / "my.py"


@pytest.mark.parametrize(
    ("words", "params", "macs"),
    [
        ("py:nets/my.py:Net --input 1x3x32x32", 251, (3 * 9 * 8 + 8 * 3) * 32 * 32),
        ("py:nets/my.py:Net:width=4 --input 2x3x10x20", 127, (3 * 9 * 4 + 4 * 3) * 2 * 200),
        ("py:nets/my.py:Sized --set width=4 --input-size 30x20", 127, (3 * 9 * 4 + 4 * 3) * 600),
        ("py:nets/my.py:Pair --input 2x3 --input 2x4", 65, 2 * 60),
        ("py:nets/my.py:words --input 5x2:int64", 58, 5 * 2 * 8),
    ],
)
def test_count(cli: Cli, mine: Path, words: str, params: int, macs: int) -> None:
    (report,) = json.loads(cli("count-params", *words.split(), "--json").stdout)["sides"]
    assert report["params"] == params
    assert report["macs_pass"] == macs
    assert report["problems"] == []


@pytest.mark.parametrize(
    ("words", "shapes"),
    [
        ("py:nets/my.py:Net vs can24 --input 1x3x16x16 --input-size 16 --batch 2", [[2, 3, 16, 16]] * 2),
        ("py:nets/my.py:cell vs torch_lstm:input_size=8,hidden_size=8 --seq-len 5", [[5, 1, 8]] * 2),
    ],
)
def test_bench_beside_a_network_of_ours(cli: Cli, mine: Path, words: str, shapes: list[list[int]]) -> None:
    quick = "--rounds 2 --threads 1 --processes 1 --no-memory --mode forward,train-step --json"
    rows = json.loads(cli("bench", *words.split(), *quick.split()).stdout)["rows"]
    assert [row["inputs"] for row in rows[:2]] == [[shape] for shape in shapes]
    assert rows[0]["name"] == words.split()[0]


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        ("py:nets/my.py:Sized", ["batch", 3, "height", "width"]),
        ("py:nets/my.py:Net --input 1x3x8x8", ["batch", 3, 8, 8]),
    ],
)
def test_export(cli: Cli, mine: Path, words: str, shape: list[object]) -> None:
    done = cli("export", *words.split(), "-o", "net.onnx")
    assert "weights are random" not in done.stderr  # who made them knows what they are
    file = onnx.load("net.onnx")
    axes = file.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == shape
    assert "nets/" not in str(file.metadata_props)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("py:nets/my.py", 2, "py:nets/my.py: write it as py:FILE.py:NAME[:key=value,...]"),
        ("py:nets/your.py:Net", 1, "nets/your.py: no such file"),
        ("py:nets/my.py:Nett", 2, "nets/my.py: it has no class or function 'Nett' (it has: Net, Pair, Sized"),
        ("py:nets/my.py:Net", 2, "nothing says what it takes; give it a method example"),
        ("py:nets/my.py:Net:depth=3", 2, "nets/my.py: Net: there is no 'depth' (it takes: width)"),
        ("py:nets/my.py:Net --set depth=3", 2, "--set depth: no side takes it"),
        ("py:nets/my.py:Net --input 3xx", 2, "--input 3xx: write it as 1x3x224x224"),
        ("py:nets/my.py:Net --input 1x4x8x8", 1, "to have 3 channels, but got 4 channels"),
        ("py:nets/my.py:Net --input 100000x100000x3x3", 2, "90,000,000,000 values"),
        ("py:nets/my.py:Net --input 1x3x8x8 --input-size 9", 2, "its sizes are those of --input"),
        ("py:nets/my.py:broken", 1, "nets/my.py:39: KeyError: "),
        ("py:nets/my.py:three", 2, "nets/my.py: three returns no torch.nn.Module: int"),
        ("can24 --input 1x3x8x8", 2, "--input 1x3x8x8: it is for py:FILE.py:NAME"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, mine: Path, words: str, code: int, message: str) -> None:
    assert message in cli("count-params", *words.split(), code=code).error


def test_a_file_that_is_not_python_names_its_line(cli: Cli, mine: Path) -> None:
    (mine.parent / "half.py").write_text("a = 1\nclass :\n")
    assert "nets/half.py:2: SyntaxError" in cli("count-params", "py:nets/half.py:A", code=1).error


def test_code_is_run_only_where_it_was_typed(cli: Cli, mine: Path) -> None:
    mine.write_text("from pathlib import Path\nPath('was_run').touch()\n")
    named = f"py:{mine}:Net"
    for key in ("model.name", "task.operator", "data.name"):
        cli("train", "fip_sample", "--set", f"{key}={named}", code=2)
    for words in (
        ["train", named],
        ["train", "fip_sample", "--smoke", "--set", f"init={named}"],
        ["eval", named],
    ):
        assert "is of kind py" in cli(*words, code=2).error
    with pytest.raises(UsageError):
        compressnet.create(named)
    with pytest.raises(UsageError):
        Recipe.load(subject.recipe_path("lm_sample"), [f"model.cell={named}"])
    assert not Path("was_run").exists()


def test_any_module_in_python(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    counted = compressnet.count(module, (torch.rand(1, 3, 8, 8),))
    assert counted.macs == 3 * 4 * 9 * 36
    done = compressnet.compare({"a": lambda: sum(range(10)), "b": lambda: sum(range(2000))})
    assert done.timings[1].ratio.value < 1
    exported = compressnet.export(module, tmp_path / "net.onnx")
    assert exported.parameters == 112
    assert user_module.PREFIX not in subject.KINDS
