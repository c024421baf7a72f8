"""Who reads the outputs of the recurrent cells of a network: what must change when a cell is narrowed.

A model says it by `readers() -> dict[str, Readers]`, for each recurrent cell by its path. It is true of
evaluation, and of what is there now, after edits too:

    The outputs of the cell (what its `step` returns, (T, B, d)) go to the readers and nowhere else. The first
    that a reader does with them is to multiply them by its matrices, each (n, d). On the way steps may be
    chosen or set to zero, nothing else.

So if the cell put out Q h instead of h, and each matrix W of its readers were W Q^-1, the network would
compute the same; and where h = P^T P h, a cell that puts out P h needs readers with W P^T. (What a cell does
with its own outputs, W_hh, is its own matter. A bidirectional one puts out both directions side by side.)

Where that does not hold, nobody is listed, and `reason` says why: the output layer shares its matrix with the
embedding, a highway takes the outputs as they are, the reader cannot be written as a registered layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import nn

from compressnet.errors import CompressnetError
from compressnet.layers.chain import Chain
from compressnet.layers.described import described
from compressnet.layers.lstm import LSTM
from compressnet.layers.lstm_1997 import LSTM1997
from compressnet.layers.recurrent_stack import RecurrentStack
from compressnet.layers.softmax import FactoredSoftmax, FullSoftmax
from compressnet.layers.sru import SRU


class Reader(NamedTuple):
    """A module that takes the outputs of a cell.

    Attributes:
        path: of the module.
        matrices: its parameters that they are multiplied by, by their names in it, each (n, d).
    """

    path: str
    matrices: tuple[str, ...]


class Readers(NamedTuple):
    """All that read the outputs of a cell.

    Attributes:
        reason: why they cannot take anything else than they do; "": they can.
    """

    readers: tuple[Reader, ...]
    reason: str = ""


def readers_of(module: nn.Module) -> dict[str, Readers]:
    """What a network's `readers()` says; of a stack of cells the same; {} of what has no such method."""
    own = getattr(module, "readers", None)
    if callable(own):
        said: dict[str, Readers] = own()
        return said
    if isinstance(module, RecurrentStack):
        return readers_in_row(module, [path for path, _ in module.named_children()])
    return {}


def readers_in_row(whole: nn.Module, row: Sequence[str]) -> dict[str, Readers]:
    """Of modules of which each is given the outputs of the one before it, which nothing else reads.

    Args:
        row: their paths in `whole`; a `RecurrentStack` stands for its cells, and what streams is a cell.
    """
    found = {}
    for path, following in pairwise([*_flat(whole, row), ""]):
        if not _streams(whole.get_submodule(path)):
            continue
        try:
            found[path] = Readers((_reader(whole, following),))
        except CompressnetError as error:
            found[path] = Readers((), str(error))
    return found


def input_matrices(module: nn.Module) -> tuple[str, ...]:
    """The parameters (n, d) by which alone a module reads inputs (..., d), by their names in it.

    Raises:
        CompressnetError: it reads them otherwise too, or cannot be written as a registered layer.
    """

    described(module)
    return tuple(_matrices(module))


def _reader(whole: nn.Module, path: str) -> Reader:
    if not path:
        raise CompressnetError("they are the outputs of the whole")
    module = whole.get_submodule(path)
    try:
        reader = Reader(path, input_matrices(module))
    except CompressnetError as error:
        raise CompressnetError(f"'{path}' reads them: {error}") from error
    _check_alone(whole, reader)
    return reader


def _check_alone(whole: nn.Module, reader: Reader) -> None:
    """Refuse matrices that are something else as well: an embedding, another reader's."""
    everywhere = list(whole.named_parameters(remove_duplicate=False))
    for name in reader.matrices:
        path = f"{reader.path}.{name}"
        own = whole.get_parameter(path)
        others = [other for other, parameter in everywhere if parameter is own and other != path]
        if others:
            raise CompressnetError(f"'{path}' reads them and is tied to '{others[0]}'")


def _flat(whole: nn.Module, row: Sequence[str]) -> Iterator[str]:

    for path in row:
        module = whole.get_submodule(path)
        if isinstance(module, RecurrentStack):
            yield from _flat(whole, [f"{path}.{name}" for name, _ in module.named_children()])
        else:
            yield path


def _streams(module: nn.Module) -> bool:
    return hasattr(module, "init_state") and hasattr(module, "step")


def _matrices(module: Any) -> Iterator[str]:

    if isinstance(module, nn.Linear | FullSoftmax):
        yield "weight"
    elif isinstance(module, FactoredSoftmax):
        yield "projection"
    elif isinstance(module, Chain):
        yield from (f"0.{name}" for name in _matrices(module[0]))
    elif isinstance(module, LSTM):
        yield from (f"cells.{direction}.weight_ih" for direction in range(module.directions))
    elif isinstance(module, nn.LSTM):
        yield from ("weight_ih_l0", *(["weight_ih_l0_reverse"] if module.bidirectional else []))
    elif isinstance(module, LSTM1997):
        yield "weight_ih"
    elif isinstance(module, SRU):
        yield from _of_sru(module)
    else:
        raise CompressnetError(f"a {type(module).__name__} does not begin with a matrix")


def _of_sru(module: Any) -> Iterator[str]:
    first = module.layers[0]
    if any(cell.highway is None for cell in first.cells):
        raise CompressnetError("the highway of an SRU takes them as they are")
    if first.project is not None:
        yield "layers.0.project.weight"
        return
    for number in range(len(first.cells)):
        yield f"layers.0.cells.{number}.transform.weight"
        yield f"layers.0.cells.{number}.highway.weight"
