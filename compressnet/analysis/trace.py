"""What torch really does in a forward pass, operation by operation and module by module.

Operations are seen below autograd (`TorchDispatchMode`), as `torch.utils.flop_counter.FlopCounterMode` sees
them, and belong to the innermost module that was called when they ran. `operations` says what each costs.

The pass runs on `meta`, where nothing is computed and nothing allocated. A module that needs values (sparse
matrices, lengths, `item()`) runs where it is. There oneDNN and cuDNN are off: they do a recurrent layer in
one operation that nobody sees into, so that an `nn.LSTM` on the CPU would count as 0. (torch's fused layers
of transformers are off by themselves under a `TorchFunctionMode`, such as the one here.)
"""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from compressnet.analysis import operations
from compressnet.analysis.as_found import as_found, lend_buffers, lend_meta
from compressnet.cost import Term
from compressnet.errors import CompressnetError, UsageError

TermsOf = Callable[[nn.Module, tuple[Any, ...], Any], list[Term] | None]
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_LEAVES_TORCH = ("numpy", "tolist", "__array__")


class NeedsValues(CompressnetError):
    """A module without values cannot be traced: what it does depends on them."""


@dataclass
class Work:
    """What was done.

    Attributes:
        macs: multiply-adds by operation (`aten.mm`).
        unknown: calls of operations that may hide MACs, by operation.
        elementwise: elementwise operations and reductions, as `operations` counts them.
        lookups: indices that were looked up.
    """

    macs: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    elementwise: int = 0
    lookups: int = 0

    def add(self, other: Work) -> None:
        self.macs.update(other.macs)
        self.unknown.update(other.unknown)
        self.elementwise += other.elementwise
        self.lookups += other.lookups


@dataclass
class Visits:
    """All calls of one module.

    Attributes:
        work: what it did itself; if it has terms, with all that the modules in it did.
        activations: elements of its outputs.
        terms: its cost by formula and in how many calls it was that; None if it has no formula.
    """

    calls: int = 0
    work: Work = field(default_factory=Work)
    activations: int = 0
    terms: list[tuple[list[Term], int]] | None = None

    def add(self, other: Visits) -> None:
        self.calls += other.calls
        self.work.add(other.work)
        self.activations += other.activations
        for terms, calls in other.terms or []:
            self._add_terms(terms, calls)

    def _add_terms(self, terms: list[Term], calls: int) -> None:
        self.terms = self.terms or []
        for number, (known, count) in enumerate(self.terms):
            if known == terms:
                self.terms[number] = known, count + calls
                return
        self.terms.append((terms, calls))


@dataclass(frozen=True)
class Trace:
    """One forward pass.

    Attributes:
        visits: of the modules that were called, without those inside a module with terms.
        device: where it ran: "meta", or where the module is.
        reason: why it could not run on `meta`; empty if it did.
    """

    visits: dict[nn.Module, Visits]
    device: str
    reason: str = ""


