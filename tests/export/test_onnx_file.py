"""Files as ONNX Runtime runs them, against the networks that they were made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from compressnet import registry, signature
from compressnet.analysis.fold import fold
from compressnet.errors import CompressnetError, UsageError
from compressnet.export import OPSETS, export
from compressnet.export.check import check, difference
from compressnet.export.interface import Whole, interface
from compressnet.layers.lstm import LSTM
from compressnet.layers.sru import SRU
from compressnet.models import bytenet
from compressnet.models.can import CAN
from tests.analysis.test_forms import Framed

pytestmark = pytest.mark.usefixtures("one_torchlib")

TOLERANCE = 1e-5
SEQUENCES = [(1, 1), (7, 3), (50, 1), (50, 3)]  # steps and sequences; what is traced is neither
IMAGES = [(1, 1, 1), (2, 31, 57), (1, 130, 8), (3, 64, 64), (1, 301, 203)]  # batch, height, width

# Every name of the registry but those that are no networks: arguments small enough to be quick.
SHORT: dict[str, Any] = {"clip_ms": 200, "coefficients": 9, "num_classes": 3}  # of keyword spotters
NAMED: dict[str, dict[str, Any]] = {
    "adaptive_norm": {"channels": 4},
    "batch_norm2d": {"num_features": 3},
    "bytenet": {"vocab_size": 12, "hidden_size": 4, "sets": 1},
    "can24": {},
    "can24_small": {},
    "can32": {"norm": "bn"},
    "chain": {
        "layers": [
            {"layer": "product_linear", "args": {"in_features": 5, "out_features": 2}},
            {"layer": "full_softmax", "args": {"hidden_size": 2, "vocab_size": 12}},
        ]
    },
    "conv1d": {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 1},
    "conv2d": {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1, "stride": 2},
    "conv_transpose2d": {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "groups": 2},
    "dilated_conv2d": {"in_channels": 3, "out_channels": 4, "dilation": 2},
    "embedding": {"num_embeddings": 12, "embedding_dim": 5},
    "factored_embedding": {"num_embeddings": 12, "embedding_dim": 5, "rank": 2},
    "factored_softmax": {"hidden_size": 5, "vocab_size": 12, "rank": 2},
    "full_softmax": {"hidden_size": 5, "vocab_size": 12},
    "kws_bc_resnet": {"num_classes": 3, "tau": 0.25},
    "kws_conv": {**SHORT, "filters": 4},
    "kws_ds_cnn": {"num_classes": 3},
    "kws_low_latency_conv": {**SHORT, "filters": 4, "hidden_size": 5},
    "kws_low_latency_svdf": {**SHORT, "units": 8, "hidden_size": 6},
    "kws_single_fc": SHORT,
    "kws_svdf": {"num_classes": 3, "size": "30k", "norm": True},
    "kws_tiny_conv": SHORT,
    "kws_tiny_embedding_conv": SHORT,
    "language_model": {"vocab_size": 12, "hidden_size": 6, "cell": "torch_lstm"},
    "layer_norm": {"normalized_shape": 5},
    "linear": {"in_features": 5, "out_features": 3},
    "log_mel": {"bands": 5},
    "lstm": {"input_size": 5, "hidden_size": 6},
    "lstm_1997": {"input_size": 5, "blocks": 2, "block_size": 3, "output_size": 2, "biases": "gates"},
    "lstm_1997_network": {"problem": "temporal_order_6b", "input_size": 8, "output_size": 8},
    "lstm_full": {"input_size": 5, "hidden_size": 6, "layer_norm": True, "bidirectional": True},
    "lstmp": {"input_size": 5, "hidden_size": 6, "proj_size": 4, "nonrecurrent_proj_size": 2},
    "mfcc": {"bands": 5, "coefficients": 3},
    "resnet10": {"num_classes": 3, "widths": [4, 6, 8, 10]},
    "resnet18": {"num_classes": 3, "widths": [4, 6, 8, 10]},
    "resnet20": {"num_classes": 3, "widths": [4, 6, 8]},
    "product_linear": {"in_features": 5, "out_features": 3},
    "recurrent_stack": {"cell": "sru", "input_size": 5, "hidden_size": 6},
    "segmenter": {"num_classes": 3, "decoder": "dilation", "width": 0.25},
    "shuffleseg": {"num_classes": 3, "head": "bilinear", "width": 0.25},
    "shuffle_unit": {"in_channels": 12, "out_channels": 24, "stride": 2},
    "sru": {"input_size": 5, "hidden_size": 6},
    "svdf": {"features": 5, "units": 6, "memory": 5, "rank": 2, "activation": "relu"},
    "torch_lstm": {"input_size": 5, "hidden_size": 6, "proj_size": 4, "bidirectional": True},
}
FORMS: dict[str, Callable[[], nn.Module]] = {
    "every switch": lambda: LSTM(
        5, 6, 1, 4, 2, 3, peepholes=True, layer_norm=True, cell_clip=0.6, proj_clip=0.3, biases=2
    ),
    "sru 1, tanh, both ways": lambda: SRU(5, 6, version=1, activation="tanh", bidirectional=True),
    "sru, projected, rescaled": lambda: SRU(6, 6, 1, proj_size=3, rescale=True, highway_bias=-1.0),
}


def lively(module: nn.Module) -> nn.Module:
    """Weights that matter: with those of a fresh layer, much of what it does is near zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim != 4:
                parameter.normal_(0, 0.5)
    return module.eval()


