from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from compressnet.analysis import operations, trace
from compressnet.analysis.trace import Trace, Work
from compressnet.cost import Term
from compressnet.errors import CompressnetError, UsageError

HIDDEN = torch.library.custom_op(
    "compressnet_test::hidden", lambda x: x @ x, mutates_args=(), schema="(Tensor x) -> Tensor"
)
OPEN = torch.library.custom_op(
    "compressnet_test::open", lambda x: x @ x, mutates_args=(), schema="(Tensor x) -> Tensor"
)
OPEN.register_fake(lambda x: x.new_empty(x.shape))


@register_flop_formula(torch.ops.compressnet_test.open)
def _flops(x: Any, *arguments: Any, out_shape: Any = None, **keywords: Any) -> int:
    return 2 * x[0] * x[0] * x[0]


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def whole(done: Trace) -> Work:
    """What all modules did."""
    work = Work()
    for visits in done.visits.values():
        work.add(visits.work)
    return work


@pytest.fixture(params=["meta", "cpu"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it runs: as ever, or as if the module needed values."""
    if request.param == "cpu":

        def needs_values(*arguments: object) -> None:
            raise NotImplementedError("it needs values")

        monkeypatch.setattr(trace, "_run_on_meta", needs_values)
    place: str = request.param
    return place


V, W, M, N, B, C = (
    torch.rand(4), torch.rand(4), torch.rand(3, 4), torch.rand(4, 5), torch.rand(2, 3, 4), torch.rand(2, 4, 5)
)  # fmt: skip
Q = torch.rand(2, 4, 8, 16)


@pytest.mark.parametrize(
    ("function", "inputs", "macs"),
    [
        (torch.dot, (V, W), 4),
        (torch.vdot, (V, W), 4),
        (torch.mv, (M, V), 3 * 4),
        (lambda m, v: torch.addmv(torch.zeros(3, device=m.device), m, v), (M, V), 3 * 4),
        (torch.mm, (M, N), 3 * 4 * 5),
        (torch.bmm, (B, C), 2 * 3 * 4 * 5),
        (torch.matmul, (B, N), 2 * 3 * 4 * 5),
        (lambda b, c: torch.addbmm(b.new_zeros(3, 5), b, c), (B, C), 2 * 3 * 4 * 5),
        (lambda m, n: m.new_zeros(3, 5).addmm_(m, n), (M, N), 3 * 4 * 5),
        (lambda b, c: b.new_zeros(2, 3, 5).baddbmm_(b, c), (B, C), 2 * 3 * 4 * 5),
        (lambda m, n: torch.mm(m, n, out=m.new_empty(3, 5)), (M, N), 3 * 4 * 5),
        (lambda v, w: torch.addr(v.new_zeros(4, 4), v, w), (V, W), 4 * 4),
        (torch.inner, (M, torch.rand(5, 4)), 3 * 4 * 5),
        (lambda m, n: torch.tensordot(m, n, 1), (M, N), 3 * 4 * 5),
        (lambda m, n: torch.einsum("ij,jk->ki", m, n), (M, N), 3 * 4 * 5),
        (lambda b, c: torch.einsum("bij,bjk->bk", b, c), (B, C), 2 * 4 * 5),
        (lambda m, n: torch.linalg.multi_dot([m, n, n.t()]), (M, N), 3 * 4 * 5 + 3 * 5 * 4),
        (lambda q: F.scaled_dot_product_attention(q, q, q), (Q,), 2 * 4 * 8 * 8 * (16 + 16)),
        (lambda q: F.affine_grid(q[:, 0, :2, :3], [2, 1, 6, 7]), (Q,), 2 * 6 * 7 * 2 * 3),
        (lambda m: F.bilinear(m, m, m.new_zeros(5, 4, 4)), (M,), 3 * 5 * 4 * 4),
        (OPEN, (torch.rand(4, 4),), 4 * 4 * 4),
    ],
)
def test_products_of_all_kinds(function: Any, inputs: tuple[Tensor, ...], macs: int, place: str) -> None:
    done = trace.trace(Apply(function), inputs)
    assert done.device == place
    assert whole(done).macs.total() == macs
    assert not whole(done).unknown


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc, torch.sparse_coo])
def test_sparse_products(layout: torch.layout) -> None:
    dense = torch.zeros(5, 4)
    dense[0, 0] = dense[2, 1] = dense[4, 3] = 1
    sparse = dense.to_sparse(layout=layout)
    for function, macs in (
        (lambda x: sparse @ x, 3 * 6),
        (lambda x: torch.sparse.mm(sparse, x), 3 * 6),
        (lambda x: torch.addmm(torch.zeros(5, 6), sparse, x), 3 * 6),
        (lambda x: sparse @ x[:, 0], 3),
        (lambda x: F.linear(x.t(), sparse), 3 * 6),
    ):
        done = trace.trace(Apply(function), (torch.rand(4, 6),))
        assert whole(done).macs.total() == macs
        assert done.device == "cpu"
    two = whole(trace.trace(Apply(lambda x: sparse @ sparse.t()), (torch.rand(1),)))
    assert (two.macs, set(two.unknown)) == ({}, {"aten.mm"})


def test_sparse_without_values_is_no_zero() -> None:
    module = nn.Module()
    module.register_buffer("table", torch.eye(4).to_sparse_csr().to("meta"))
    with pytest.raises(CompressnetError, match="cannot be counted on meta: it holds sparse matrices"):
        trace.trace(module, (torch.rand(4),))


def test_elementwise_reductions_lookups_and_moves(place: str) -> None:
    x, rows = torch.rand(3, 4), torch.tensor([0, 2])
    for function, elementwise, lookups in (
        (lambda x: (x + 1).relu_() * 2, 36, 0),
        (lambda x: x.eq_(x).masked_fill_(x > 0, 1), 36, 0),
        (lambda x: x.sum(0) + x.amax(1).max(), 12 + 12 + 3 + 4, 0),
        (lambda x: torch.max(x, x), 12, 0),
        (lambda x: x.softmax(0), 12, 0),
        (lambda x: F.avg_pool2d(x[None, None], 2), 12, 0),
        (lambda x: torch.cat([x.t().reshape(3, 4).flip(0), x]).clone()[1:, 2:], 0, 0),
        (lambda x: x.new_zeros(9).copy_(x.flatten()[:9]), 0, 0),
    ):
        work = whole(trace.trace(Apply(function), (x,)))
        assert (work.elementwise, work.lookups, work.macs, work.unknown) == (elementwise, lookups, {}, {})
    for look_up, count in (
        (lambda x, rows: x[rows], 2),
        (lambda x, rows: x[rows, rows[:, None]], 4),
        (lambda x, rows: x.index_select(1, rows), 2),
        (lambda x, rows: x.gather(1, rows[:, None].expand(2, 3)), 6),
        (lambda x, rows: torch.take(x, rows), 2),
        (lambda x, rows: F.embedding(rows, x), 2),
    ):
        work = whole(trace.trace(Apply(look_up), (x, rows)))
        assert (work.elementwise, work.lookups, work.unknown) == (0, count, {})
    bag = whole(trace.trace(Apply(lambda x, rows: F.embedding_bag(rows[None], x)), (x, rows)))
    assert (bag.elementwise, bag.lookups) == (2 * 4, 2)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (HIDDEN, "compressnet_test.hidden"),
        (torch.linalg.inv, "aten.linalg_inv_ex"),
        (torch.fft.rfft, "aten._fft_r2c"),
        (lambda x: torch.cdist(x, x, p=1.0), "aten._cdist_forward"),
        (lambda x: torch.from_numpy(x.numpy() @ x.numpy()), "Tensor.numpy"),
        (lambda x: torch.tensor(x.tolist()), "Tensor.tolist"),
    ],
)
def test_what_may_hide_products_is_unknown(function: Any, name: str) -> None:
    work = whole(trace.trace(Apply(function), (torch.rand(4, 4),)))
    assert name in work.unknown
    assert work.macs.total() == 0


def test_a_known_sort_needs_no_formula_and_a_product_is_no_sort() -> None:
    aten = torch.ops.aten
    assert operations.sort_of(aten.add_.Tensor) == "elementwise"
    assert operations.sort_of(aten.max.other) == "elementwise"
    assert operations.sort_of(aten.max.dim) == "reduction"
    assert operations.sort_of(aten.clone.default) == "move"  # which torch calls pointwise
    for name in ("mm", "addmm", "bmm", "convolution", "linalg_solve", "_cdist_forward", "mkldnn_rnn_layer"):
        packet = getattr(aten, name)
        assert operations.sort_of(getattr(packet, packet.overloads()[0])) is None


def test_every_listed_operation_is_one_of_torchs() -> None:
    missing = [name for name in operations._SORTS if not hasattr(torch.ops.aten, name.removesuffix("_"))]
    missing = [name for name in missing if not hasattr(torch.ops.aten, f"{name}_")]
    assert not missing
    assert not set(operations._SORTS) & {*operations._PRODUCTS, *operations._OTHERS}


# ---- fused kernels


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("in_inference_mode", [False, True])
def test_fused_recurrent_layers(kind: Any, in_inference_mode: bool, place: str) -> None:
    layer, x = kind(6, 5, num_layers=2), torch.rand(7, 2, 6)
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    macs = 7 * 2 * gates * 5 * (6 + 5 + 5 + 5)
    with torch.inference_mode(in_inference_mode):
        assert whole(trace.trace(layer, (x,))).macs.total() == macs
    inside = Apply(torch.inference_mode()(lambda x: layer(x)))
    assert whole(trace.trace(inside, (x,))).macs.total() == macs


def test_torchs_own_counter_still_misses_the_fused_lstm() -> None:
    """Why the switches are there; if this fails, oneDNN's LSTM has got a formula."""
    layer, x = nn.LSTM(6, 5), torch.rand(7, 2, 6)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 0


def test_fused_attention(place: str) -> None:
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    x = torch.rand(2, 5, 8)
    work = whole(trace.trace(layer.eval(), (x,)))
    assert work.macs.total() == 2 * 2 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16)
    assert not work.unknown


def test_packed_sequences(place: str) -> None:
    packed = pack_padded_sequence(torch.rand(5, 3, 6), torch.tensor([5, 4, 2]))
    assert whole(trace.trace(nn.LSTM(6, 4), (packed,))).macs.total() == (5 + 4 + 2) * 4 * 4 * (6 + 4)


def test_lengths_need_values() -> None:
    def function(x: Tensor, lengths: Tensor) -> Any:
        return pack_padded_sequence(x, lengths)

    done = trace.trace(Apply(function), (torch.rand(5, 3, 6), torch.tensor([5, 4, 2])))
    assert done.device == "cpu"
    assert "lengths" in done.reason
    assert not whole(done).unknown


# ---- which module


class Mixed(nn.Module):
    """A product of its own between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.first(x) @ self.first.weight)


def test_work_belongs_to_the_innermost_module(place: str) -> None:
    module = Mixed()
    visits = trace.trace(module, (torch.rand(3, 4),)).visits
    macs = {type(who).__name__: what.work.macs.total() for who, what in visits.items()}
    assert macs == {"Linear": 48, "ReLU": 0, "Sequential": 0, "Mixed": 48}
    assert visits[module.first].work.macs == {"aten.addmm": 48}
    assert visits[module.inner[1]].work.elementwise == 12
    assert visits[module.inner].activations == 12


def test_a_module_with_terms_answers_for_all_in_it() -> None:
    module = Mixed()
    term = Term("macs", "all", "48", {})

    def terms_of(who: nn.Module, inputs: tuple[Any, ...], output: Any) -> list[Term] | None:
        return [term] if who is module.inner else None

    visits = trace.trace(module, (torch.rand(3, 4),), terms_of).visits
    assert set(visits) == {module, module.first, module.inner}
    assert visits[module.inner].terms == [([term], 1)]
    assert visits[module.inner].work.macs.total() == 48
    assert visits[module.inner].work.elementwise == 12


def test_an_error_that_the_module_handles_confuses_nothing() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.layer(x[:, :3])
            except RuntimeError:
                return self.layer(x) @ x.t()

    module = Tries()
    visits = trace.trace(module, (torch.rand(3, 4),)).visits
    assert visits[module.layer].work.macs.total() == 3 * 4 * 4
    assert visits[module].work.macs.total() == 3 * 4 * 3


def test_calls_by_name_and_calls_of_itself() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, times: int = 2) -> Tensor:
            return self(x=self.layer(input=x), times=times - 1) if times else x

    module = Nested()
    visits = trace.trace(module, (torch.rand(3, 4),)).visits
    assert (visits[module].calls, visits[module.layer].calls) == (3, 2)
    assert visits[module.layer].work.macs.total() == 2 * 3 * 4 * 4


# ---- left as found


class Keeps(nn.Module):
    """Counts its calls in a buffer, keeps what it saw, and may fail."""

    calls: Tensor

    def __init__(self, fails: bool, needs_values: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.fails, self.needs_values = fails, needs_values
        self.seen: list[Tensor] = []
        self.cache: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x)
        self.cache = torch.zeros(4, device=x.device)
        self.extra = nn.Linear(4, 4)
        assert not self.training
        assert not torch.is_grad_enabled()
        if self.needs_values and x.sum().item() > 1e9:
            return x
        y = self.norm(self.lstm(x)[0][-1]) + torch.rand(4, device=x.device)
        if self.fails:
            raise KeyError("it fails")
        return y


def _state(module: nn.Module) -> dict[str, Any]:
    """Everything that is in a module, by identity."""
    state: dict[str, Any] = {}
    for path, child in module.named_modules():
        for name, value in child.__dict__.items():
            state[f"{path}.{name}"] = id(value)
            if isinstance(value, dict):
                state[f"{path}.{name}[]"] = [(key, id(item)) for key, item in value.items()]
            if isinstance(value, list):
                state[f"{path}.{name}[]"] = [id(item) for item in value]
    return state


@pytest.mark.parametrize("needs_values", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_module_is_left_as_it_was(fails: bool, needs_values: bool) -> None:
    module = Keeps(fails, needs_values).train()
    module.norm.eval()
    x = torch.rand(3, 2, 4)
    module.lstm.register_forward_hook(lambda *arguments: None)
    state, values = _state(module), {name: t.clone() for name, t in module.state_dict().items()}
    switches = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.is_grad_enabled()
    random_state = torch.get_rng_state()
    if fails:
        with pytest.raises(CompressnetError, match="Keeps: cannot be run to be counted: KeyError"):
            trace.trace(module, (x,))
    else:
        assert trace.trace(module, (x,)).device == ("cpu" if needs_values else "meta")
    assert _state(module) == state
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, values[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    assert switches == (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.is_grad_enabled())
    module.fails = False
    with torch.no_grad():
        assert module.lstm(x)[0].isfinite().all()


def test_nothing_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace.trace(Keeps(False, True), (torch.rand(3, 2, 4),))


# ---- refusals


def test_scripts_and_lazy_modules_are_refused() -> None:
    scripted = nn.Sequential(torch.jit.script(nn.Linear(3, 4)))
    with pytest.raises(UsageError, match="0: TorchScript cannot be looked into"):
        trace.trace(scripted, (torch.rand(2, 3),))
    with pytest.raises(UsageError, match="1: its sizes are known only after it has run once"):
        trace.trace(nn.Sequential(nn.ReLU(), nn.LazyLinear(4)), (torch.rand(2, 3),))


def test_wrong_inputs_are_one_line() -> None:
    with pytest.raises(CompressnetError, match="Linear: cannot be run to be counted: RuntimeError") as error:
        trace.trace(nn.Linear(3, 4), (torch.rand(2, 5),))
    assert "\n" not in str(error.value)
    with pytest.raises(CompressnetError, match="Linear: cannot be counted on meta"):
        trace.trace(nn.Linear(3, 4, device="meta"), (torch.rand(2, 5),))


# ---- memory

_TEN_BILLION = """
import torch
from pathlib import Path
from compressnet.analysis.count import count
from compressnet.analysis.example import example
from compressnet.layers.torch_lstm import TorchLSTM

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024

before = peak()
with torch.device("meta"):
    layer = TorchLSTM(28000, 28000, num_layers=2)
counted = count(layer, example(layer))
assert counted.parameters == 2 * (4 * 28000 * (28000 + 28000) + 8 * 28000) > 10**10
assert counted.macs == counted.total("macs_trace") == 35 * 2 * 4 * 28000 * (28000 + 28000)
assert counted.problems == []
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux to tell the memory")
def test_ten_billion_parameters_take_no_memory() -> None:
    """40 GB if they were there. What is taken is torch's compiler, which its kernels for meta import."""
    child = subprocess.run(
        [sys.executable, "-c", _TEN_BILLION], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(child.stdout) < 200
