"""Records: their names, where they go, and what must not be in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressnet.errors import CompressnetError, UsageError
from compressnet.results import records
from compressnet.results.pages import results_page
from tests.conftest import ROOT


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CompressnetError, match=r"bad\.json: damaged, not JSON"):
        records.read_records(tmp_path)


def test_names_of_records(tmp_path: Path) -> None:
    assert records.record_path(tmp_path, "can24_rof-1.2", overwrite=False) == tmp_path / "can24_rof-1.2.json"
    for name in ("../x", "A", "", "published", ".x", "a b"):
        with pytest.raises(UsageError):
            records.record_path(tmp_path, name, overwrite=True)


def test_no_place_of_this_machine_in_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("home/me", "home/me2", "project", "data", "cache"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    monkeypatch.setenv("COMPRESSNET_DATA", str(tmp_path / "link"))
    monkeypatch.setenv("COMPRESSNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    expected = {
        "eval {}/project/runs/x --data-root {}/link --cache={}/cache": "eval runs/x",
        "eval x --data photo_folder:root={}/data/a,test_root={}/link/b": (
            "eval x --data photo_folder:root=$COMPRESSNET_DATA/a,test_root=$COMPRESSNET_DATA/b"
        ),
        "eval x --data a:root={}/data": "eval x --data a:root=$COMPRESSNET_DATA",
        "eval {}/home/me/x": "eval ~/x",
        "eval '{}/home/me/my photos/x'": "eval '~/my photos/x'",
        "eval {}/home/me2/x ../data/x ./x": "eval {}/home/me2/x ../data/x ./x",
        "eval x --data a:root={}/project": "eval x --data a:root=.",
        "eval x --data-root={}/data --results {}/project/results": "eval x --results results",
    }
    for typed, shown in expected.items():
        assert records.symbolic(typed.replace("{}", str(tmp_path))) == shown.replace("{}", str(tmp_path))


def test_no_place_in_any_text_of_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {"rows": [{"side": f"{tmp_path}/runs/a", "args": {"norm": "bn", "ids": (1, 2)}}], "load": None}
    plain = {"rows": [{"side": "runs/a", "args": {"norm": "bn", "ids": [1, 2]}}], "load": None}
    assert records.without_places(tree) == plain


def test_a_record_makes_its_folder(tmp_path: Path) -> None:
    records.store(tmp_path / "new" / "a.json", {"x": 1})
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"x": 1}
    (tmp_path / "file").write_text("")
    with pytest.raises(CompressnetError, match="cannot write"):
        records.store(tmp_path / "file" / "a.json", {"x": 1})


def test_a_record_that_lacks_what_is_optional_has_a_line(tmp_path: Path) -> None:
    record = json.loads((ROOT / "results" / "lm_ptb_sru.json").read_text())
    del record["training"]["metric"], record["operator"], record["recipe"]
    (tmp_path / "a.json").write_text(json.dumps(record))
    page = results_page(records.read_records(tmp_path), [{"what": "others'", "operator": "rof"}])
    assert "[lm_ptb_sru](results/lm_ptb_sru.json)" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": "train 'x"}, "'training.command' No closing quotation"),
        ({"curve": [[5, None, None]]}, "'training.curve.0' a point of a curve has a step and a figure"),
    ],
)
def test_a_record_of_wrong_values_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    record = json.loads((ROOT / "results" / "lm_ptb_sru.json").read_text())
    record["training"] |= change
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(CompressnetError) as caught:
        records.read_records(tmp_path)
    assert message.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operators": ["rof", "zz"]}, "'operators.1' there is no operator 'zz'"),
        ({"operators": []}, "'operators'"),
        ({"dial": {"weight": [0.1, 0.2]}}, "a dial is of one operator"),
        ({"operators": ["rof"], "dial": {"weight": [0.1]}}, "'dial.weight'"),
        ({"rows": {}}, "rows: each is of as many images"),
        ({"rows": {str(number): {} for number in range(5)}}, "rows: each is of as many images"),
    ],
)
def test_a_record_of_operators_agrees_with_itself(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    record = json.loads((ROOT / "results" / "operators_zoo.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(record | change))
    with pytest.raises(CompressnetError) as caught:
        records.read_records(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "a.json"))
    assert message in str(caught.value)
