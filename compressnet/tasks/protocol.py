"""What a task is: the problem that a model solves, as the loop, the evaluation and `apply` see it.

          prepare(train split, parent) -> assets, model_args  (once; stored with the weights)
          use(assets)                                         (before all that follows)
batch --> loss(model, batch, state)  -> loss, count, logs, state
batch --> outputs(model, batch, state) -> values, kind, state               (what another network learns from)
batch --> predict(model, batch, state) -> output, state --> metrics.update(output, batch) -> compute, details,
                                                                                             pictures
sources --> apply(model, inputs, options) -> (source, artefact), ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from PIL import Image as PILImage
from torch import Tensor, nn

from compressnet.data.protocol import Split
from compressnet.errors import CompressnetError, is_out_of_memory
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Artefact
from compressnet.weights import Architecture

State = tuple[Tensor, ...]
Answers = Iterator[tuple[Source, Artefact | CompressnetError]]


class Loss(NamedTuple):
    """What `Task.loss` returns.

    Attributes:
        mean: scalar, the mean over the targets of the batch.
        count: how many targets that mean is over: its weight in a larger batch.
        logs: scalars for the progress line and metrics.jsonl.
        state: carried to the next micro-batch (detached by the loop); `()` where nothing is carried.
    """

    mean: Tensor
    count: int  # type: ignore[assignment]  # shadows tuple.count
    logs: dict[str, Tensor]
    state: State


class Outputs(NamedTuple):
    """What `Task.outputs` returns.

    Attributes:
        values: with gradients. "logits": (N, K), of N decisions; their softmax over K is what the network
            says, so log-probabilities are some. "values": numbers of any shape, whose squared distance from
            those of another network means something.
        state: as of `Loss`.
    """

    values: Tensor
    kind: Literal["logits", "values"]
    state: State


class Metrics(Protocol):
    """Collects figures over a split."""

    def update(self, output: Any, batch: Any) -> None: ...

    def state(self) -> Any:
        """What this process collected; plain values, sent between ranks."""

    def merge(self, states: list[Any]) -> None:
        """Replace what was collected by what all ranks collected."""

    def compute(self) -> dict[str, float]:
        """Flat dict of means; rows of single samples as `<metric>/<name>`."""

    def details(self) -> dict[str, Any]:
        """What else a record keeps, as JSON has it: counts, every sentence."""

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        """What people would rather look at, (name, picture): confusion matrices, curves."""


@dataclass(frozen=True)
class NoMeasures:
    """The measures of a task that has one way to measure."""


class Task(Protocol):
    """A problem. Constructed from recipe arguments; construction reads nothing."""

    sample_types: ClassVar[tuple[str, ...]]
    """What it learns from: those of data sets."""
    size_names: ClassVar[tuple[str, ...]]
    """The keys of `sizes`, which are known before there are data. Tasks may do without: then a model that is
    not for them is refused when there are data."""
    reads: ClassVar[tuple[str, ...]]
    """What `apply` takes, of `source.SUFFIXES`: image, video, audio, text, rows."""
    best: ClassVar[tuple[str, Literal["max", "min"]]]
    options: type
    """A dataclass of the options that `apply` takes (`--set key=value`). A property, where they follow from
    what `use` took: the names of classes, the range of a parameter."""
    measures: ClassVar[type]
    """A dataclass of how to measure (`eval --set key=value`); training measures by its defaults. A property,
    where they follow from what `use` took."""
    needs_targets: ClassVar[bool]
    """Whether photographs that are their own targets are nothing to learn from (see `Split.has_targets`)."""
    unit: ClassVar[str]
    """What records count MACs by, one of it: "megapixel", "image", "second of audio", "token"."""

    def prepare(
        self, train_data: Split, parent: Architecture | None = None, model: Component | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What follows from the training data: (assets, model arguments).

        Args:
            parent: of the weights that training starts from (`init`): what their numbers mean, as the words
                of a vocabulary, must stay.
            model: the network that will be trained, as the recipe names it; None: one of the user's own.
        """

    def use(self, assets: Mapping[str, Any]) -> None:
        """Take what `prepare` returned, today or when the weights were trained.

        Raises:
            CompressnetError: it is not of the form that this task stores: weights may come from strangers.
        """

    def sizes(self) -> dict[str, Any]:
        """Arguments of the model that follow from the assets in use, and must be those of the weights."""

    def amount(self, inputs: tuple[Any, ...]) -> float:
        """How many of `unit` the inputs of a call of the model are, all items of the batch together.

        Args:
            inputs: as the model's `example` makes them; they may lie on `meta`, without values.
        """

    def loss(self, model: nn.Module, batch: Any, state: State) -> Loss: ...

    def outputs(self, model: nn.Module, batch: Any, state: State) -> Outputs:
        """What the network says of a batch before anything is rounded, chosen or compared with targets.

        Of the same batch all networks of a task have the same shape and kind: one can learn from another.
        """

    @property
    def loss_of(self) -> Callable[[Outputs, Any], Loss] | None:
        """The loss of a batch from `outputs` alone, without carried state: one pass then gives both.

        None: the loss needs more of the network, as a language model's penalties.
        """

    def predict(self, model: nn.Module, batch: Any, state: State) -> tuple[Any, State]: ...

    def measure(self, settings: Mapping[str, Any]) -> None:
        """Take the settings of `measures` for the `metrics()` that follow."""

    def metrics(self) -> Metrics: ...

    def preview(self, model: nn.Module, samples: list[Any]) -> Iterator[tuple[str, PILImage.Image | str]]:
        """What the model does to `samples`, as pictures or texts: (name, picture)."""

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Artefact]:
        """What `apply` makes with these options: it decides about names before anything is computed.

        Args:
            kind: of the input, of `reads`.

        Raises:
            UsageError: of such inputs nothing can be made with these options.
        """

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        """Use the model on what a user gives: (source, artefact) each, lazily.

        In the place of the artefact of a bad input stands its CompressnetError; the others follow.
        """


def answers(
    inputs: Iterable[Source], answer: Callable[[Source], Artefact], less: str = "give it less"
) -> Answers:
    """`answer` of each input, or its error: what most of `Task.apply` is.

    Args:
        less: what to do where memory does not suffice.
    """
    for source in inputs:
        result: Artefact | CompressnetError
        try:
            result = answer(source)
        except OSError as error:
            result = CompressnetError(f"{source}: cannot be read: {error.strerror or error}")
        except CompressnetError as error:
            result = error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            result = CompressnetError(f"{source}: out of memory: {less}")
        yield source, result
