from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressnet.errors import RecipeError
from compressnet.yaml_file import dumps, loads, scalar


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


# ---- a few bytes that stand for gigabytes, or for nothing


def _nested(levels: int, width: int) -> str:
    lines = ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {[f'*a{n - 1}'] * width}" for n in range(1, levels))]
    return "\n".join(lines).replace("'", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b: 1\na: &x {y: [*x]}", "f:2: an alias of what it stands in"),
        ("&x [1, [*x]]", "f:1: an alias of what it stands in"),
        (_nested(8, 7), "f:1: more than 20,000 values with aliases expanded"),
        ("a: &a [" + "x, " * 9000 + "]\nb: [*a, *a, *a]", "f:1: more than 20,000 values"),
        ("a: " + "[" * 33 + "]" * 33, "f:1: nested more than 32 deep"),
        ("a: " + "{b: " * 9000 + "1" + "}" * 9000, "f:1: nested more than 32 deep"),
        ("\n".join(" " * n + "a:" for n in range(90)), "f:33: nested more than 32 deep"),
        (
            "a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "{c: " * 20 + "*a" + "}" * 20,
            "32 deep with aliases expanded",
        ),
        ("a: " + "x" * 2**16, "f:1: longer than 64 kB"),
        ("a: " + "é" * 2**15, "f:1: longer than 64 kB"),
        ("\na: " + "7" * 4500, "f:2: 7777777777"),
        ("a: 9223372036854775808", "more than the 64 bits of an integer"),
        ("%YAML 1." + "1" * 5000 + "\n---\na: 1", "f:1: not YAML"),
        ("a: 1\nb: !!float 1,5", "f:2: '1,5' is no float"),
        ("a: !!int 0b1", "'0b1' is no int"),
        ("a: !!bool no", "'no' is no bool"),
        ("a: !!null 0", "'0' is no null"),
        ("a: !!timestamp 2026-02-30", "f:1: a recipe is data: the tag !!timestamp"),
        ("a: !!binary ===", "the tag !!binary"),
        ("a: !!set [x]", "the tag !!set"),
        ("a: !!omap {x: 1}", "the tag !!omap"),
        ("a: !!str {x: 1}", "the tag !!str"),
        ("a: !!seq x", "the tag !!seq"),
        ("? {a: 1}\n: b", "f:1: a key is a text, not a list or mapping"),
        ("1: x", "f:1: a key is a text, not '1'"),
        ("false: x", "a key is a text, not 'false'"),
        ("a: {~: x}", "a key is a text, not '~'"),
        ("a: &a {b: 1}\nc:\n  <<: *a", "f:3: merge keys (<<) are not read: write the keys out"),
        ('a: "\\udfff"', "f:1: the character U+DFFF is no text"),
        ('a: "x\\0"', "the character U+0000 is no text"),
        ("b: 1\na: x\x07", "f:2: not YAML: the character U+0007 is not allowed"),
        ('a: "\\UFFFF0000"', "f:1: not YAML"),
        ("a: *" + "b" * 9000, "f:1: not YAML: found undefined alias"),
    ],
)
def test_what_is_not_read_is_told_in_one_short_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        loads(text, "f")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


def test_an_alias_stands_for_a_value_of_its_own() -> None:
    data, lines = loads("steps: &s 5\nlog_every: *s\ntrain: &t {batch: 2}\neval: *t\n", "f")
    data["train"]["batch"] = 7
    assert data == {"steps": 5, "log_every": 5, "train": {"batch": 7}, "eval": {"batch": 2}}
    assert lines[("log_every",)] == 2


_leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_texts |= st.sampled_from(
    ["1e5", "no", "null", "1_000", "0x1", "010", "~", "12:30:45", "2026-01-01", "=", "<<"]
)
_keys = _texts.filter(lambda key: key != "<<")


@given(
    st.recursive(
        _leaves | _texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_written_is_read_back(value: object) -> None:
    found = loads(dumps(value), "f")[0]
    assert found == value
    assert repr(found) == repr(value)  # 1, 1.0 and True are equal
