from __future__ import annotations

import pytest

from compressnet.errors import RecipeError
from compressnet.yaml_file import loads, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("7", 7),
        ("-7", -7),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("12:30:45", "12:30:45"),
        ("2026-11-24", "2026-11-24"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("[1, 2e-1, a]", [1, 0.2, "a"]),
        (".inf", float("inf")),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_lines_of_nested_keys_and_items() -> None:
    _, lines = loads("a: 1\nb:\n  c: [x,\n      y]\n", "f")
    assert lines == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", 0): 3, ("b", "c", 1): 4}


def test_every_key_that_is_given_twice_is_told() -> None:
    with pytest.raises(RecipeError) as caught:
        loads("a: 1\nb: {c: 1, c: 2}\na: 2\n", "f.yaml")
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["2", "3"]
    assert "'a' is given twice (first in line 1)" in caught.value.problems[1]


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tx: 1", "a: \x00"])
def test_bad_syntax_names_the_file(text: str) -> None:
    with pytest.raises(RecipeError, match=r"^f\.yaml"):
        loads(text, "f.yaml")


def test_a_tag_that_would_run_code_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"f\.yaml:1: a recipe is data"):
        loads("a: !!python/object/apply:os.system ['true']", "f.yaml")
