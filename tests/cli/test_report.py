"""`report`: every kind of run makes one page that needs nothing else, and no name breaks it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from compressnet.report import contents
from tests.cli.conftest import Cli

NAME = "<script>alert(1)</script>"
_VOID = ("meta", "link", "img", "input")


class Page(HTMLParser):
    """A page as a browser reads it.

    Attributes:
        elements: (name, attributes) of all, in order.
        sections: the text of each section by its id; "" has what is in none.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {"": ""}
        self._at, self._open = "", ["html"]
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == ["html"], "elements that are not closed"

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, {key: value or "" for key, value in attributes}))
        if name == "section":
            self._at = self.elements[-1][1]["id"]
            self.sections[self._at] = ""
        if name not in (*_VOID, "html"):
            self._open.append(name)

    def handle_endtag(self, name: str) -> None:
        if name != "html":
            assert self._open.pop() == name
        if name == "section":
            self._at = ""

    def handle_data(self, data: str) -> None:
        if self._open[-1] not in ("style", "script"):
            self.sections[self._at] += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for element, attributes in self.elements if element == name]


def copied(run: Path, place: Path, name: str = "run") -> Path:
    return Path(shutil.copytree(run, place / name)).relative_to(place)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def evaluated(run: Path, **values: Any) -> None:
    """Write what `eval` would have found."""
    report = {
        "subject": str(run),
        "checkpoint": "step-8",
        "smoke": True,
        "data": {"name": "sample", "count": 2, "fingerprint": "0123456789abcdef"},
        "split": "test",
        "seed": 0,
        "device": "a device",
        "metrics": {"psnr": 31.25, "psnr_nothing": 30.0},
        "rows": {},
        "details": {},
        "measures": {},
    }
    (run / "eval.json").write_text(json.dumps({**report, **values}))


@pytest.fixture(scope="session")
def other_runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Path]:
    """Finished smoke runs of a language model and of a classifier."""
    from compressnet import recipe, run, subject
    from compressnet.training.train import train

    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSNET_CACHE", str(cache))
        for name, quicker in (("lm_sample", ["data.unroll=90"]), ("sentences_sru", [])):
            loaded = recipe.Recipe.load(subject.recipe_path(name), quicker, smoke=True)
            made[name] = tmp_path_factory.mktemp("other") / name
            train(run.Run.create(loaded, folder=made[name]), device=torch.device("cpu"))
    return made


@pytest.fixture(scope="module", autouse=True)
def _counted_once() -> Iterator[None]:
    """Layers of the same weights are counted once; it is most of what a page takes."""
    known: dict[bytes, contents.Counted] = {}
    counted = contents._counted

    def once(chosen: contents.Chosen) -> contents.Counted:
        weights = chosen.run.checkpoints.weights(chosen.subject.checkpoint).read_bytes()
        if weights not in known:
            known[weights] = counted(chosen)
        return known[weights]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "_counted", once)
        yield


