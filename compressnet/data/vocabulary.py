"""Text as numbers: how it is cut into symbols, and the list of those that a model knows.

    text -> Tokenizer.split -> ["the", "cat", "<eos>", ...] -> Vocabulary.encode -> (N,) int64
                               words: by falling frequency, 0 is the most frequent

Both are stored with the weights, so that a prompt is cut as the training text was.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from compressnet import json_file
from compressnet.errors import CompressnetError, shown
from compressnet.json_file import Form

Level = Literal["word", "character", "byte"]
Words = Literal["whitespace", "punctuation"]
END, UNKNOWN = "<eos>", "<unk>"
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
_NO_SPACE_BEFORE = re.compile(r" ([.,;:!?%)\]}\u2019'])")


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Tokenizer:
    """How text becomes symbols.

    Attributes:
        level: "word", "character", or "byte" of UTF-8 (as the character of that number).
        words: words are what stands between white space, or runs of letters and single marks.
        lower: in lower case.
    """

    level: Level = "word"
    words: Words = "whitespace"
    lower: bool = False

    def decode(self, raw: bytes, source: str) -> str:
        """A file's bytes as text; at byte level each as the character of its number.

        Raises:
            CompressnetError: not UTF-8.
        """
        if self.level == "byte":
            return raw.decode("latin-1")
        try:
            text = raw.decode("utf-8-sig")  # without the mark that some editors begin a file with
        except UnicodeDecodeError as error:
            raise CompressnetError(
                f"{source}: not UTF-8 text (byte {error.start} is {raw[error.start]:#04x}); "
                "convert it, or read it with level: byte"
            ) from error
        return text.lower() if self.lower else text

    def split(self, text: str) -> list[str]:
        """The symbols of a text; word level ends each line with `<eos>`."""
        if self.level != "word":
            return list(text)
        cut = str.split if self.words == "whitespace" else _WORD.findall
        return list(chain.from_iterable((*cut(line), END) for line in text.split("\n")[:-1]))

    def join(self, symbols: Sequence[str]) -> str:
        """The text of symbols: the other way round, but for white space and case."""
        if self.level == "character":
            return "".join(symbols)
        if self.level == "byte":
            return "".join(symbols).encode("latin-1").decode(errors="replace")
        text = re.sub(rf" ?{END} ?", "\n", " ".join(symbols))
        return _NO_SPACE_BEFORE.sub(r"\1", text) if self.words == "punctuation" else text

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Vocabulary:
    """The symbols that a model knows.

    Args:
        symbols: by falling frequency; a symbol's number is its place.

    Raises:
        CompressnetError: none, one twice, or one that is no text.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        if not self.symbols:
            raise CompressnetError("the vocabulary is empty: the training text has no symbols")
        if len(self._numbers) < len(self.symbols):
            twice = next(symbol for symbol, count in Counter(self.symbols).items() if count > 1)
            raise CompressnetError(f"the vocabulary has {twice[:60]!r} twice")
        try:
            "".join(self.symbols).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise CompressnetError(f"the vocabulary has half a character: {half!r}") from None

    @classmethod
    def of(cls, counts: Mapping[str, int], min_count: int = 1) -> Vocabulary:
        """Of a training text's counts; symbols that are rarer become `<unk>`."""
        kept = {symbol: count for symbol, count in counts.items() if count >= min_count}
        rare = sum(counts.values()) - sum(kept.values())
        if rare:
            kept[UNKNOWN] = kept.get(UNKNOWN, 0) + rare
        return cls(sorted(kept, key=lambda symbol: (-kept[symbol], symbol)))

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def unknown(self) -> int | None:
        """The number of `<unk>`, if there is one."""
        return self._numbers.get(UNKNOWN)

    @property
    def start(self) -> int:
        """What stands before the first symbol of a text: `<eos>`, else the end of a line, else 0."""
        return self._numbers.get(END, self._numbers.get("\n", 0))

    def encode(self, symbols: Sequence[str], source: str, min_count: int | None = None) -> Tensor:
        """The numbers (N,) of symbols; unknown ones become `<unk>`.

        Args:
            symbols: a list, or a text whose characters they are.
            source: what to call the text in messages.
            min_count: that of the data set if it is known, for messages.

        Raises:
            CompressnetError: there are unknown ones and no `<unk>`.
        """
        unknown = -1 if self.unknown is None else self.unknown
        find = self._numbers.get
        if isinstance(symbols, str):
            codes, places = np.unique(_codes(symbols), return_inverse=True)
            numbers = torch.from_numpy(np.array([find(chr(code), unknown) for code in codes])[places])
        else:
            numbers = torch.tensor([find(symbol, unknown) for symbol in symbols], dtype=torch.int64)
        if unknown < 0 and (numbers < 0).any():
            strange = dict.fromkeys(symbol for symbol in symbols if symbol not in self._numbers)
            hint = f"trained with data.min_count=2, rare ones are {UNKNOWN}"
            if min_count != 1:  # to advise what may be set already helps nobody
                which = "" if min_count is None else f", {min_count}"
                hint = f"there is one if symbols of the training text are rarer than data.min_count{which}"
            raise CompressnetError(
                f"{source}: {len(strange)} symbols are not in the vocabulary, which has no {UNKNOWN}: "
                f"{', '.join(map(shown, list(strange)[:8]))} ({hint})"
            )
        return numbers

    def decode(self, numbers: Iterable[int]) -> list[str]:
        return [self.symbols[number] for number in numbers]


class StoredWords(Form):
    """How a text was cut and what was found in it, as it is stored with weights."""

    tokenizer: dict[str, Any]
    vocabulary: list[str]

    def read(self) -> tuple[Tokenizer, Vocabulary]:
        """Tokenizer and vocabulary, of one kind.

        Raises:
            CompressnetError: they are none, or do not go together.
        """
        tokenizer = json_file.check(Tokenizer, self.tokenizer, "the stored tokenizer")
        vocabulary = Vocabulary(self.vocabulary)
        if tokenizer.level != "word":
            largest = "\xff" if tokenizer.level == "byte" else chr(sys.maxunicode)
            for symbol in vocabulary.symbols:
                if symbol not in (END, UNKNOWN) and (len(symbol) != 1 or symbol > largest):
                    raise CompressnetError(f"the vocabulary of {tokenizer.level}s has {symbol[:60]!r}")
        return tokenizer, vocabulary


def stored_words(assets: Mapping[str, Any]) -> dict[str, Any]:
    """Tokenizer and vocabulary among what is stored with weights; {}: they are of no text."""
    keys = ("tokenizer", "vocabulary")
    return {key: assets[key] for key in keys} if assets.keys() >= set(keys) else {}


def count(symbols: Sequence[str]) -> Counter[str]:
    """How often each symbol of a list, or character of a text, occurs."""
    if not isinstance(symbols, str):
        return Counter(symbols)
    codes, counts = np.unique(_codes(symbols), return_counts=True)
    return Counter({chr(code): int(times) for code, times in zip(codes, counts, strict=True)})


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