def no_terms(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    """The formula of nothing: every module is looked into."""


def trace(module: nn.Module, inputs: tuple[Any, ...], terms_of: TermsOf = no_terms) -> Trace:
    """Run `module(*inputs)` once, in evaluation mode and without gradients, and write down what is done.

    The module is left as it was, also after an error. Other threads must leave it alone meanwhile.

    Args:
        inputs: tensors or structures of tensors, on any device.
        terms_of: a module's cost by formula; asked at the end of each of its calls.

    Raises:
        UsageError: the module cannot be looked into.
        CompressnetError: it cannot be run with these inputs.
    """
    _refuse(module)
    reason = "it holds sparse matrices"
    if not _is_sparse(module):
        try:
            return Trace(_run_on_meta(module, inputs, terms_of), "meta")
        except CompressnetError:
            raise
        except Exception as error:
            reason = _one_line(error)
    device, name = _device(module), type(module).__name__
    if device == "meta":
        raise NeedsValues(f"{name}: cannot be counted on meta: {reason}; give it with its weights")
    try:
        return Trace(_run_where_it_is(module, inputs, terms_of), device, reason)
    except CompressnetError:
        raise
    except Exception as error:
        raise CompressnetError(f"{name}: cannot be run to be counted: {_one_line(error)}") from error


def _run_on_meta(module: nn.Module, inputs: tuple[Any, ...], terms_of: TermsOf) -> dict[nn.Module, Visits]:
    empty = tree_map(_without_values, inputs, is_leaf=_is_packed)
    with as_found(module), torch.device("meta"):
        lend_meta(module)
        return _run(module, empty, terms_of)


def _run_where_it_is(
    module: nn.Module, inputs: tuple[Any, ...], terms_of: TermsOf
) -> dict[nn.Module, Visits]:
    with as_found(module), torch.random.fork_rng(devices=[]), _nothing_fused():
        lend_buffers(module)
        return _run(module, inputs, terms_of)


def _run(module: nn.Module, inputs: tuple[Any, ...], terms_of: TermsOf) -> dict[nn.Module, Visits]:
    recorder = _Recorder(terms_of)
    for child in module.modules():
        child.training = False  # not by eval(), which a module may use to merge weights
        recorder.watch(child)
    with torch.no_grad(), _Calls(recorder), _Operations(recorder):
        module(*inputs)
    return recorder.visits


@dataclass
class _Call:
    """A call of a module that has not returned yet."""

    module: nn.Module
    inputs: tuple[Any, ...]
    work: Work = field(default_factory=Work)
    below: dict[nn.Module, Visits] = field(default_factory=dict)


class _Recorder:
    """Which module is at work, and what it has done."""

    def __init__(self, terms_of: TermsOf) -> None:
        self.visits: dict[nn.Module, Visits] = {}
        self._terms_of = terms_of
        self._open: list[_Call] = []

    @property
    def work(self) -> Work:
        """Of the module that was called last and has not returned."""
        return self._open[-1].work

    def watch(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True)
        module.register_forward_hook(self._leave, always_call=True)

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if keywords:
            inputs = tuple(inspect.signature(module.forward).bind(*inputs, **keywords).arguments.values())
        self._open.append(_Call(module, inputs))

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        call = self._open.pop()
        terms = None if output is None else self._terms_of(module, call.inputs, output)
        visit = Visits(1, call.work, _elements(output))
        below = call.below
        if terms is not None:
            visit.terms = [(terms, 1)]
            for inner in below.values():
                visit.work.add(inner.work)
            below = {}
        seen = self._open[-1].below if self._open else self.visits
        for who, what in [*below.items(), (module, visit)]:
            seen.setdefault(who, Visits()).add(what)


class _Operations(TorchDispatchMode):
    """Costs each operation of torch."""

    supports_higher_order_operators = True

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        if not operations.is_known(func) and hasattr(func, "decompose"):
            with self:
                output = func.decompose(*args, **keywords)
            if output is not NotImplemented:
                return output
        output = func(*args, **keywords)
        self._note(func, args, keywords, output)
        return output

    def _note(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        work, name = self._recorder.work, operations.name_of(func)
        macs = operations.macs(func, args, keywords, output)
        if macs is not None:
            work.macs[name] += macs
            return
        effort = operations.effort(func, args, output)
        if effort is None:
            work.unknown[name] += 1
            return
        work.elementwise += effort.elementwise
        work.lookups += effort.lookups


class _Calls(TorchFunctionMode):
    """Notes what cannot be seen below: where features leave torch, and that a convolution is complex."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if (
            name in _LEAVES_TORCH
            and isinstance(args[0], Tensor)
            and args[0].is_floating_point()
            and args[0].ndim
        ):
            self._recorder.work.unknown[f"Tensor.{name}"] += 1
        if name in _CONVOLUTIONS and args and isinstance(args[0], Tensor) and args[0].is_complex():
            return self._complex_convolution(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _complex_convolution(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """torch does three real ones, after Gauss; it counts as the four that a complex product is."""
        macs = self._recorder.work.macs
        before = macs["aten.convolution"]
        output = func(*args, **keywords)
        macs["aten.convolution"] += (macs["aten.convolution"] - before) // 3
        return output


@contextmanager
def _nothing_fused() -> Iterator[None]:
    """`torch.backends.mkldnn.flags` would set its other switches too, and warn."""
    backends: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn]
    enabled = [backend.enabled for backend in backends]
    try:
        for backend in backends:
            backend.enabled = False
        yield
    finally:
        for backend, was in zip(backends, enabled, strict=True):
            backend.enabled = was


def _refuse(module: nn.Module) -> None:
    for path, child in module.named_modules():
        name = path or type(child).__name__
        if isinstance(child, torch.jit.ScriptModule):
            raise UsageError(
                f"{name}: TorchScript cannot be looked into; give the nn.Module it was made from"
            )
        if any(nn.parameter.is_lazy(tensor) for tensor in child.parameters(recurse=False)):
            raise UsageError(f"{name}: its sizes are known only after it has run once")


def _is_sparse(module: nn.Module) -> bool:
    return any(tensor.layout != torch.strided for tensor in [*module.parameters(), *module.buffers()])


def _device(module: nn.Module) -> str:
    return next((str(tensor.device) for tensor in [*module.parameters(), *module.buffers()]), "cpu")


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)


def _without_values(value: Any) -> Any:
    if isinstance(value, PackedSequence):  # the lengths are read, not computed with
        return value._replace(data=_without_values(value.data))
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def _elements(output: Any) -> int:
    """Of all tensors in the output of a module."""
    leaves = tree_leaves(output, is_leaf=_is_packed)
    tensors = [leaf.data if isinstance(leaf, PackedSequence) else leaf for leaf in leaves]
    return sum(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return textwrap.shorten(": ".join([type(error).__name__, *lines[:1]]), 160, placeholder="...")
