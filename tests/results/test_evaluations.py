"""Tables of recorded evaluations that are not of images."""

from __future__ import annotations

from typing import Any

from compressnet.results import evaluations, pages
from compressnet.weights import Architecture


def record(name: str, perplexity: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "task": "language_modelling",
        "model": "language_model",
        "model_args": {"cell": "lstm", "hidden_size": 200},
        "recipe": "lm_ptb_lstm",
        "operator": None,
        "metrics": {"loss": 4.7, "perplexity": perplexity},
        "rows": {},
        "parameters": 4651600,
        "data": {"name": "ptb", "count": 82430, "fingerprint": "abc"},
        "split": "test",
        "seed": seed,
        "command": "compressnet eval runs/x",
        "device": "a processor",
        "commit": "0123456789",
        "versions": {"torch": "2"},
        "digest": "d" * 64,
        "training": {
            "step": 30199,
            "train_seconds": 3000.0,
            "device": "a processor",
            "command": f"compressnet train lm_ptb_lstm --set seed={seed}",
            "metric": "perplexity",
            "curve": [[2323, 190.0, None], [4646, 150.0, None]],
        },
        **changes,
    }


PUBLISHED = [{"recipe": "lm_ptb_lstm", "figure": "115", "what": "theirs", "source": "a README"}]


def cells(table: str, row: int) -> list[str]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [cell.strip() for cell in lines[row].strip("|").split("|")]


def test_seeds_stand_together_with_their_mean() -> None:
    records = [
        record("b", 116.0, 1),
        record("other", 120.0, model_args={"cell": "sru"}),
        record("a", 114.0, 0),
    ]
    (table,) = evaluations.summary(records, PUBLISHED)
    head = cells(table, 0)
    rows = [dict(zip(head, cells(table, line), strict=True)) for line in range(2, 6)]
    assert [row["record"] for row in rows] == [
        "[a](results/a.json)",
        "[b](results/b.json)",
        "mean of 2 seeds",
        "[other](results/other.json)",
    ]
    assert [row["perplexity"] for row in rows] == ["**114.00**", "**116.00**", "**115.00**", "**120.00**"]
    assert "loss" not in head
    assert rows[0]["published"] == "115 [^language_modelling-1]"
    assert "[^language_modelling-1]: theirs" in table
    (brief,) = evaluations.summary(records, PUBLISHED, seeds=False)
    assert [cells(brief, line)[0] for line in (2, 3)] == ["mean of 2 seeds", "[other](results/other.json)"]
    mean = dict(zip(head, cells(brief, 2), strict=True))
    assert (mean["parameters"], mean["published"]) == ("4,651,600", rows[0]["published"])
    assert (mean["seed"], mean["trained"]) == ("0, 1", "50 min each")


def test_the_mean_says_where_not_all_were_trained_to_the_end() -> None:
    stopped = record("b", 1.0)["training"] | {"step": 14202, "train_seconds": 6000.0}
    (table,) = evaluations.summary([record("a", 1.0), record("b", 1.0, 1, training=stopped)], [])
    assert "| 14,202 to 30,199 steps, 50 to 100 min each |" in table


def test_runs_that_differ_in_more_than_the_seed_have_no_mean() -> None:
    trained = record("b", 1.0)["training"] | {"command": "compressnet train r --set train.lr=2 --set seed=1"}
    records = [record("a", 1.0), record("b", 1.0, 1, training=trained)]
    (table,) = evaluations.summary(records, [])
    assert "mean of" not in table
    assert "(lm_ptb_lstm) |" in table
    assert "(lm_ptb_lstm) `train.lr=2` |" in table
    folds = [record(f"f{fold}", 1.0, data={**records[0]["data"], "fold": fold}) for fold in (0, 1)]
    (table,) = evaluations.summary(folds, [])
    assert "mean of" not in table
    assert "(lm_ptb_lstm) fold 1 |" in table


def test_how_it_was_measured() -> None:
    (text,) = evaluations.details([record("a", 114.0)])
    assert "compressnet train lm_ptb_lstm --set seed=0" in text
    assert "82,430 targets" in text
    assert "perplexity on its validation data: 190.0, 150.0" in text


def test_pages_hold_them_apart_from_images() -> None:
    page = pages.results_page([record("a", 114.0)], PUBLISHED)
    assert page.count("results/a.json") == 1
    assert "psnr" not in page.lower().split("language modelling")[1]


def test_a_published_figure_stands_beside_the_data_that_it_names_only() -> None:
    stream = record("stream", 9.0, data={"name": "other", "count": 1, "fingerprint": "abc"})
    named = [{**PUBLISHED[0], "data": "ptb"}]
    tables = evaluations.summary([record("a", 114.0), stream], named)
    assert [table.count("theirs") for table in tables] == [0, 1]
    assert [
        table.count("theirs") for table in evaluations.summary([record("a", 1.0), stream], PUBLISHED)
    ] == [
        1,
        1,
    ]
    assert evaluations.published_for("lm_ptb_lstm", named) == named[0]
    assert evaluations.published_for("lm_ptb_lstm", named, "other") is None


def test_what_a_record_says_of_a_network() -> None:
    arguments = {"hidden_size": 2, "class_sizes": [1, 2]}
    text = Architecture("language_modelling", {}, "language_model", arguments)
    assert evaluations.described(text) == {"task": "language_modelling", "model_args": {"hidden_size": 2}}
    assert evaluations.described(Architecture("image_operator", {}, "can24", {})) == {}


def test_an_edited_network_is_no_seed_of_its_parent() -> None:
    edit = {"modules": {"cell": {"layer": "lstm", "args": {"proj_size": 8}}}, "ties": []}
    records = [record("whole", 114.0, 0), record("folded", 118.0, 1, edits=[edit])]
    (table,) = evaluations.summary(records, [])
    assert "mean of" not in table
    assert "with 1 edit" in table


def test_costs_stand_where_they_were_recorded() -> None:
    cost = {"weights_bytes": 18606400, "state_bytes": 3200, "macs": 4650000.4, "unit": "token"}
    for given, said in (
        (None, "cost: -"),
        (cost, "18,606,400 bytes of weights, 3,200 bytes of state, 4,650,000 MACs a token"),
        ({**cost, "state_bytes": None, "unit": "image"}, "bytes of weights, 4,650,000 MACs an image"),
    ):
        (page,) = evaluations.details([record("a", 114.0, cost=given)])
        assert said in page


def test_how_weights_came_about_names_what_they_began_with() -> None:
    told = {"step": 2000, "train_seconds": 600.0, "device": "a GPU"}
    assert evaluations.trained(told) == "2,000 steps, 10 min, a GPU"
    parent = {"run": "runs/a", "digest": "0" * 64}
    assert evaluations.trained({**told, "parent": parent}) == "2,000 steps after runs/a, 10 min, a GPU"
    assert evaluations.trained(None) == "-"
