"""Continuous text: windows of one long row of symbols, each the continuation of the one before.

    symbols        <eos> a b c d e f g ...            the first is only read: what stands before a text
    window 0       a window of T inputs and, one further, T targets
    columns        window j·W + w is step w of column j: a batch of B columns carries its state on

Truncated back-propagation through time needs that order; the sampler keeps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compressnet.data.limits import read_text_file
from compressnet.data.protocol import Key
from compressnet.data.vocabulary import Tokenizer, Vocabulary
from compressnet.errors import CompressnetError
from compressnet.reporter import Reporter

# Evaluation carries its state on, so that the length of its windows changes nothing but the speed.
_EVALUATION_WINDOW = 256
_LONG_LINE = 10_000  # characters
_LAST_LINE = 500  # one that is longer is cut between words rather than kept whole


class Part(NamedTuple):
    """A piece of a text file.

    Attributes:
        begin, end: shares of its characters, 0 to 1; at word level the cuts move on to the end of a line, or
            of a word in a text of very long lines.
        text: what is in it, where it is no file.
    """

    path: Path
    begin: float = 0.0
    end: float = 1.0
    text: str | None = None


class TextBatch(NamedTuple):
    """Windows side by side: numbers of symbols, each (T, B); targets are the symbols one further."""

    inputs: Tensor
    targets: Tensor


class TextSplit:
    """One split of a text.

    Args:
        part: the text.
        tokenizer: how to cut it; that of `assets` is taken if there is one.
        window: T of training; evaluation has windows of its own.
        min_count: symbols that are rarer in the training text are `<unk>`.
        assets: those of the task: the vocabulary. {}: none yet.
        training: windows of T; the text's rest is left out. Else every symbol is a target once.
    """

    continuous = True
    derives = False
    has_targets = True

    def __init__(
        self,
        part: Part,
        tokenizer: Tokenizer,
        window: int,
        min_count: int,
        assets: Mapping[str, Any],
        training: bool,
    ) -> None:
        self.part, self.training, self.min_count = part, training, min_count
        self.tokenizer = Tokenizer(**assets["tokenizer"]) if assets else tokenizer
        self._vocabulary = Vocabulary(assets["vocabulary"]) if assets else None
        self.window = window if training else _EVALUATION_WINDOW

    @cached_property
    def text(self) -> str:
        """The text as it is read.

        Raises:
            CompressnetError: it cannot be read, is not UTF-8, or holds nothing.
        """
        text = read_part(self.part, self.tokenizer)
        if not text.strip():
            raise CompressnetError(f"{self.part.path}: there is no text {self._where()}")
        return text

    def _where(self) -> str:
        """What is empty: the file or, as its lines are kept whole, what is held out of it."""
        begin, end = round(100 * self.part.begin), round(100 * self.part.end)
        if begin == 0:
            return "in it"
        return (
            f"in what lies between {begin} and {end} % of it: take a longer text, or files of their own for "
            "data.val and data.test"
        )

    @property
    def symbols(self) -> Sequence[str]:
        """The text, cut: a list of words, or the text itself as characters."""
        return self.tokenizer.split(self.text) if self.tokenizer.level == "word" else self.text

    @cached_property
    def numbers(self) -> Tensor:
        """The row of numbers: what stands before the text, and the text; (1 + symbols,)."""
        assert self._vocabulary is not None, "opened without a vocabulary"
        numbers = self._vocabulary.encode(self.symbols, str(self.part.path), self.min_count)
        return torch.cat([torch.tensor([self._vocabulary.start]), numbers])

    @cached_property
    def target_count(self) -> int:
        return len(self.numbers) - 1 if self._vocabulary else len(self.symbols)

    def __len__(self) -> int:
        whole, rest = divmod(self.target_count, self.window)
        if self.training and not whole:
            raise CompressnetError(
                f"{self.part.path}: {self.target_count} symbols are fewer than a window has ({self.window}): "
                "lower data.unroll or take a longer text"
            )
        return whole if self.training else whole + bool(rest)

    def __getitem__(self, key: Key) -> TextBatch:
        """A window: inputs and targets, each (T,)."""
        begin = key.index * self.window
        piece = self.numbers[begin : begin + self.window + 1]
        return TextBatch(piece[:-1], piece[1:])

    def name(self, index: int) -> str:
        return f"{self.part.path.name}, symbol {index * self.window}"

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        pass

    def collate(self, samples: list[TextBatch]) -> TextBatch:
        return TextBatch(*(torch.stack(side, dim=1) for side in zip(*samples, strict=True)))

    def facts(self) -> dict[str, Any]:
        """How many symbols, and the beginning of the SHA-256 of the text."""
        fingerprint = hashlib.sha256(self.text.encode()).hexdigest()[:16]
        return {"count": self.target_count, "fingerprint": fingerprint}


def read_part(part: Part, tokenizer: Tokenizer) -> str:
    """A piece of a text file.

    Raises:
        CompressnetError: missing, unreadable, or not UTF-8.
    """
    try:
        raw = read_text_file(part.path) if part.text is None else part.text.encode()
    except OSError as error:
        raise CompressnetError(f"{part.path}: cannot be read: {error.strerror}") from error
    text = tokenizer.decode(raw, str(part.path))
    begin, end = (round(len(text) * share) for share in (part.begin, part.end))
    if tokenizer.level != "word":
        return text[begin:end]
    begin, end = (_moved(text, cut) for cut in (begin, end))
    piece = text[begin:end]
    return piece if not piece or piece.endswith("\n") else f"{piece}\n"


def _moved(text: str, cut: int) -> int:
    """Behind the first end of a line from `cut` on, or of a word where lines are too long for that."""
    if cut in (0, len(text)):
        return cut
    behind = text.find("\n", cut - 1, cut + _LONG_LINE) + 1
    if behind == len(text) and cut - text.rfind("\n", 0, cut) > _LAST_LINE:
        behind = 0  # the end of a text of one line leaves nothing for the next part
    return behind or text.find(" ", cut - 1) + 1 or len(text)
