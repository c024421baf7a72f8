"""The formulas against the papers' figures, against counts written out by hand and against torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressnet import cost, cost_cells
from compressnet.cost import Term, evaluate, total

SAK = [  # cells, projection, layers, without and with biases; 40 inputs, 14,247 outputs
    (840, 0, 5, 37_516_080, 37_547_127),
    (440, 0, 5, 13_315_280, 13_338_327),
    (600, 0, 2, 12_967_800, 12_986_847),
    (385, 0, 7, 13_262_480, 13_287_507),
    (750, 0, 1, 13_057_500, 13_074_747),
    (6000, 800, 1, 36_375_600, 36_413_847),
    (2048, 512, 2, 22_314_496, 22_345_127),
    (1024, 512, 3, 19_526_144, 19_552_679),
    (1024, 512, 2, 14_804_480, 14_826_919),
    (800, 512, 2, 13_161_664, 13_182_311),
    (2048, 512, 1, 12_871_168, 12_893_607),
]


@pytest.mark.parametrize(("cells", "projection", "layers", "without", "with_biases"), SAK)
def test_every_network_of_sak_2014(
    cells: int, projection: int, layers: int, without: int, with_biases: int
) -> None:
    if projection:
        terms = cost_cells.lstmp(hidden_size=cells, proj_size=projection, num_layers=layers)
    else:
        terms = cost_cells.lstm(hidden_size=cells, num_layers=layers)
    assert total(terms, "parameters", biases=False) == without
    assert total(terms, "parameters") == with_biases
    assert total(terms, "macs") == without  # each weight is used once a step


ARXIV = {  # outputs: c512, c1024_r256, c1024_r128_p128, c2048_r512, c2048_r256_p256
    126: (1_196_544, 1_509_888, 985_600, 5_641_216, 3_544_064),
    2000: (2_156_032, 1_989_632, 1_465_344, 6_600_704, 4_503_552),
    8000: (5_228_032, 3_525_632, 3_001_344, 9_672_704, 7_575_552),
}


@pytest.mark.parametrize("outputs", ARXIV)
def test_the_table_of_the_arxiv_version(outputs: int) -> None:
    plain = cost_cells.lstm(hidden_size=512, output_size=outputs)
    projected = [
        cost_cells.lstmp(hidden_size=c, proj_size=r, nonrecurrent_proj_size=p, output_size=outputs)
        for c, r, p in ((1024, 256, 0), (1024, 128, 128), (2048, 512, 0), (2048, 256, 256))
    ]
    assert tuple(total(terms, "parameters", biases=False) for terms in (plain, *projected)) == ARXIV[outputs]


def test_the_papers_formulas_read_as_in_the_paper() -> None:
    def summands(terms: list[Term]) -> list[str]:
        return [term.formula for term in terms if term.kind == "parameters" and not term.is_bias]

    assert summands(cost_cells.lstm()) == ["n_c·n_c·4", "n_i·n_c·4", "n_c·n_o", "n_c·3"]
    assert summands(cost_cells.lstmp()) == ["n_c·n_r·4", "n_i·n_c·4", "n_r·n_o", "n_c·n_r", "n_c·3"]
    recurrent = cost_cells.lstmp()[0]
    assert (recurrent.substituted, recurrent.value) == ("2048·512·4", 4_194_304)


@pytest.mark.parametrize(
    ("inputs", "blocks", "size", "outputs", "biases", "weights"),
    [
        (7, 4, 1, 7, "gates", 264),
        (7, 3, 2, 7, "gates", 276),
        (2, 2, 2, 1, "all", 93),
        (8, 2, 2, 4, "all", 156),
        (8, 3, 2, 8, "all", 308),
        (1, 3, 1, 1, "hidden", 102),
        (50 + 4, 2, 1, 2, "none", 364),
        (100 + 4, 2, 1, 2, "none", 664),
        (200 + 4, 2, 1, 2, "none", 1264),
        (500 + 4, 2, 1, 2, "none", 3064),
        (1000 + 4, 2, 1, 2, "none", 6064),
    ],
)
def test_the_tasks_of_1997(
    inputs: int, blocks: int, size: int, outputs: int, biases: Any, weights: int
) -> None:
    assert total(cost_cells.lstm_1997(inputs, blocks, size, outputs, biases), "parameters") == weights


PTB = 10_000


@pytest.mark.parametrize(
    ("layers", "width", "parameters"),
    [(6, 910, 24_037_640), (5, 980, 24_235_600), (4, 1060, 24_110_160), (3, 1180, 24_355_760)],
)
def test_sru_language_models_of_words(layers: int, width: int, parameters: int) -> None:
    recurrent = cost_cells.sru(width, width, output_size=0, num_layers=layers)
    tied = cost.embedding(PTB, width)  # which is the output matrix too; it has a bias of its own
    assert total([*recurrent, *tied], "parameters") + PTB == parameters


def test_lstm_language_model_of_words() -> None:
    recurrent = cost.recurrent(4, 950, 950, num_layers=2)
    assert total([*recurrent, *cost.embedding(PTB, 950)], "parameters") + PTB == 23_965_200


@pytest.mark.parametrize(
    ("layers", "width", "projection", "embedded", "parameters"),
    [
        (8, 1312, 0, 205, 37_577_238),
        (10, 1152, 0, 205, 37_100_918),
        (8, 3056, 512, 205, 47_083_238),  # the first layer's 205 inputs are too few to project
        (12, 2048, 512, 256, 48_805_325),
    ],
)
def test_sru_language_models_of_characters(
    layers: int, width: int, projection: int, embedded: int, parameters: int
) -> None:
    recurrent = cost_cells.sru(embedded, width, projection, output_size=205, num_layers=layers)
    assert total([*recurrent, *cost.embedding(205, embedded)], "parameters") == parameters


def test_text_classification() -> None:
    assert total(cost.recurrent(4, 300, 128, num_layers=2), "parameters") == 352_256
    sizes = [
        total(cost_cells.sru(300, 128, output_size=0, num_layers=layers), "parameters")
        for layers in (2, 4, 8)
    ]
    assert sizes == [203_776, 303_104, 501_760]


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_size": 40, "hidden_size": 512},
        {"input_size": 40, "hidden_size": 1024, "proj_size": 256},
        {"input_size": 7, "hidden_size": 9, "num_layers": 3, "bidirectional": True},
        {"input_size": 7, "hidden_size": 9, "num_layers": 2, "bidirectional": True, "proj_size": 4},
        {"input_size": 7, "hidden_size": 9, "bias": False},
    ],
)
def test_recurrent_is_torchs_lstm(arguments: dict[str, Any]) -> None:
    stored = sum(parameter.numel() for parameter in nn.LSTM(**arguments, device="meta").parameters())
    assert total(cost.recurrent(4, **arguments), "parameters") == stored
    known = {512: 1_134_592, 1024: 1_482_752}
    assert stored == known.get(arguments["hidden_size"], stored)


@pytest.mark.parametrize(("gates", "kind"), [(3, nn.GRU), (1, nn.RNN)])
def test_recurrent_is_torchs_gru_and_rnn(gates: int, kind: type[nn.RNNBase]) -> None:
    layer: Any = kind
    stored = sum(p.numel() for p in layer(6, 5, num_layers=2, bidirectional=True).parameters())
    assert total(cost.recurrent(gates, 6, 5, 2, bidirectional=True), "parameters") == stored


def test_the_papers_count_and_torchs_differ_by_biases_and_peepholes() -> None:
    papers = total(cost_cells.lstm(40, 512, output_size=0), "parameters", biases=False)
    torchs = total(cost.recurrent(4, 40, 512), "parameters")
    assert papers == torchs - 8 * 512 + 3 * 512


@pytest.mark.parametrize(
    ("layer", "terms"),
    [
        (nn.Conv2d(8, 12, (3, 5), groups=4), cost.convolution(8, 12, (3, 5), (1, 1), groups=4)),
        (nn.Conv1d(3, 4, 7, bias=False), cost.convolution(3, 4, (7,), (1,), bias=False)),
        (nn.ConvTranspose3d(4, 6, 2, groups=2), cost.convolution(4, 6, (2, 2, 2), (1, 1, 1), groups=2)),
        (nn.Linear(3, 5), cost.linear(3, 5)),
        (nn.Linear(3, 5, bias=False), cost.linear(3, 5, bias=False)),
        (nn.Embedding(10, 3), cost.embedding(10, 3)),
    ],
)
def test_single_layers_store_what_the_formula_says(layer: nn.Module, terms: list[Term]) -> None:
    assert total(terms, "parameters") == sum(parameter.numel() for parameter in layer.parameters())


def test_work_of_single_layers() -> None:
    assert total(cost.convolution(8, 12, (3, 5), (10, 20), batch=2, groups=4), "macs") == (
        2 * 10 * 20 * 12 * (8 // 4) * 3 * 5
    )
    assert total(cost.linear(3, 5, rows=7), "macs") == 7 * 3 * 5
    assert total(cost.embedding(10, 3, rows=7), "lookups") == 7
    assert total(cost.embedding(10, 3, rows=7), "macs") == 0


# ---- whatever the sizes

SIZES = st.integers(1, 300)


def _lstm_by_hand(inputs: int, cells: int, outputs: int, layers: int, peepholes: bool) -> int:
    count = 0
    for _ in range(layers):
        count += 4 * cells * cells + 4 * inputs * cells + (3 * cells if peepholes else 0)
        inputs = cells
    return count + cells * outputs


@given(SIZES, SIZES, st.integers(0, 300), st.integers(1, 5), st.booleans())
def test_stacked_lstm(inputs: int, cells: int, outputs: int, layers: int, peepholes: bool) -> None:
    terms = cost_cells.lstm(inputs, cells, outputs, layers, peepholes)
    by_hand = _lstm_by_hand(inputs, cells, outputs, layers, peepholes)
    assert total(terms, "parameters", biases=False) == by_hand
    assert total(terms, "parameters") == by_hand + 4 * cells * layers + outputs
    assert total(terms, "state") == 2 * cells * layers
    assert total([term for term in terms if not term.traced], "macs") == 3 * cells * layers * peepholes


@given(SIZES, st.integers(3, 300), st.data(), st.integers(1, 5))
def test_stacked_lstmp(inputs: int, cells: int, data: st.DataObject, layers: int) -> None:
    recurrent = data.draw(st.integers(1, cells - 1))
    other = data.draw(st.integers(0, cells - 1))
    count, width = 0, inputs
    for _ in range(layers):
        count += 4 * cells * recurrent + 4 * width * cells + cells * (recurrent + other) + 3 * cells
        width = recurrent + other
    terms = cost_cells.lstmp(inputs, cells, recurrent, other, 17, layers)
    assert total(terms, "parameters", biases=False) == count + width * 17
    assert total(terms, "parameters") == count + width * 17 + 4 * cells * layers + 17


@given(SIZES, SIZES, st.data(), st.integers(1, 5), st.sampled_from([1, 2]), st.booleans())
def test_stacked_sru(
    inputs: int, cells: int, data: st.DataObject, layers: int, version: Any, both: bool
) -> None:
    proj = data.draw(st.integers(0, cells - 1))
    width, out, count = inputs, cells * (2 if both else 1), 0
    for _ in range(layers):
        matrices = 3 if width == out else 4
        if 0 < proj < width:
            count += width * proj + proj * out * matrices
        else:
            count += width * out * matrices
        count += 2 * out + (2 * out if version == 2 else 0)  # biases, v
        width = out
    terms = cost_cells.sru(inputs, cells, proj, 0, layers, version, both)
    assert total(terms, "parameters") == count


def _everything(a: int, b: int, c: int, layers: int, flag: bool) -> list[Term]:
    """Terms of all formulas for some sizes."""
    makers: list[Callable[[], list[Term]]] = [
        lambda: cost_cells.lstm(a, b, c, layers, flag),
        lambda: cost_cells.lstmp(a, b + c, b, c - 1, a, layers, flag),
        lambda: cost_cells.lstm_1997(a, b, c, layers, "all" if flag else "none"),
        lambda: cost_cells.sru(a, b + c, c, a, layers, 2 if flag else 1, flag),
        lambda: cost.recurrent(4, a, b + 1, layers, proj_size=b, bias=flag, bidirectional=flag, steps=c),
        lambda: cost.convolution(a * layers, b * layers, (3, 2), (c, 5), batch=2, groups=layers, bias=flag),
        lambda: cost.linear(a, b, rows=c, bias=flag),
        lambda: cost.embedding(a, b, rows=c),
    ]
    return [term for make in makers for term in make()]


@settings(max_examples=50)
@given(SIZES, SIZES, SIZES, st.integers(1, 4), st.booleans())
def test_formula_and_numbers_in_it_have_the_value(a: int, b: int, c: int, layers: int, flag: bool) -> None:
    for term in _everything(a, b, c, layers, flag):
        assert term.value == evaluate(term.formula, term.symbols) == evaluate(term.substituted, {})
        by_python = eval(term.formula.replace("·", "*").replace("/", "//"), {}, dict(term.symbols))
        assert term.value == by_python
        assert term.value >= 0
        assert not any(symbol in term.substituted for symbol in ("n_", "_"))
        repeated = term.times({"again": 7}, term.kind, traced=term.traced)
        assert repeated.value == 7 * term.value
        assert repeated.traced == term.traced


# ---- mistakes


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("n_c·n_x", "n_x"),
        ("n_c/3", "n_c / 3"),
        ("n_c//2", "n_c // 2"),
        ("n_c % 2", "n_c % 2"),
        ("-n_c", "-n_c"),
        ("n_c·1.5", "1.5"),
        ("True", "True"),
        ("abs(n_c)", "abs"),
        ("n_c if n_c else 0", "if"),
        ("__import__('os')", "__import__"),
    ],
)
def test_what_is_no_formula_raises(formula: str, message: str) -> None:
    with pytest.raises(ValueError, match="cannot evaluate") as error:
        evaluate(formula, {"n_c": 4})
    assert message in str(error.value)


@pytest.mark.parametrize("formula", ["n_c·", "(n_c", "n_c n_c", ""])
def test_what_is_no_expression_raises(formula: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        evaluate(formula, {"n_c": 4})


def test_division_and_power() -> None:
    assert evaluate("n_c/2·3", {"n_c": 4}) == 6
    assert evaluate("(n_c+1)**2-n_c", {"n_c": 4}) == 21


@pytest.mark.parametrize("key", ["proj_size", "nonrecurrent_proj_size"])
def test_a_projection_must_be_narrower_than_the_cells(key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' 2048 must be smaller than 'hidden_size' 2048"):
        cost_cells.lstmp(**{key: 2048})  # type: ignore[arg-type]


def test_the_inner_width_of_sru_must_be_narrower_than_the_cells() -> None:
    with pytest.raises(ValueError, match="'proj_size' 2048 must be smaller than 'hidden_size' 2048"):
        cost_cells.sru(proj_size=2048)


def test_formulas_need_no_torch() -> None:
    code = "import sys; from compressnet import cost_cells as c; c.lstm(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_kinds_are_summed_apart() -> None:
    terms = cost.linear(3, 5, rows=2)
    assert [total(terms, kind) for kind in ("parameters", "macs", "elementwise")] == [20, 30, 0]
    assert total(terms, "parameters", biases=False) == 15
