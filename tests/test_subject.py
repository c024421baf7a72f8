from __future__ import annotations

import re
from pathlib import Path

import pytest

import compressnet
from compressnet import signature, subject, weights
from compressnet.errors import CompressnetError, UsageError


def test_bare_names_and_prefixes() -> None:
    assert subject.parse("can24:variant=paper").arguments == {"variant": "paper"}
    assert subject.parse("model:can24").kind == "model"
    assert subject.parse("operator:rof:weight=0.1").arguments == {"weight": 0.1}
    assert subject.parse("fip_sample").kind == "recipe"


def test_an_ambiguous_name_lists_the_prefixed_forms() -> None:
    with pytest.raises(UsageError, match=r"'rof' means 2 things: write zoo:rof or operator:rof"):
        subject.parse("rof")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caan24", "did you mean 'can24'"),
        ("zoo:rav", "there is no 'rav' in the zoo"),
        ("zoo:rof:a=1", "takes no arguments"),
        ("can24:variant", "key=value"),
        ("can24:variant=[", "not a YAML value"),
    ],
)
def test_wrong_names(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        subject.parse(text)


@pytest.mark.parametrize(
    ("takes", "lists"),
    [(("recipe",), "recipes"), (("zoo", "operator"), "operators"), (subject.KINDS, "models")],
)
def test_a_name_that_is_not_there_lists_what_can_be_used(takes: tuple[str, ...], lists: str) -> None:
    with pytest.raises(UsageError) as caught:
        subject.parse("qqq", takes)
    message = str(caught.value)
    known = {name for kind in takes for name in subject.names(kind)}
    listed = (
        message.partition("(there are")[2]
        .partition(")")[0]
        .removesuffix(" and others")
        .strip(": ")
        .split(", ")
    )
    assert set(listed) <= known
    assert len(listed) == min(10, len(known))
    assert re.search(rf"`compressnet {re.escape(lists)} ls`.* lists all", message)


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match="no such file"):
        subject.parse(str(tmp_path / "runs" / "none"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UsageError, match="a subject is"):
        subject.parse(str(tmp_path / "a.txt"))
    (tmp_path / "run").mkdir()
    parsed = subject.parse(f"{tmp_path}/run@step-500")
    assert (parsed.kind, parsed.checkpoint, parsed.path) == ("run", "step-500", tmp_path / "run")


def test_a_run_of_nearly_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/fip_sample-1", "runs/no_run", "mine/fip_sample-7"):
        Path(name).mkdir(parents=True)
        if "no_run" not in name:
            Path(name, "run.json").write_text("{}")
    for typed, meant in [
        ("runs/fip_smaple-1", "runs/fip_sample-1"),
        ("runs/fip_smaple-1@last", "runs/fip_sample-1"),
        ("mine/fip-sample-7", "mine/fip_sample-7"),
        ("fip_smaple-1", "runs/fip_sample-1"),
        ("no_runn", None),
    ]:
        with pytest.raises(CompressnetError) as caught:
            subject.parse(typed, ("zoo", "operator", subject.RUN))
        found = re.search("did you mean '(.*)'", str(caught.value))
        assert (found[1] if found else None) == meant, typed


def test_a_file_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text("")
    for typed, meant in [("my.py:Net:width=3", "py:my.py:Net:width=3"), ("./my.py:Net", "py:./my.py:Net")]:
        with pytest.raises(UsageError) as caught:
            subject.parse(typed)
        assert str(caught.value) == f"there is nothing called '{typed}' - did you mean '{meant}'?"
    with pytest.raises(UsageError, match="^my.py: a network of your own is written py:my.py:NAME, "):
        subject.parse("./my.py")


def test_arguments_keep_commas_in_brackets() -> None:
    assert signature.split_arguments("a=[1, 2],b=x=y,c={d: 1}") == {"a": [1, 2], "b": "x=y", "c": {"d": 1}}


def test_canonical_operators_are_the_same_for_every_way_to_write_them() -> None:
    forms = ["l0", "l0:lambda=0.01", "operator:l0:kappa=2.0,lambda=1e-2"]
    canonical = {signature.canonical("operator", form) for form in forms}
    assert len(canonical) == 1
    assert signature.canonical("operator", canonical.pop()) == signature.canonical("operator", "l0")


def test_create_and_its_mistakes() -> None:
    assert sum(p.numel() for p in compressnet.create("can24").parameters()) == 37219
    with pytest.raises(UsageError, match="did you mean 'variant'"):
        compressnet.create("can24", variants="paper")
    with pytest.raises(UsageError, match="can24"):
        compressnet.create("can24", stats="frozen", norm="none")


def test_a_bare_weights_file_opens_where_its_data_is_absent(tmp_path: Path) -> None:
    model = compressnet.create("can24")
    architecture = weights.Architecture(
        task="image_operator",
        task_args={"operator": "rof"},
        model="can24",
        model_args={"in_channels": 3, "out_channels": 3},
        data={"name": "photo_folder"},
    )
    weights.save(tmp_path / "w.safetensors", model, architecture)
    loaded = compressnet.load(str(tmp_path / "w.safetensors"))
    assert loaded.task.operator == "rof"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="recipe"):
        compressnet.load("recipe:fip_sample")
    with pytest.raises(UsageError, match="did you mean 'dtype'"):
        loaded.apply([], dtypes="bfloat16")
