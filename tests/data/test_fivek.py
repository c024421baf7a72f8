from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressnet.data.fivek import FiveK, read_ids, training_ids
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.errors import CompressnetError, UsageError

ASSETS = {"operator": "rof:max_iterations=2"}
IDS = [f"a{number:04d}" for number in range(1, 101)]


def names(data: FiveK, split: str) -> list[str]:
    return [photo.name for photo in data.photographs(split)[0]]


@pytest.fixture
def exported(home: Path, make_photo: Any) -> Path:
    """A hundred exported photographs, in layout 7."""
    for i, name in enumerate(IDS):
        make_photo(
            home / "fivek" / "inputs" / f"{name}-some_Text-{i}{('.png', '.JPG', '.tif')[i % 3]}", 12, 18
        )
    return home / "fivek"


def test_the_split_is_2500_2500_and_stays_what_it_is() -> None:
    train = training_ids()
    everything = {f"a{number:04d}" for number in range(1, 5001)}
    assert len(train) == 2500
    assert train < everything
    assert sorted(train)[:4] == ["a0002", "a0004", "a0009", "a0011"]


def test_part_of_the_set_is_split_like_the_whole(exported: Path) -> None:
    data = FiveK()
    train, val, test = (names(data, split) for split in ("train", "val", "test"))
    assert sorted(train + val + test) == IDS
    assert set(train + val) == set(IDS) & training_ids()
    assert val
    assert data.open("train", ASSETS, 0).facts()["split"] == "ours, hashed 2500/2500"
    assert data.open("test", ASSETS, 0).facts()["layout"] == "exported"


def test_samples(exported: Path) -> None:
    opened = FiveK(min_side=8, max_side=12, crop=8).open("train", ASSETS, 0)
    assert opened.collate([opened[Key(0, index, index)] for index in range(5)]).inputs.shape == (5, 3, 8, 8)


@pytest.mark.parametrize("folder", ["", "input", "inputs"])
def test_exported_files_in_any_of_three_places(home: Path, make_photo: Any, folder: str) -> None:
    make_photo(home / "fivek" / folder / "a0001.png")
    split = "train" if "a0001" in training_ids() else "test"
    assert names(FiveK(val_percent=0), split) == ["a0001"]


@pytest.mark.parametrize("above", ["", "fivek_dataset"])
def test_archive(home: Path, above: str) -> None:
    photos = home / "fivek" / above / "raw_photos"
    for i, folder in ((1, "HQa1to700"), (1400, "HQa1400to2100"), (5000, "HQa4201to5000")):
        path = photos / folder / "photos" / f"a{i:04d}-jmac_MG-{i}.dng"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"raw")
    data = FiveK(val_percent=0)
    assert sorted(names(data, "train") + names(data, "test")) == ["a0001", "a1400", "a5000"]
    assert data.photographs("test")[1]["layout"] == "archive"


@pytest.mark.parametrize("above", ["", "data"])
def test_fips_folders_are_a_split(home: Path, make_photo: Any, above: str) -> None:
    base = home / "fip" / above
    for number in range(1, 41):
        make_photo(base / "MIT-Adobe_train_480p" / f"{number:06d}.png", 8, 12)
        make_photo(base / "MIT-Adobe_train_random" / f"{number:06d}.png", 8, 12)
    make_photo(base / "MIT-Adobe_test_1080p" / "000001.png")
    data = FiveK("fip", val_percent=20)
    train, val = names(data, "train"), names(data, "val")
    assert names(data, "test") == ["MIT-Adobe_test_1080p/000001"]
    assert len(train) + len(val) == 80
    assert not {name[-6:] for name in train} & {
        name[-6:] for name in val
    }  # both sizes of a photograph together
    assert data.photographs("train")[1] == {"split": "FIP's folders", "layout": "FIP"}
    (home / "list.txt").write_text("1\n")
    with pytest.raises(UsageError, match="FIP"):
        FiveK("fip", train_list="list.txt").open("train", ASSETS, 0)