def run(path: Path, *inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(np.asarray(result)) for result in session.run(None, given)]


def assert_close(ours: Tensor, wanted: Tensor) -> None:
    assert ours.dtype == wanted.dtype
    torch.testing.assert_close(ours, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))


def sizes(module: nn.Module) -> list[Tensor]:
    """Inputs of many sizes, with values on both sides of zero."""
    shape = example(module).shape
    if len(shape) == 2 and not example(module).is_floating_point():
        return [torch.randint(12, (t, b)) for t, b in SEQUENCES]  # words
    if len(shape) == 4:
        return [torch.randn(b, shape[1], h, w) for b, h, w in IMAGES]
    if isinstance(module, nn.Conv1d):
        return [torch.randn(b, shape[1], length) for b, length in ((1, 1), (3, 50))]
    if len(shape) == 3:
        return [torch.randn(t, b, shape[2]) for t, b in SEQUENCES]
    return [torch.randn(b, shape[1]) for b in (1, 5, 30)]


def example(module: nn.Module) -> Tensor:
    from compressnet.analysis.example import example as inputs_of

    return inputs_of(module)[0]


def test_every_model_and_layer_is_in_the_table() -> None:
    apart = {"identity", "operator"}
    apart |= {"sequence_classifier", "guided_upsample"}  # they take several inputs: below
    apart |= {"alexnet"}  # its linear layers have one size of maps
    apart |= {"segnet"}  # its maxima hang on the last digit: test_what_hangs_on_the_last_digit_is_refused
    assert {*NAMED, *apart} == {*registry.MODELS, *registry.LAYERS}


def test_a_classifier_with_lengths_as_second_input(tmp_path: Path) -> None:
    arguments = {"vocab_size": 12, "num_classes": 3, "hidden_size": 6, "embedding_size": 5}
    module = lively(signature.build("model", "sequence_classifier", arguments))
    done = export(module, tmp_path / "net.onnx")
    words, lengths = torch.randint(12, (9, 4)), torch.tensor([9, 1, 5, 3])
    with torch.no_grad():
        wanted = module(words, lengths)
    (ours,) = run(done.output, words, lengths)
    assert_close(ours, wanted)


def test_upsampling_with_three_inputs(tmp_path: Path) -> None:
    module: Any = lively(signature.build("layer", "guided_upsample", {"factor": 2, "radius": 2}))
    done = export(module, tmp_path / "net.onnx")
    for batch, *size in IMAGES:
        inputs = module.example(batch, size)
        (ours,) = run(done.output, *inputs)
        assert_close(ours, module(*inputs))


