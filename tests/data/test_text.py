"""Texts: cutting, vocabularies, windows, the sets and what is wrong with files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.text import Part, TextSplit, read_part
from compressnet.data.text_sets import PTB, Hutter, TextFile, TextSample, WikiText
from compressnet.data.vocabulary import Tokenizer, Vocabulary, count
from compressnet.errors import CompressnetError


def assets(*symbols: str, **tokenizer: Any) -> dict[str, Any]:
    return {"tokenizer": Tokenizer(**tokenizer).to_dict(), "vocabulary": list(symbols)}


def characters(path: Path, text: str, window: int, training: bool) -> TextSplit:
    path.write_text(text, encoding="utf-8", newline="")
    known = assets(*dict.fromkeys(text), level="character")
    return TextSplit(Part(path), Tokenizer("character"), window, 1, known, training)


def test_words_end_with_the_line() -> None:
    assert Tokenizer().split(" a b \n\n c\n") == ["a", "b", "<eos>", "<eos>", "c", "<eos>"]


def test_words_and_punctuation() -> None:
    cut = Tokenizer(words="punctuation", lower=True)
    text = cut.decode(b"Don't stop, World!\n", "t")
    assert cut.split(text) == ["don't", "stop", ",", "world", "!", "<eos>"]
    assert cut.join(cut.split(text)) == "don't stop, world!\n"


def test_bytes_are_read_as_they_are() -> None:
    cut = Tokenizer("byte")
    raw = bytes(range(256))
    assert [ord(symbol) for symbol in cut.split(cut.decode(raw, "b"))] == list(raw)
    assert cut.join(cut.split(cut.decode("grün".encode(), "b"))) == "grün"


def test_a_vocabulary_falls_in_frequency_and_keeps_what_is_rare_apart() -> None:
    vocabulary = Vocabulary.of({"c": 2, "a": 2, "b": 5, "x": 1, "y": 1}, min_count=2)
    assert vocabulary.symbols == ["b", "<unk>", "a", "c"]
    assert vocabulary.encode(["b", "x", "c"], "t").tolist() == [0, 1, 3]


def test_unknown_symbols_without_an_unknown_symbol() -> None:
    with pytest.raises(CompressnetError, match=r"t: 2 symbols are not in the vocabulary.*'q', 'z'"):
        Vocabulary(["a"]).encode(["a", "q", "z", "q"], "t")
    with pytest.raises(CompressnetError, match="'z'"):
        Vocabulary(["a"]).encode("az", "t")


@pytest.mark.parametrize(("symbols", "message"), [([], "is empty"), (["a", "b", "a"], "'a' twice")])
def test_what_is_no_vocabulary(symbols: list[str], message: str) -> None:
    with pytest.raises(CompressnetError, match=message):
        Vocabulary(symbols)


@given(st.text(alphabet="abc\nü𝄞", min_size=1))
def test_characters_come_back(text: str) -> None:
    vocabulary = Vocabulary.of(count(text))
    assert "".join(vocabulary.decode(vocabulary.encode(text, "t").tolist())) == text
    assert count(text) == count(list(text))


@given(st.integers(1, 700), st.integers(1, 40))
def test_every_symbol_is_a_target_once_in_evaluation(length: int, window: int) -> None:
    split = TextSplit(Part(Path("t"), text="ab" * length), Tokenizer(), window, 1, {}, False)
    split = TextSplit(split.part, split.tokenizer, window, 1, assets("a", "b", level="character"), False)
    pieces = [split[Key(0, index, index)] for index in range(len(split))]
    assert torch.equal(torch.cat([piece.targets for piece in pieces]), split.numbers[1:])
    assert torch.equal(torch.cat([piece.inputs for piece in pieces]), split.numbers[:-1])
    assert split.target_count == 2 * length


def test_training_windows_follow_each_other(tmp_path: Path) -> None:
    split = characters(tmp_path / "t", "abcdefghijk", 3, training=True)
    assert len(split) == 3  # 11 symbols, 2 are left out
    batch = split.collate([split[Key(0, index, index)] for index in (0, 1)])
    assert batch.inputs.shape == batch.targets.shape == (3, 2)
    text = "".join(split._vocabulary.decode(batch.targets[:, 1].tolist()))  # type: ignore[union-attr]
    assert text == "def"
    assert torch.equal(batch.inputs[1:], batch.targets[:-1])


def test_what_stands_before_a_text() -> None:
    assert Vocabulary(["the", "<eos>"]).start == 1
    assert Vocabulary(["a", "\n"]).start == 1
    assert Vocabulary(["a", "b"]).start == 0


def test_ptb_has_its_files_and_counts_lines_ends(tmp_path: Path) -> None:
    for name, text in (("train", " a b\n c a \n"), ("valid", " a \n"), ("test", " b c \n")):
        (tmp_path / f"ptb.{name}.txt").write_text(text)
    data = PTB(str(tmp_path), unroll=2)
    train = data.open("train", {}, 0)
    assert train.facts()["count"] == 6
    known = assets(*Vocabulary.of(count(train.symbols)).symbols)
    assert data.open("val", known, 0).numbers.tolist() == [0, 1, 0]  # <eos> a <eos>
    assert data.check() == []


def test_wikitext_in_both_namings(tmp_path: Path) -> None:
    for name in ("wiki.train.tokens", "wiki.valid.tokens", "test.txt"):
        (tmp_path / name).write_text(" = Title = \n")
    data = WikiText(str(tmp_path))
    assert [data.open(split, {}, 0).facts()["count"] for split in ("train", "val", "test")] == [4, 4, 4]


def test_the_hutter_prize_text_has_its_size(tmp_path: Path) -> None:
    path = tmp_path / "enwik8"
    path.write_bytes(b"abc")
    with pytest.raises(CompressnetError, match=r"has 3 bytes, enwik8 and text8 have 100,000,000"):
        Hutter(str(path)).open("train", {}, 0)
    assert Hutter(str(path))._tokenizer.level == "byte"


@given(st.integers(0, 2**32), st.floats(0, 40), st.floats(0, 40), st.booleans())
def test_held_out_ends_and_the_rest_are_the_text(
    seed: int, val: float, test: float, characters: bool
) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choice("ab \n") for _ in range(draw.randint(1, 300))) + "\n"
    data = TextFile("t", val_percent=val, test_percent=test, level="character" if characters else "word")
    pieces = []
    for split in ("train", "val", "test"):
        try:
            part = data._part(split)._replace(text=text)
        except NoSuchSplit:
            continue
        pieces.append(read_part(part, data._tokenizer))
    assert "".join(pieces) == text
    if not characters:
        assert all(piece == "" or piece.endswith("\n") for piece in pieces)


def test_words_of_one_long_line_are_held_out_too(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("one two three " * 3000)
    data = TextFile(str(tmp_path / "t"))
    parts = [data.open(split, {}, 0) for split in ("train", "val", "test")]
    assert [part.symbols[-1] for part in parts] == ["<eos>"] * 3
    words = [[word for word in part.symbols if word != "<eos>"] for part in parts]
    assert [*words[0], *words[1], *words[2]] == ["one", "two", "three"] * 3000
    assert [round(len(piece) / 90) for piece in words] == [90, 5, 5]


def test_what_the_training_text_lacks_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("ab" * 200 + "\u20ac")
    (problem,) = TextFile(str(tmp_path / "t"), level="character").check()
    assert "not in the vocabulary" in problem
    assert "'\u20ac'" in problem
    assert "data.min_count=2" in problem
    (tmp_path / "t").write_text("c" + "ab" * 200 + "\u20ac")  # c comes once and is <unk>
    assert TextFile(str(tmp_path / "t"), level="character", min_count=2).check() == []


def test_a_bad_file_is_found_where_every_symbol_is_known(tmp_path: Path) -> None:
    for name, raw in (("train", b" a <unk> \n"), ("valid", b" \xff \n"), ("test", b"")):
        (tmp_path / f"ptb.{name}.txt").write_bytes(raw)
    not_text, empty = PTB(str(tmp_path)).check()
    assert "ptb.valid.txt: not UTF-8" in not_text
    assert "ptb.test.txt: there is no text in it" in empty


def test_rare_words_of_ones_own_file_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("c\n" + "a b\n" * 20 + "d\n" * 4)
    assert TextFile(str(tmp_path / "t")).check() == []
    assert TextFile(str(tmp_path / "t")).open("train", {}, 0).min_count == 2
    assert TextFile(str(tmp_path / "t"), level="byte").open("train", {}, 0).min_count == 1
    with pytest.raises(ValueError, match="bytes have no case"):
        TextFile(str(tmp_path / "t"), level="byte", lower=True)


def test_files_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x y\n" * 50)
    (tmp_path / "b").write_text("y\n")
    data = TextFile(str(tmp_path / "a"), val=str(tmp_path / "b"), test_percent=0)
    assert data.open("train", {}, 0).facts()["count"] == 150
    assert data.open("val", {}, 0).facts()["count"] == 2
    with pytest.raises(NoSuchSplit, match=r"data\.test_percent"):
        data.open("test", {}, 0)
    with pytest.raises(NoSuchSplit, match="only train, val and test"):
        data.open("extra", {}, 0)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"there is no text in it"),
        (b" \n\n", r"there is no text in it"),
        (b"ab\xff", r"not UTF-8 text \(byte 2 is 0xff\); convert it, or read it with level: byte"),
        (b"a b\n", r"3 symbols are fewer than a window has \(35\)"),
    ],
)
def test_texts_that_cannot_be_trained_on(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(raw)
    split = TextFile(str(tmp_path / "t"), val_percent=0, test_percent=0).open("train", {}, 0)
    with pytest.raises(CompressnetError, match=message):
        len(split)
    assert "t" in str(split.part.path)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match=r"ptb\.train\.txt: no such file; relative paths.*Mikolov"):
        PTB(str(tmp_path)).open("train", {}, 0)
    assert len(PTB(str(tmp_path)).check()) == 3


def test_the_sample_is_there() -> None:
    train = TextSample().open("train", {}, 0)
    assert train.facts()["count"] > 50_000
    assert "python" in train.text
    assert TextSample().check() == []
