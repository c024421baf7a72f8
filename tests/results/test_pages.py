"""Records, and the tables that are made from them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from compressnet import files
from compressnet.errors import CompressnetError
from compressnet.results import blocks, pages, records
from tests.conftest import ROOT

RECORDS = records.read_records(ROOT / "results")


def record(name: str = "mine", **changes: Any) -> dict[str, Any]:
    figures = {"mse": 1.0, "psnr": 40.0, "ssim": 0.98, "psnr_nothing": 30.0, "ssim_nothing": 0.9}
    return {
        "name": name,
        "subject": "zoo:rof",
        "smoke": False,
        "released": False,
        "metrics": figures,
        "rows": {"cat": figures, "dot": {"mse": 0.0, "psnr": "inf", "psnr_nothing": 50.0}},
        "operator": "rof",
        "model": "can24",
        "parameters": 37219,
        "data": {"name": "photo_folder", "count": 2, "fingerprint": "abc"},
        "split": "test",
        "seed": 0,
        "command": "compressnet eval zoo:rof",
        "device": "a processor",
        "commit": "0123456789",
        "versions": {"torch": "2"},
        "digest": "d" * 64,
        "training": {
            "step": 4000,
            "train_seconds": 600.0,
            "device": "a GPU",
            "command": "compressnet train x",
        },
        **changes,
    }


PUBLISHED = [
    {"operator": "rof:weight=0.055", "psnr": 46.2, "what": "theirs, of rof", "source": "a paper"},
    {"operator": "l0", "psnr": 36.4, "what": "theirs, of l0", "source": "a paper"},
]


def cells(table: str, row: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[row].strip("|").split("|")]


def test_theirs_and_ours_stand_apart_and_nothing_beside_both() -> None:
    rows = [record(), record("other", operator="l0"), record("none", operator=None, training=None)]
    table = pages.summary_table(rows, PUBLISHED)
    head = cells(table, 0)
    mine = dict(zip(head, cells(table, 2), strict=True))
    assert mine["do nothing"] == "30.00 / 0.9000"
    assert mine["ours"] == "**40.00 / 0.9800**"
    assert mine["authors' network"] == "46.20 [^1]"  # rof is rof:weight=0.055
    assert mine["trained"] == "4,000 steps, 10 min, a GPU"
    assert dict(zip(head, cells(table, 3), strict=True))["authors' network"] == "36.40 [^2]"
    other = dict(zip(head, cells(table, 4), strict=True))
    assert (other["authors' network"], other["operator"], other["trained"]) == ("not known", "-", "-")
    assert "[^1]: theirs, of rof" in table
    assert "[^2]: theirs, of l0" in table


def test_a_network_of_several_operators_has_a_row_for_each() -> None:
    figures = record()["metrics"]
    several = record(
        operator=None,
        operators=["rof", "l0"],
        task="conditioned_operator",
        model_args={"condition": "film"},
        rows={"rof": figures, "l0": {**figures, "psnr": 33.0}},
        data={"name": "photo_folder", "count": 4, "fingerprint": "abc"},
    )
    table = pages.summary_table([several], PUBLISHED)
    rows = [dict(zip(cells(table, 0), cells(table, row), strict=True)) for row in (2, 3, 4)]
    assert [row["operator"] for row in rows] == ["`rof`", "`l0`", "mean"]
    assert [row["ours"] for row in rows] == ["**40.00 / 0.9800**", "**33.00 / 0.9800**", "**40.00 / 0.9800**"]
    assert [row["authors' network"] for row in rows] == ["46.20 [^1]", "36.40 [^2]", "not known"]
    assert {row["network"] for row in rows} == {"can24 (film), 37,219"}
    assert {row["data, split"] for row in rows} == {"photo_folder, test (2)"}
    page = pages.results_page([several], PUBLISHED)
    assert "| operator | PSNR do nothing |" in page
    blend = {**several, "rows": {"0.5 rof + 0.5 l0": figures}}
    table = pages.summary_table([blend], PUBLISHED)
    assert "| `0.5 rof + 0.5 l0` |" in table
    assert "| mean |" not in table
    dial = {
        **several,
        "operators": ["l0"],
        "dial": {"lambda": [0.002, 0.02]},
        "rows": {"lambda=0.01": figures},
    }
    assert "| `l0, lambda=0.01` |" in pages.summary_table([dial], PUBLISHED)
    assert "| strength | PSNR do nothing |" in pages.results_page([dial], PUBLISHED)


def test_the_page_shows_every_picture_and_how_to_repeat_it() -> None:
    page = pages.results_page([record()], PUBLISHED)
    assert "| cat | 30.00 | 40.00 | 0.9000 | 0.9800 |" in page
    assert "| dot | 50.00 | inf | n/a | n/a |" in page
    for text in ("compressnet train x", "compressnet eval zoo:rof", "0123456789", "seed 0", "`" + "d" * 16):
        assert text in page


def marked(what: str, text: str) -> str:
    return f"before\n<!-- results: {what} (made by `make results`) -->\n{text}<!-- results: end -->\nafter\n"


def test_pages_are_written_between_the_marks_only(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    readme, page = tmp_path / "README.md", tmp_path / "docs" / "systems" / "fip.md"
    page.parent.mkdir(parents=True)
    assert blocks.write_pages(folder) == [tmp_path / "RESULTS.md"]
    readme.write_text(marked("mine*", "an earlier table\n"))
    page.write_text(marked("other mine", "") + "and " + marked("mine", ""))
    files.write_json(folder / "mine.json", record())
    files.write_json(folder / "other.json", record("other"))
    files.write_json(folder / records.PUBLISHED, PUBLISHED)
    assert blocks.write_pages(folder) == [tmp_path / "RESULTS.md", readme, page]
    text = readme.read_text()
    assert text.startswith("before\n<!-- results: mine* (made by `make results`) -->\n| record")
    assert text.endswith("<!-- results: end -->\nafter\n")
    assert "an earlier table" not in text
    assert "46.20" in text
    assert "[mine](results/mine.json)" in text
    assert page.read_text().count("| mine |") == 2  # the manual does not hold the records
    assert page.read_text().count("| other |") == 1
    before = page.read_text()
    blocks.write_pages(folder)
    assert (readme.read_text(), page.read_text()) == (text, before)
    page.write_text(marked("nothing_*", "| an | earlier |\n"))
    blocks.write_pages(folder)
    assert page.read_text() == marked("nothing_*", "No records yet.\n")
    page.write_text(marked("nothing", ""))
    with pytest.raises(CompressnetError, match=r"docs/systems/fip.md: there is no record nothing"):
        blocks.write_pages(folder)
    page.write_text(before.replace("<!-- results: end -->", "", 1))
    with pytest.raises(CompressnetError, match="lost the marks"):
        blocks.write_pages(folder)


def test_a_system_without_records_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = blocks.System("Mine", "docs/m.md", "compressnet train m", "mine_*", "psnr", "dB", "photographs")
    monkeypatch.setattr(blocks, "SYSTEMS", (row,))
    readme, folder = tmp_path / "README.md", tmp_path / "results"
    folder.mkdir()
    readme.write_text(marked("systems", ""))
    blocks.write_pages(folder)
    assert (
        "| [Mine](docs/m.md) | `compressnet train m` | - | no records yet | - | photographs |"
        in readme.read_text()
    )
    files.write_json(folder / "mine_0.json", record("mine_0"))
    blocks.write_pages(folder)
    assert "no records yet" not in readme.read_text()


def test_figures_that_json_cannot_hold(tmp_path: Path) -> None:
    tree = {"psnr": math.inf, "rows": [{"a": -math.inf}, (math.nan, 1.5, True, None, "x")]}
    plain = files.finite(tree)
    files.write_json(tmp_path / "x.json", plain)
    back = json.loads((tmp_path / "x.json").read_text())
    assert back == {"psnr": "inf", "rows": [{"a": "-inf"}, ["nan", 1.5, True, None, "x"]]}
    assert float(back["psnr"]) == math.inf


def test_shipped_records_name_no_place_of_a_machine() -> None:
    for path in (ROOT / "results").glob("*.json"):
        text = path.read_text()
        assert str(ROOT) not in text, path.name
        assert "/home/" not in text, path.name
        assert '"smoke": true' not in text, path.name


@pytest.mark.skipif(not RECORDS, reason="nothing has been recorded yet")
def test_pages_are_in_step_with_the_records() -> None:
    published = records.read_published(ROOT / "results")
    assert (ROOT / "RESULTS.md").read_text() == pages.results_page(RECORDS, published), "run: make results"
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text, name = path.read_text(), path.relative_to(ROOT).as_posix()
        assert text == blocks.filled(text, name, RECORDS, published), f"{name}: run: make results"


def test_every_system_of_the_readme_has_a_page_and_records() -> None:
    readme = (ROOT / "README.md").read_text()
    for system in blocks.SYSTEMS:
        assert (ROOT / system.page).is_file()
        assert f"[{system.name}]({system.page})" in readme
        page = (ROOT / system.page).read_text()
        assert system.command in page