def test_an_image_run(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    evaluated(run, rows={"astronaut": {"psnr": 33.5}, "chelsea": {"psnr": 29.0}})
    assert cli("report", f"./{run}").stdout == "run/report.html\n"
    page = Page(run / "report.html")
    assert list(page.sections)[1:] == ["results", "pictures", "curves", "layers", "recipe", "environment"]
    assert "smoke run" in page.sections[""]
    assert "figures mean nothing" in page.sections[""]
    for words in ("31.25", "doing nothing", "30.00", "astronaut", "33.50"):
        assert words in page.sections["results"]
    pictures = [image["alt"] for image in page.all("img")]
    panes = ("input", "target", "network", "error x 8")
    assert pictures == [f"{name}, {pane}" for name in ("coffee", "retina") for pane in panes]
    assert "rof:weight=0.1" in page.sections["recipe"]
    assert "blocks.0.conv" in page.sections["layers"]
    assert "The parameters take 148.9 kB." in page.sections["layers"]
    assert "148.9" not in page.sections["layers"].partition("total")[2]  # no size in a column of shares
    assert "fingerprint" in page.sections["environment"]


def test_the_panes_are_exactly_those_of_the_preview(cli: Cli, smoke_run: Path) -> None:
    cli("report", smoke_run, "-o", "page.html")
    strip = Pillow.open(next((smoke_run / "previews").glob("*-coffee.png"))).convert("RGB")
    shown = [image["src"].partition("base64,")[2] for image in Page(Path("page.html")).all("img")[:4]]
    panes = [np.asarray(Pillow.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data in shown]
    gap = np.full((strip.height, 4, 3), 255, np.uint8)
    whole = np.concatenate([panes[0], gap, panes[1], gap, panes[2], gap, panes[3]], axis=1)
    assert np.array_equal(whole, np.asarray(strip))


def test_nothing_is_loaded_and_only_its_own_script_runs(cli: Cli, smoke_run: Path) -> None:
    cli("report", smoke_run, "-o", "page.html")
    page = Page(Path("page.html"))
    places = [value for _, attributes in page.elements for key, value in attributes.items()
              if key in ("src", "href", "action", "data", "poster", "srcset")]  # fmt: skip
    assert places
    assert all(place.startswith(("data:", "#")) for place in places)
    assert "url(" not in page.source
    assert "@import" not in page.source
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not any(key.startswith("on") or key == "style" for _, found in page.elements for key in found)


def test_it_is_the_same_page_again_and_overwrites_nothing(cli: Cli, smoke_run: Path) -> None:
    done = json.loads(cli("report", smoke_run, "-o", "page.html", "--json").stdout)
    first = Path("page.html").read_bytes()
    assert done == {"output": "page.html", "bytes": len(first)}
    error = cli("report", smoke_run, "-o", "page.html", code=1).error
    assert error == "page.html exists: add --force to overwrite it"
    cli("report", smoke_run, "-o", "page.html", "--force")
    assert Path("page.html").read_bytes() == first


def test_a_language_model(cli: Cli, other_runs: dict[str, Path]) -> None:
    cli("report", other_runs["lm_sample"], "-o", "page.html")
    page = Page(Path("page.html"))
    assert "validation samples" in page.sections["texts"]
    assert "perplexity" in page.sections["results"]
    assert "a token" in page.sections["layers"]
    assert "tied: " in page.sections["layers"]
    assert "Not evaluated on test data yet: compressnet eval" in page.sections["results"]


def test_a_classifier_shows_what_it_mixes_up(cli: Cli, place: Path, other_runs: dict[str, Path]) -> None:
    run = copied(other_runs["sentences_sru"], place)
    cli("eval", f"./{run}")
    cli("report", f"./{run}")
    page = Page(run / "report.html")
    stored = json.loads((run / "eval.json").read_text())["details"]["confusion"]
    assert all(name in page.sections["confusion"] for name in stored["classes"])
    shaded = [cell for cell in page.all("td") if "data-shade" in cell]
    assert len(shaded) == len(stored["classes"]) ** 2
    many = [f"class {number}" for number in range(50)]
    counts = np.zeros((50, 50), int)
    counts[7, 9] = 1234
    change(run / "eval.json", details={"confusion": {"classes": many, "counts": counts.tolist()}})
    cli("report", f"./{run}", "--force")
    assert re.search("class 7 *class 9 *1,234", Page(run / "report.html").sections["confusion"])


def test_a_run_without_checkpoints(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    for name in ("checkpoints", "previews"):
        shutil.rmtree(run / name)
    (run / "metrics.jsonl").unlink()
    change(run / "run.json", status="failed", reason="the loss is not finite")
    cli("report", f"./{run}")
    page = Page(run / "report.html")
    assert list(page.sections)[1:] == ["results", "recipe", "environment"]
    assert "Nothing has been measured yet." in page.sections["results"]
    assert "There is no checkpoint yet" in page.sections[""]
    assert "Failed at step 8 of 8: the loss is not finite" in page.sections[""]
    change(run / "run.json", status="done", reason=None)
    cli("report", f"./{run}", "--force")
    page = Page(run / "report.html")
    assert "Its checkpoints have been deleted" in page.sections[""]
    assert "Nothing was measured." in page.sections["results"]
    assert " yet" not in page.sections[""] + page.sections["results"]


def test_a_run_that_is_still_training(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:5]) + '{"event": "train", "st')
    change(run / "run.json", status="running", step=0, total_steps=8)
    cli("report", f"./{run}@step-4")
    page = Page(run / "report.html")
    assert "still training" in page.sections[""]
    assert "at step 4 of 8" in page.sections[""]
    assert "curves" in page.sections


def test_a_checkpoint_shows_its_own_figures(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    evaluated(run)
    log = run / "metrics.jsonl"
    trained = "".join(row for row in log.read_text().splitlines(keepends=True) if '"evaluation"' not in row)

    def shown(**psnr: float) -> Page:
        rows = [{"event": "evaluation", "step": int(key[4:]), "psnr": value} for key, value in psnr.items()]
        log.write_text(trained + "".join(f"{json.dumps(row)}\n" for row in rows))
        cli("report", f"./{run}@step-4", "--force")
        return Page(run / "report.html")

    page = shown(step8=27.77)
    assert "27.77" not in page.sections[""] + page.sections["results"]
    assert "31.25" not in page.sections[""]
    assert "pictures" not in page.sections
    assert re.search(r"steps\s*4\s*of 8", page.sections[""])
    assert "1 validation in digits" in page.sections["curves"]
    (run / "eval.json").unlink()
    said = shown(step8=27.77).sections["results"]
    assert f"Nothing has been measured at step 4: compressnet eval ./{run}@step-4" in said
    page = shown(step4=25.55, step8=27.77)
    assert "25.55" in page.sections[""]
    assert "27.77" not in page.sections[""] + page.sections["results"]
    assert "best 27.77 at step 8" in page.sections["curves"]
    assert "2 validations in digits" in page.sections["curves"]


def test_an_evaluation_of_another_checkpoint(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    evaluated(run)
    cli("report", f"./{run}@step-4")
    results = Page(run / "report.html").sections["results"]
    assert "On test data step-8 was evaluated; all else here is of step-4: " in results
    assert f"compressnet eval ./{run}@step-4" in results


def test_what_is_no_run(cli: Cli, place: Path, smoke_run: Path) -> None:
    (place / "empty").mkdir()
    assert cli("report", "./empty", code=1).error == "empty is not a run directory (it has no run.json)"
    weights = smoke_run / "checkpoints/step-8/model.safetensors"
    assert f"{weights} is a weights file: a report is of a run" in cli("report", weights, code=2).error
    assert "rof is of kind zoo: a report is of a run" in cli("report", "zoo:rof", code=2).error
    assert "is a recipe: a report is of a run" in cli("report", "fip_sample", code=2).error
    assert cli("report", "runs/none", code=1).error == "runs/none: no such file or directory"
    copied(smoke_run, place, "runs/first-1")
    error = cli("report", "nosuch", code=2).error
    assert error.startswith(
        "there is no 'nosuch' (there are: runs/first-1); `compressnet runs ls` lists all; "
    )
    assert " - did you mean 'runs/first-1'?" in cli("report", "frist-1", code=2).error
    (place / "runs/first-1/report.html").touch()
    error = cli("report", "runs/first-1@step-99", code=1).error
    assert error == "runs/first-1 has no checkpoint 'step-99' (there are: step-4, step-8)"
    (place / "runs/first-1/recipe.yaml").unlink()
    error = cli("report", "runs/first-1", code=1).error
    assert error == "cannot read the recipe runs/first-1/recipe.yaml: No such file or directory"
    error = cli("report", smoke_run, "-o", "empty", code=2).error
    assert error == "empty is a folder: name the file to write, -o empty/report.html"
    assert "cannot write gone/page.html" in cli("report", smoke_run, "-o", "gone/page.html", code=1).error


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"metrics": {"psnr": "much"}}, "damaged: 'metrics.psnr"),
        (
            {"details": {"confusion": {"classes": ["a"], "counts": [[1, 2]]}}},
            "not a row and a column for",
        ),
    ],
)
def test_a_damaged_evaluation(
    cli: Cli, place: Path, smoke_run: Path, damage: dict[str, Any], message: str
) -> None:
    run = copied(smoke_run, place)
    evaluated(run, **damage)
    error = cli("report", f"./{run}", code=1).error
    assert error.startswith("run/eval.json: ")
    assert message in error
    assert error.endswith("`compressnet eval run` writes it anew")