def shallow(name: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network of the tables. An export takes as long as its graph is: of blocks that are alike, few."""
    if name in FORMS:
        return FORMS[name]()
    monkeypatch.setattr(bytenet, "DILATIONS", (1, 16))
    module: nn.Module = signature.build("model" if name in registry.MODELS else "layer", name, NAMED[name])
    if (can := getattr(module, "can", module)) and isinstance(can, CAN):
        del can.blocks[3:-1]  # the dilations 1, 2, 4 and, last, 1: tests of `compressnet export` have all
    if name == "kws_bc_resnet":
        blocks: Any = module.get_submodule("network.blocks")
        del blocks[9:12], blocks[5:8], blocks[3]  # a stage's first has all that its others have
    if name in ("segmenter", "shuffleseg"):
        stages: Any = module.get_submodule("encoder.stages")
        for stage in stages:
            del stage[1:]  # the other units are alike
        return fold(lively(module), (torch.rand(1, 3, 16, 16),))
    return module


@pytest.mark.parametrize("name", [*NAMED, *FORMS])
def test_equals_torch_at_other_sizes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = lively(shallow(name, monkeypatch))
    done = export(module, tmp_path / "net.onnx")
    assert done.difference <= TOLERANCE
    for x in sizes(module):
        with torch.no_grad():
            wanted = module(x)
        (ours,) = run(done.output, x)
        assert_close(ours, wanted if isinstance(wanted, Tensor) else wanted[0])


@pytest.mark.parametrize("name", ["lstmp", "lstm_1997", "sru"])
def test_a_stream_in_pieces_is_the_whole(name: str, tmp_path: Path) -> None:
    module: Any = lively(signature.build("layer", name, NAMED[name]))
    done = export(module, tmp_path / "net.onnx", state=True)
    x = torch.randn(12, 3, 5)
    initial = module.init_state(3)
    state = list(initial) if isinstance(initial, tuple) else [initial]
    assert [port.name for port in done.inputs] == ["input", *(f"state_{i}" for i in range(len(state)))]
    assert [port.name for port in done.outputs] == ["output", *(f"next_state_{i}" for i in range(len(state)))]
    pieces = []
    for piece in x.split([1, 4, 7]):
        y, *state = run(done.output, piece, *state)
        pieces.append(y)
    with torch.no_grad():
        wanted, last = module.step(x, initial)
    assert_close(torch.cat(pieces), wanted)
    for ours, theirs in zip(state, last if isinstance(last, tuple) else [last], strict=True):
        assert_close(ours, theirs)


def test_a_ring_goes_round_frame_by_frame(tmp_path: Path) -> None:
    """Every position of the ring of an SVDF, which its file reads and writes as tensors."""
    module: Any = lively(signature.build("layer", "svdf", NAMED["svdf"]))
    done = export(module, tmp_path / "net.onnx", state=True)
    state, (ring, position) = module.init_state(3), module.init_state(3)
    for frame in torch.randn(2 * module.memory + 1, 3, module.features).split(1):
        ours, ring, position = run(done.output, frame, ring, position)
        with torch.no_grad():
            wanted, state = module.step(frame, state)
        assert_close(ours, wanted)
    assert_close(ring, state[0])
    assert int(position) == int(state[1]) == 2 * module.memory + 1


def test_a_stream_whose_step_has_inputs_of_its_own(tmp_path: Path) -> None:
    module = Framed()
    done = export(module, tmp_path / "net.onnx", state=True)
    assert [(port.name, port.shape) for port in done.inputs] == [
        ("input_0", ("batch", 16)), ("input_1", ("batch",)), ("state_0", ("batch",)),
    ]  # fmt: skip
    x, offset = module.example_step(5)
    state = module.init_state(5)
    for _ in range(2):
        ours, next_state = run(done.output, x, offset, state)
        with torch.no_grad():
            wanted, state = module.step(x, offset, state)
        assert_close(ours, wanted)
        assert_close(next_state, state)


def test_says_what_it_is_and_nothing_of_this_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = export("layer:linear:in_features=5,out_features=3", tmp_path / "net.onnx", opset=OPSETS[-1])
    file = onnx.load(done.output)
    facts = json.loads(next(entry.value for entry in file.metadata_props if entry.key == "compressnet"))
    assert facts["model"] == "linear"
    assert facts["arguments"] == {"in_features": 5, "out_features": 3, "bias": True}
    assert facts["weights"] == "random"
    assert facts["opset"] == file.opset_import[0].version == OPSETS[-1]
    assert str(Path.cwd()).encode() not in done.output.read_bytes()
    assert b".py" not in done.output.read_bytes()
    run(done.output, torch.randn(2, 5))  # whose log is not switched off here
    assert capfd.readouterr() == ("", "")


def test_a_recipe_by_its_path_names_its_model_and_not_the_path(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "lstm_1997_tasks.yaml"
    done = export(str(recipe), tmp_path / "net.onnx")
    assert done.model == "lstm_1997_network"
    assert str(recipe).encode() not in done.output.read_bytes()


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_recurrent_layers_load_without_a_word_in_any_opset(
    opset: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = lively(LSTM(5, 6, coupled_gates=True, peepholes=True, layer_norm=True, biases=0))
    done = export(module, tmp_path / "net.onnx", opset=opset)
    x = torch.randn(9, 2, 5)
    with torch.no_grad():
        assert_close(run(done.output, x)[0], module(x)[0])
    assert capfd.readouterr() == ("", "")
    file = onnx.load(done.output)
    assert [node.op_type for node in file.graph.node].count("Scan") == 1


def test_the_same_network_gives_the_same_file_and_stays_as_it_was(tmp_path: Path) -> None:
    module = signature.build("layer", "linear", NAMED["linear"]).train()
    before = torch.random.get_rng_state()
    files = [export(module, tmp_path / name).output.read_bytes() for name in ("a.onnx", "b.onnx")]
    assert files[0] == files[1]
    assert module.training
    assert torch.equal(torch.random.get_rng_state(), before)


class Sequence(nn.Module):
    """Sequences (T, B, 3)."""

    def example(self, batch: int = 1, size: int = 35) -> tuple[Tensor]:
        if not isinstance(size, int):
            raise ValueError("takes a number of steps")
        return (torch.rand(size, batch, 3),)


class Cancelling(nn.Module):
    """Large numbers that cancel: torch itself is off by more than the tolerance."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight - weight.mean(1, keepdim=True))

    def example(self, batch: int = 1, size: None = None) -> tuple[Tensor]:
        return (torch.rand(batch, 512),)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x + 200, self.weight)


