from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.analysis.count import Count, count, rate_of, ties_of
from compressnet.cost import Term
from compressnet.errors import CompressnetError


class Peepholes(nn.Module):
    """A product torch sees and one that is elementwise to it; the formula has errors to order."""

    def __init__(self, wrong_macs: int = 0, wrong_parameters: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 4))
        self.peephole = nn.Parameter(torch.rand(4))
        self.wrong_macs, self.wrong_parameters = wrong_macs, wrong_parameters

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + x * self.peephole

    def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
        symbols = {"N": input_shape[0], "n": 4, "e": self.wrong_macs, "p": self.wrong_parameters}
        return [
            Term("parameters", "weights", "n·n+p", symbols),
            Term("parameters", "peepholes", "n", symbols),
            Term("macs", "weights", "N·n·n+e", symbols),
            Term("macs", "peepholes", "N·n", symbols, traced=False),
        ]


class Net(nn.Module):
    """Layers, a product of its own, a layer in a layer with a formula, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Peepholes())
        self.head = nn.ModuleDict({"out": nn.Linear(4, 2)})
        self.idle = nn.Linear(4, 3)
        self.register_buffer("scale", torch.ones(5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head["out"](y) + (y @ y.t())[:, :2]


X = torch.rand(3, 4)


@pytest.fixture(scope="module")
def counted() -> Count:
    return count(Net(), (X,))


def test_rows_are_the_tree_and_sum_up(counted: Count) -> None:
    rows = {layer.path: layer for layer in counted.layers}
    assert list(rows) == ["", "body", "body.0", "body.1", "body.2", "head", "head.out", "idle"]
    assert [layer.depth for layer in counted.layers] == [0, 1, 2, 2, 2, 1, 2, 1]
    assert rows["body.0"].type == "Linear"
    assert counted.parameters == 20 + 20 + 10 + 15
    assert counted.bytes == 4 * 65
    assert (rows[""].buffers, rows[""].buffer_bytes) == (5, 40)
    assert counted.dtypes == {"float32": 260, "float64": 40}
    assert {path: layer.macs for path, layer in rows.items() if layer.macs} == {
        "": 3 * 3 * 4,
        "body.0": 3 * 16,
        "body.2": 3 * 16 + 3 * 4,
        "head.out": 3 * 8,
    }
    assert counted.macs == 36 + 48 + 60 + 24
    assert counted.flops == 2 * counted.macs
    assert counted.total("macs_trace") == counted.macs - 12
    assert counted.total("biases") == 4 + 2  # a layer that does not run has no formula


def test_products_torch_cannot_see_are_counted_and_agree(counted: Count) -> None:
    row = next(layer for layer in counted.layers if layer.path == "body.2")
    assert (row.macs_formula, row.macs_untraced, row.macs_trace) == (60, 12, 48)
    assert row.agrees
    assert counted.problems == ["Net: 36 MACs in aten.mm have no formula"]


def test_what_runs_and_what_does_not(counted: Count) -> None:
    assert {layer.path: layer.calls for layer in counted.layers} == {
        "": 1, "body": 1, "body.0": 1, "body.1": 1, "body.2": 1, "head": 0, "head.out": 1, "idle": 0
    }  # fmt: skip
    assert {layer.path: layer.activations for layer in counted.layers if layer.activations} == {
        "body.0": 12, "body.1": 12, "body.2": 12, "head.out": 6
    }  # fmt: skip
    assert next(layer for layer in counted.layers if layer.path == "body.1").terms == ()


def test_rows_fold(counted: Count) -> None:
    folded = {layer.path: layer for layer in counted.folded(1)}
    assert list(folded) == ["", "body", "head", "idle"]
    body = folded["body"]
    assert (body.type, body.parameters, body.macs, body.macs_formula, body.macs_trace) == (
        "Sequential", 40, 108, 108, 96
    )  # fmt: skip
    assert body.agrees
    assert counted.folded(9) == list(counted.layers)
    (whole,) = counted.folded(0)
    assert (whole.type, whole.parameters, whole.macs, whole.activations) == ("Net", 65, 168, 42)
    assert not whole.agrees


@pytest.mark.parametrize(
    ("module", "problems"),
    [
        (Peepholes(), []),
        (Peepholes(wrong_macs=1200), ["0: formula 1,248 MACs, trace 48"]),
        (Peepholes(wrong_parameters=1000), ["0: formula 1,020 parameters, stored 20"]),
    ],
)
def test_formulas_are_checked(module: nn.Module, problems: list[str]) -> None:
    assert count(nn.Sequential(module), (X,)).problems == problems
    named = [problem.replace("0: ", "Peepholes: ") for problem in problems]
    assert count(module, (X,)).problems == named


def test_unknown_operations_are_told_with_their_module() -> None:
    class Inverse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.inv(x) @ x

    net = nn.Sequential()
    net.add_module("attention", Inverse())
    assert count(net, (torch.eye(4),)).problems == [
        "attention: operation aten.linalg_inv_ex is unknown: it may hide MACs",
        "attention: 64 MACs in aten.mm have no formula",
    ]


def test_a_formula_answers_for_the_layers_in_it() -> None:
    class Whole(nn.Sequential):
        def cost(self, input_shape: tuple[int, ...]) -> list[Term]:
            return [
                Term("parameters", "both", "2·20", {}),
                Term("macs", "both", "N·2·16", {"N": input_shape[0]}),
            ]

    inner = nn.Linear(4, 4)
    counted = count(nn.Sequential(Whole(nn.Linear(4, 4), inner), nn.ReLU()), (X,))
    assert [layer.path for layer in counted.layers] == ["", "0", "1"]
    assert counted.problems == []
    again = count(nn.Sequential(Whole(nn.Linear(4, 4), inner), inner), (X,))  # used outside of it as well
    assert {layer.path: (layer.parameters, layer.macs) for layer in again.layers} == {
        "": (0, 0), "0": (40, 96), "0.1": (0, 48)
    }  # fmt: skip


def test_calls_with_other_sizes_add_up() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).sum() + self.conv(x[:, :, ::2]).sum() + self.conv(x).sum()

    counted = count(Pyramid(), (torch.rand(1, 3, 6, 5),))
    assert counted.problems == []
    assert counted.macs == 12 * (30 + 15 + 30)
    (conv,) = (layer for layer in counted.layers if layer.terms)
    assert [term.value for term in conv.terms or () if term.kind == "macs"] == [2 * 12 * 30, 12 * 15]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_that_is_shared_is_counted_once(device: str) -> None:
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            flat = torch.zeros(20, device=device)
            self.whole = nn.Parameter(flat)
            self.part = nn.Parameter(flat[5:9])
            self.alone = nn.Parameter(torch.zeros(3, device=device))

        def forward(self, x: Tensor) -> Tensor:
            return x

    module = Shares()
    assert count(module, (X,)).parameters == 23
    assert ties_of(module) == [("whole", "part")]


def test_rates() -> None:
    class Audio(nn.Module):
        sample_rate = 16_000

    packed = nn.utils.rnn.pack_padded_sequence(torch.rand(5, 2, 4), torch.tensor([5, 2]))
    anything: Any = nn.Identity()
    for module, x, expected in (
        (anything, torch.rand(2, 3, 500, 1000), ("megapixel", 1.0)),
        (anything, torch.zeros(35, 2, dtype=torch.long), ("token", 70)),
        (anything, torch.rand(35, 2, 8), ("step", 70)),
        (anything, packed, ("step", 7)),
        (anything, torch.rand(2, 8), ("sample", 2)),
        (anything, torch.rand(8), ("sample", 1)),
        (nn.Conv1d(3, 4, 1), torch.rand(2, 3, 50), ("sample", 2)),
        (Audio(), torch.rand(2, 24_000), ("second of audio", 3.0)),
        (anything, 3, ("sample", 1)),
    ):
        assert rate_of(module, (x,)) == expected


def test_json(counted: Count) -> None:
    data = json.loads(json.dumps(counted.as_dict()))
    assert data["parameters"] == 65
    assert (data["macs"], data["flops"], data["macs_per_unit"]) == (168, 336, 56)
    assert (data["unit"], data["amount"], data["device"]) == ("sample", 3, "meta")
    row = next(row for row in data["layers"] if row["path"] == "body.2")
    assert row["agrees"] is True
    assert row["terms"][2] == {
        "kind": "macs",
        "name": "weights",
        "formula": "N·n·n+e",
        "substituted": "3·4·4+0",
        "value": 48,
    }


def test_a_module_that_cannot_run_is_one_line() -> None:
    with pytest.raises(CompressnetError, match="Net: cannot be run to be counted: RuntimeError"):
        count(Net(), (torch.rand(3, 5),))