@pytest.mark.parametrize(
    "text",
    [
        "a0001\na0007\n",
        "1\n0007\n",
        "a0001-jmac_DSC1459.png\nfolder/a0007-x.tif\n",
        "input,target\nrgb/a0001-x.tif,out/a0001-x.tif\nrgb\\a0007.tif,y\n",
        "\ufeff# mine\n\n000001.png\n 7 \n",
        '"a0001","x"\n"a0007","y"\n',
    ],
)
def test_lists_in_the_forms_of_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert read_ids(tmp_path / "list.txt") == {"a0001", "a0007"}


@pytest.mark.parametrize("line", ["a5001", "0", "5001", "b0001", "photo"])
def test_list_with_a_wrong_line_names_it(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"a0001\n{line}\n")
    with pytest.raises(CompressnetError, match=rf"list\.txt:2: '{line}'"):
        read_ids(tmp_path / "list.txt")


def test_users_lists(exported: Path, home: Path) -> None:
    (home / "train.txt").write_text("\n".join(IDS[:60]))
    (home / "test.txt").write_text("\n".join(IDS[70:80]))
    data = FiveK(train_list="train.txt", test_list="test.txt")
    assert sorted(names(data, "train") + names(data, "val")) == IDS[:60]
    assert names(data, "test") == IDS[70:80]
    assert data.photographs("test")[1]["split"] == "the user's lists"
    assert names(FiveK(train_list="train.txt"), "test") == IDS[60:]
    alone = FiveK(test_list="test.txt", val_percent=0)
    assert names(alone, "train") == IDS[:70] + IDS[80:]


def test_lists_that_overlap_or_are_missing(exported: Path, home: Path) -> None:
    (home / "list.txt").write_text("a0001\na0002\n")
    with pytest.raises(CompressnetError, match="share 2 photographs, a0001"):
        FiveK(train_list="list.txt", test_list="list.txt").open("train", ASSETS, 0)
    with pytest.raises(CompressnetError, match=r"none\.txt"):
        FiveK(train_list="none.txt").open("train", ASSETS, 0)


def test_check_lists_every_defect(exported: Path, home: Path, make_photo: Any) -> None:
    assert FiveK().check() == []
    make_photo(exported / "inputs" / "holiday.png")
    make_photo(exported / "inputs" / "sub" / "a0001.png")
    (exported / "inputs" / "a0200.png").write_text("no")
    (home / "list.txt").write_text("a0001\na4000\n")
    problems = FiveK(train_list="list.txt").check()
    assert len(problems) == 4
    for part in ("holiday.png", "second file for a0001", "a0200.png", "a4000, which is not on disk"):
        assert sum(part in problem for problem in problems) == 1
    with pytest.raises(CompressnetError, match=r"(?s)holiday\.png.*\n.*a second file for a0001"):
        FiveK().open("train", ASSETS, 0)


@pytest.mark.parametrize("there", [False, True])
def test_missing_data_says_where_what_and_how_to_obtain_it(home: Path, there: bool) -> None:
    if there:
        (home / "fivek").mkdir()
    with pytest.raises(CompressnetError) as caught:
        FiveK().open("train", ASSETS, 0)
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        str(home / "fivek"),
        "--data-root",
        "data.csail.mit.edu/graphics/fivek",
        "raw_photos/",
        "--smoke",
    ):
        assert part in text
    assert FiveK().check() == [text]


def test_splits_that_do_not_exist(exported: Path) -> None:
    with pytest.raises(NoSuchSplit):
        FiveK().open("dev", ASSETS, 0)
    with pytest.raises(NoSuchSplit):
        FiveK(val_percent=0).open("val", ASSETS, 0)


@pytest.mark.skipif(not Path("../shared/data/fivek/input").is_dir(), reason="the photographs are not here")
def test_real_photographs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSNET_DATA", str(Path("../shared/data").resolve()))
    data = FiveK(val_percent=0)
    assert len(names(data, "train")) + len(names(data, "test")) == 16
    assert data.check() == []