def test_a_preview_that_is_no_strip(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    Pillow.new("RGB", (50, 10)).save(run / "previews/step-8-odd.png")
    done = cli("report", f"./{run}")
    assert "warning: run/previews/step-8-odd.png: a picture 50 wide is no strip" in done.stderr
    assert "1 could not be read." in (run / "report.html").read_text()
    (run / "previews/step-8-odd.png").write_bytes(b"GIF89a")
    done = cli("report", f"./{run}", "--force")
    assert "warning: run/previews/step-8-odd.png: " in done.stderr
    assert "the page is without it" in done.stderr


def test_what_links_lead_to_is_not_on_the_page(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    (place / "secret").write_text("root:x:0:0")
    (run / "previews/step-8-x.txt").symlink_to(place / "secret")
    cli("report", f"./{run}")
    assert "root:x" not in (run / "report.html").read_text()


def test_only_a_page_is_written(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    before = (run / "run.json").read_bytes()
    for name in ("run/run.json", "-", "new"):
        error = cli("report", f"./{run}", "-o", name, "--force", code=2).error
        assert error == f"{name}: name the page NAME.html"
    assert (run / "run.json").read_bytes() == before
    wrong = cli("report", f"./{run}", "--results", "none", code=2).error
    assert wrong == "--results none: it is no folder of recorded results: it has no published.json"
    (run / "metrics.jsonl").write_bytes(b"\x00\xff")
    assert "metrics.jsonl: missing or damaged: the page has no curves" in cli("report", f"./{run}").stderr


def test_names_of_strangers_stay_names(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place, "<b onload=x>run")
    preview = next((run / "previews").glob("*-coffee.png"))
    preview.rename(run / "previews" / "step-8-<img src=x onerror=alert(1)>.png")
    (run / "previews" / "step-8-t.txt").write_text(f"{NAME} >>> {NAME}\x1b[31m")
    with open(run / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"event": "evaluation", "step": 8, NAME: 1.0, "psnr": NAME}) + "\n")
        log.write(json.dumps({"event": "train", "step": 8, '"><svg/onload=x>': 2.0, "seconds": NAME}) + "\n")
    change(
        run / "run.json",
        recipe=NAME,
        command=["compressnet", NAME],
        device=NAME,
        commit="'\"--><",
        data={NAME: NAME},
        versions={NAME: "</style>"},
        reason=f"</p>{NAME}",
        status="failed",
    )
    evaluated(
        run,
        checkpoint=NAME,
        metrics={NAME: 2.0},
        rows={NAME: {NAME: 1.0, "psnr": "inf"}, "": {}},
        details={"confusion": {"classes": [NAME, "</table>"], "counts": [[1, 2], [3, 4]]}},
    )
    with open(run / "recipe.yaml", "a") as recipe:
        recipe.write(f"# {NAME}\n")
    recipe_text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe_text.replace("init_skip: []", f"init_skip: ['{NAME}']"))
    cli("report", f"./{run}", "-o", "page.html")
    page = Page(Path("page.html"))
    assert [name for name, _ in page.elements].count("script") == 1
    assert "<b onload=x>run" in page.sections[""]
    assert f"</p>{NAME}" in page.sections[""]
    for key in ("results", "pictures", "texts", "curves", "confusion", "recipe", "environment"):
        assert "<script>" in page.sections[key] or "onerror" in page.sections[key], key
    assert "\\x1b[31m" in page.sections["texts"]
    names = {name for name, _ in page.elements}
    assert "img" in names
    assert not any("onload" in found or "onerror" in found for _, found in page.elements)