def test_what_float32_costs_torch_is_allowed(tmp_path: Path) -> None:
    done = export(Cancelling(), tmp_path / "net.onnx")
    assert TOLERANCE < done.difference < 1e-3


class LastDigit(Sequence):
    """The parity of the seventh digit."""

    def forward(self, x: Tensor) -> Tensor:
        return (torch.exp(x) * 4e6).floor() % 2


def test_what_hangs_on_the_last_digit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match=r"in torch itself float32 is 1\.0e\+00 off float64"):
        export(LastDigit(), tmp_path / "net.onnx")


class Otherwise(Sequence):
    """Computes something else when exported."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-4 if torch.compiler.is_exporting() else x


class Frozen(Sequence):
    """Takes one number of steps and no other, that of the trace."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(35, 1, 1)


class Values(Sequence):
    """Its path depends on values, which nobody can trace."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Otherwise(),
            r"Otherwise: at 35x2x3 ONNX Runtime differs from torch by 1.0e-04 of the largest value",
        ),
        (Frozen(), r"Frozen: a size that must stay open is frozen"),
        (Values(), r"Values: torch cannot export it to ONNX: "),
        (nn.Linear(2, 3).double(), r"Linear: it is float64"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_be_exported_says_so_and_leaves_no_file(
    module: nn.Module, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CompressnetError, match=message) as raised:
        export(module, tmp_path / "net.onnx")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("module", "state", "message"),
    [
        (SRU(3, 4, bidirectional=True), True, "bidirectional layers cannot stream"),
        (nn.Linear(2, 3), True, "Linear carries no state from step to step"),
        (nn.Identity(), False, "Identity: nothing says what it takes"),
        (nn.Conv2d(3, 4, 60), False, r"Conv2d: for \(2, 3, 64, 48\) it says"),
    ],
    ids=["both ways", "no state", "no example", "too small"],
)
def test_modules_that_are_not_for_it(module: nn.Module, state: bool, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        export(module, tmp_path / "net.onnx", state=state)


def test_a_file_that_is_damaged_or_fails_at_another_size_is_refused(tmp_path: Path) -> None:
    file = export(nn.Linear(5, 3), tmp_path / "net.onnx").output.read_bytes()
    given = interface(nn.Linear(5, 3))
    with pytest.raises(CompressnetError, match="net: what torch writes for it is refused: "):
        check("net", file[:-9], given, TOLERANCE)
    takes_all = replace(given, network=Whole(nn.Identity()), others=((torch.rand(2, 7),),))
    with pytest.raises(CompressnetError, match="net: its file works at 2x5 and not at 2x7: .*freeze a size"):
        check("net", file, takes_all, TOLERANCE)


def test_difference_is_relative_to_the_largest_value() -> None:
    wanted = np.array([1.0, -4.0], np.float32)
    off = np.array([1.5, -4.0], np.float32)
    assert difference([off], [wanted], [4.0]) == 0.125
    assert difference([off], [wanted], [8.0]) == 0.0625
    assert difference([off], [0 * wanted], [0.0]) == 4.0
    for other in (off[:1], off.astype(np.float64), off * np.nan):
        assert difference([other], [wanted], [4.0]) == float("inf")
    assert difference([off], [wanted * np.nan], [float("inf")]) == float("inf")
