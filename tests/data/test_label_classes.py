from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressnet.data.label_classes import LabelClasses, label_classes, shipped
from compressnet.errors import CompressnetError

HEADER = "id,name,colour,ignore\n"


def written(folder: Path, text: str) -> LabelClasses:
    (folder / "mine.csv").write_text(text)
    return label_classes("mine.csv", folder)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(CompressnetError) as error:
        written(folder, text)
    return error.value.problems


def test_outputs_are_the_rows_that_count(tmp_path: Path) -> None:
    rows = "0,void,#000000,1\n26, car ,#00008E,0\n7,road,#804080,no\n\n9,dust,,yes\n"
    classes = written(tmp_path, "\ufeff" + HEADER + rows)
    assert (classes.names, classes.ids) == (("car", "road"), (26, 7))
    assert classes.colours == ((0, 0, 142), (128, 64, 128))
    assert (classes.ignored_ids, classes.ignored_colours) == ((0, 9), ((0, 0, 0),))
    assert classes.categories is None
    assert classes.instances is None
    again = written(tmp_path, "name,ignore,id,colour\ncar,0,26,#00008e\nroad,,7,#804080\n")
    assert (again.names, again.ids) == (classes.names, classes.ids)


def test_what_is_shipped() -> None:
    assert shipped() == ["camvid", "cityscapes", "voc"]
    camvid, cityscapes, voc = (label_classes(name, Path()) for name in shipped())
    assert camvid.names[9:] == ("Pedestrian", "Bicyclist")
    assert (camvid.ids, camvid.ignored_ids) == (tuple(range(11)), (11,))
    assert (len(voc), voc.names[0], voc.ignored_ids) == (21, "background", (255,))
    assert len(cityscapes) == 19
    assert sorted((*cityscapes.ids, *cityscapes.ignored_ids)) == list(range(34))
    assert cityscapes.ids[:3] == (7, 8, 11)
    assert cityscapes.categories is not None
    assert cityscapes.instances is not None
    assert len(set(cityscapes.categories)) == 7
    objects = [n for n, one in zip(cityscapes.names, cityscapes.instances, strict=True) if one]
    assert objects == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    by_index = cityscapes.renumbered()
    assert (by_index.ids[-1], by_index.ignored_ids, by_index.names) == (18, (255,), cityscapes.names)


@pytest.mark.parametrize("name", ["camvid", "cityscapes"])
def test_assets_keep_all(name: str) -> None:
    classes = label_classes(name, Path())
    assets = json.loads(json.dumps({**classes.to_assets(), "other": 1}))
    assert LabelClasses.from_assets(assets) == classes
    assert assets["classes"] == list(classes.names)
    classes.check(assets)
    classes.check({})
    with pytest.raises(CompressnetError, match="the data has the classes background"):
        label_classes("voc", Path()).check(assets)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ids": [0, 300]}, "assets: damaged: 'ids.1'"),
        ({"ids": [0]}, "not every class has an id and a colour"),
        ({"ids": [4, 4]}, "two classes have one id"),
        ({"classes": ["a", "a"]}, "two classes have one name"),
        ({"classes": ["a", "\x1b[31mb"]}, "a name that cannot be printed"),
        ({"colours": [[0, 0, 0], [1, 2]]}, "'colours.1'"),
        ({"classes": []}, "'classes'"),
        ({"instances": [True]}, "not every class"),
    ],
)
def test_assets_of_strangers_are_checked(change: dict[str, object], problem: str) -> None:
    good = LabelClasses(("a", "b"), (0, 1), ((0, 0, 0), (1, 1, 1))).to_assets()
    assert LabelClasses.from_assets(good).names == ("a", "b")
    with pytest.raises(CompressnetError, match=problem):
        LabelClasses.from_assets({**good, **change})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,road,#000000,0\n", ":1: has to be the header `id,name,colour,ignore`"),
        ("", ":1: has to be the header"),
        ("id,name,colour,ignore,kind\n", ":1: unknown column 'kind'"),
        (HEADER + "0,a,#000000\n", ":2: 3 cells, the header has 4"),
        ("id,id,name,colour,ignore\n", ":1: the header has a column twice"),
        (
            "id,name,colour,ignore,category\n0,a,#000000,0," + "x" * 101 + "\n",
            ":2: the category has to have up to 100",
        ),
        (HEADER + "256,a,#000000,0\n", ":2: id '256' is no whole number from 0 to 255"),
        (HEADER + "-1,a,#000000,0\n", ":2: id '-1'"),
        (HEADER + "0,,#000000,0\n", ":2: the name has to have"),
        (HEADER + "0,a,black,0\n", ":2: colour 'black' is not written as #rrggbb"),
        (HEADER + "0,a,,0\n", ":2: colour '' is not"),
        (HEADER + "0,a,#000000,maybe\n", ":2: ignore 'maybe' is neither 0 nor 1"),
        (HEADER + "0,a,#000000,0\n0,b,#000001,0\n", ":3: id '0' is that of 'a' in line 2"),
        (HEADER + "0,a,#000000,0\n1,a,#000001,0\n", ":3: name 'a' is that of 'a' in line 2"),
        (HEADER + "0,a,#0000aa,0\n1,b,#0000AA,1\n", ":3: colour '#0000aa' is that of 'a' in line 2"),
        (HEADER + "0,a,#000000,1\n1,b,#000000,1\n", "0 classes are not ignored"),
    ],
)
def test_mistakes_in_class_files(tmp_path: Path, text: str, expected: str) -> None:
    (line,) = problems(tmp_path, text)
    assert "mine.csv" in line
    assert expected in line


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, HEADER + "x,a,#000000,0\n1,b,red,0\n2,c,#000000,0\n2,d,#000001,0\n")) == 3


def test_no_such_class_file(tmp_path: Path) -> None:
    for text, problem in (("cityscape", "did you mean 'cityscapes'"), ("none.csv", "cannot be read")):
        with pytest.raises(CompressnetError, match=problem):
            label_classes(text, tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CompressnetError, match="not a small CSV in UTF-8"):
        label_classes("binary.csv", tmp_path)
