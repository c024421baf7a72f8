"""Texts for language models, each in the files in which it is distributed, or any file of one's own.

ptb        ROOT/ptb.{train,valid,test}.txt                   Mikolov's Penn Treebank, 10,000 words
wikitext   ROOT/wiki.{train,valid,test}.tokens, or {train,valid,test}.txt     WikiText-2 and -103
hutter     FILE of 100,000,000 bytes: enwik8 or text8        90, 5 and 5 million
text_file  any UTF-8 file; validation and test from files of their own or from its end
text_sample  the topics of Python's help: always there
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from compressnet.bounds import Count, Size
from compressnet.data.protocol import NoSuchSplit
from compressnet.data.text import Part, TextSplit
from compressnet.data.vocabulary import Level, Tokenizer, Vocabulary, Words, count
from compressnet.errors import CompressnetError
from compressnet.places import DATA_VARIABLE, resolve
from compressnet.reporter import Reporter

Percent = Annotated[float, Field(ge=0, le=45)]
_HUTTER_BYTES = 100_000_000


class _TextSet:
    """What all of them share: how a text is cut, and the parts of the splits.

    Subclasses say where: `_part(split)`.
    """

    sample_type: ClassVar[str] = "text"
    test_split: ClassVar[str] = "test"
    obtain: ClassVar[str] = ""

    def __init__(self, tokenizer: Tokenizer, unroll: int, min_count: int = 1) -> None:
        self._tokenizer, self._unroll, self._min_count = tokenizer, unroll, min_count

    def open(self, split: str, assets: Mapping[str, Any], seed: int) -> TextSplit:
        if split not in ("train", "val", "test"):
            raise NoSuchSplit(f"texts have no split '{split}': only train, val and test")
        part = self._part(split)
        if part.text is None and not part.path.is_file():
            raise CompressnetError(f"{part.path}: no such file{self._hint()}")
        training = split == "train"
        return TextSplit(part, self._tokenizer, self._unroll, self._min_count, assets, training)

    def check(self, headers: bool = False, reporter: Reporter | None = None) -> list[str]:
        """Files that cannot be read, and symbols held out that the training text does not have."""
        problems = []
        vocabulary: Vocabulary | None = None
        for name in ("train", "val", "test"):
            try:
                split = self.open(name, {}, 0)
                _ = split.text  # raises what is wrong with it, also where no symbol can be unknown
                if name == "train":
                    vocabulary = Vocabulary.of(count(split.symbols), self._min_count)
                elif vocabulary is not None and vocabulary.unknown is None:
                    vocabulary.encode(split.symbols, str(split.part.path), self._min_count)
            except NoSuchSplit:
                pass
            except CompressnetError as error:
                problems.append(str(error))
        return problems

    def _part(self, split: str) -> Part:
        raise NotImplementedError

    def _hint(self) -> str:
        return f"; relative paths are looked up below --data-root or {DATA_VARIABLE}. {self.obtain}".rstrip()


class PTB(_TextSet):
    """The Penn Treebank as T. Mikolov prepared it: 929,589 / 73,760 / 82,430 words with `<eos>`.

    Args:
        root: the folder of the three files.
        unroll: T, steps of a window of training.
    """

    obtain = "The files are in simple-examples.tgz of Mikolov's RNNLM toolkit; the text is the LDC's"

    def __init__(self, root: str = "ptb", unroll: Size = 35) -> None:
        super().__init__(Tokenizer(), unroll)
        self._root = root

    def _part(self, split: str) -> Part:
        name = {"val": "valid"}.get(split, split)
        return Part(resolve(self._root) / f"ptb.{name}.txt")


class WikiText(_TextSet):
    """WikiText-2 or -103, the tokenised form.

    Args:
        root: the folder of the three files.
        unroll: T, steps of a window of training.
    """

    obtain = "Unpack wikitext-2-v1.zip or wikitext-103-v1.zip"

    def __init__(self, root: str, unroll: Size = 35) -> None:
        super().__init__(Tokenizer(), unroll)
        self._root = root

    def _part(self, split: str) -> Part:
        folder, name = resolve(self._root), {"val": "valid"}.get(split, split)
        plain = folder / f"{name}.txt"
        return Part(plain if plain.is_file() else folder / f"wiki.{name}.tokens")


class Hutter(_TextSet):
    """enwik8 or text8, byte by byte: the first 90 million to train on, then 5 and 5 million.

    Args:
        file: of 100,000,000 bytes.
        unroll: T, steps of a window of training.
    """

    obtain = "Unpack enwik8.zip or text8.zip of http://mattmahoney.net/dc/textdata"

    def __init__(self, file: str = "enwik8", unroll: Size = 100) -> None:
        super().__init__(Tokenizer("byte"), unroll)
        self._file = file

    def _part(self, split: str) -> Part:
        path = resolve(self._file)
        if path.is_file() and path.stat().st_size != _HUTTER_BYTES:
            raise CompressnetError(
                f"{path}: has {path.stat().st_size:,} bytes, enwik8 and text8 have {_HUTTER_BYTES:,}: "
                "read other files with text_file"
            )
        begin, end = {"train": (0.0, 0.90), "val": (0.90, 0.95), "test": (0.95, 1.0)}[split]
        return Part(path, begin, end)


class TextFile(_TextSet):
    """Any text.

    Args:
        train: the file to train on.
        val: file of its own for validation; else the end of `train`, before that for tests.
        test: file of its own for tests; else the end of `train`.
        val_percent, test_percent: how much of `train` is held out where there is no such file.
        level: symbols are words, characters or bytes.
        words: what stands between white space, or runs of letters and single punctuation marks.
        lower: in lower case.
        min_count: symbols that are rarer in the training text are `<unk>`; None: 2 of words, else 1.
        unroll: T, steps of a window of training.

    Raises:
        ValueError: `lower` at byte level.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        val_percent: Percent = 5.0,
        test_percent: Percent = 5.0,
        level: Level = "word",
        words: Words = "whitespace",
        lower: bool = False,
        min_count: Count | None = None,
        unroll: Size = 35,
    ) -> None:
        if lower and level == "byte":
            raise ValueError("lower: bytes have no case; take level: character, or a text in lower case")
        super().__init__(Tokenizer(level, words, lower), unroll, min_count or (2 if level == "word" else 1))
        self._files = {"train": train, "val": val, "test": test}
        self._held = {"val": 0.0 if val else val_percent / 100, "test": 0.0 if test else test_percent / 100}

    def _part(self, split: str) -> Part:
        own = self._files[split]
        if own and split != "train":
            return Part(resolve(own))
        path = resolve(self._files["train"] or "")
        test_begin = 1 - self._held["test"]
        val_begin = test_begin - self._held["val"]
        begin, end = {"train": (0.0, val_begin), "val": (val_begin, test_begin), "test": (test_begin, 1.0)}[
            split
        ]
        if begin == end:
            raise NoSuchSplit(
                f"{path.name} has no part for '{split}': see data.{split} and data.{split}_percent"
            )
        return Part(path, begin, end)