def test_a_run_of_large_previews_and_long_logs_stays_small(cli: Cli, place: Path, smoke_run: Path) -> None:
    run = copied(smoke_run, place)
    noise = np.random.default_rng(0).integers(0, 256, (180, 4 * 300 + 12, 3), np.uint8)
    for number in range(14):
        Pillow.fromarray(noise).save(run / f"previews/step-8-{number:02}.png", compress_level=0)
        (run / f"previews/step-8-{number:02}-{number}.txt").write_text("long " * 100_000)
    with open(run / "metrics.jsonl", "a") as log:
        for step in range(9, 900):
            keys = {f"metric {number}": step * number % 997 for number in range(16)}
            log.write(json.dumps({"event": "evaluation", "step": step, **keys}) + "\n")
    cli("report", f"./{run}")
    assert (run / "report.html").stat().st_size < 5_000_000
    page = Page(run / "report.html")
    assert "as JPEG of quality" in page.sections["pictures"]
    assert "6 more are in the run's folder" in page.sections["pictures"]  # of 16 pictures, 14 texts
    assert len(page.all("img")) == 4 * 12


def test_published_figures_stand_beside_what_they_are_of(
    cli: Cli, place: Path, smoke_run: Path, other_runs: dict[str, Path]
) -> None:
    published = [
        {"operator": "rof:weight=0.1", "psnr": 45.67, "what": f"as {NAME} measured it."},
        {"operator": "rof:weight=0.2", "psnr": 11.11, "what": "another operator."},
        {"recipe": "lm_sample", "figure": "123.4", "what": "the paper's test perplexity."},
    ]
    (place / "figures").mkdir()
    (place / "figures/published.json").write_text(json.dumps(published))
    lm = copied(other_runs["lm_sample"], place, "lm")
    for run, is_smoke, found, missing in [
        (copied(smoke_run, place), False, "45.67", "11.11"),
        (copied(smoke_run, place, "smoke"), True, "doing nothing", "Published"),
        (lm, False, "123.4", "45.67"),
    ]:
        evaluated(run, metrics={"perplexity": 1.5} if run == lm else {"psnr": 31.0, "psnr_nothing": 30.0})
        change(run / "run.json", smoke=is_smoke)
        if run == lm:
            change(run / "run.json", recipe="lm_sample")
            restore_model(run / "recipe.yaml")
        results = report_of(cli, run)
        assert found in results
        assert missing not in results
    text = (lm / "recipe.yaml").read_text()
    (lm / "recipe.yaml").write_text(text.replace("dropout: 0.3", "dropout: 0.4"))
    assert "123.4" not in report_of(cli, lm)  # another model than the recipe of that name has


def restore_model(path: Path) -> None:
    """What a smoke run has changed of the model."""
    path.write_text(path.read_text().replace("hidden_size: 32", "hidden_size: 192", 1))


def report_of(cli: Cli, run: Path) -> str:
    cli("report", f"./{run}", "--results", "figures", "--force")
    return Page(run / "report.html").sections["results"]