class TextSample(TextFile):
    """The topics of Python's own help, which come with Python: a text for trying things out.

    It differs from one version of Python to the next; figures on it say nothing but that things work.

    Args:
        level: symbols are words, characters or bytes.
        min_count: symbols that are rarer in the training text are `<unk>`.
        unroll: T, steps of a window of training.
    """

    def __init__(self, level: Level = "word", min_count: Count = 2, unroll: Size = 35) -> None:
        super().__init__(
            "topics",
            level=level,
            words="punctuation",
            lower=level != "byte",
            min_count=min_count,
            unroll=unroll,
        )

    def _part(self, split: str) -> Part:
        return super()._part(split)._replace(path=Path("Python's help topics"), text=topics())


def topics() -> str:
    """Python's help topics, one after the other.

    Raises:
        CompressnetError: this Python has none.
    """
    texts = topic_texts()
    return "\n".join(texts[name] for name in sorted(texts))


def topic_texts() -> dict[str, str]:
    """Python's help topics by name; some distributions of Python leave them out.

    Raises:
        CompressnetError: this one did.
    """
    try:
        from pydoc_data.topics import topics as texts
    except ImportError as error:
        raise CompressnetError(
            "this Python comes without pydoc_data.topics, the built-in samples' text: use files of your own"
        ) from error
    return dict(texts)
