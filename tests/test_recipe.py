from __future__ import annotations

from pathlib import Path

import pytest

from compressnet import subject
from compressnet.errors import CompressnetError, RecipeError
from compressnet.recipe import Recipe
from compressnet.recipe_schema import schema_text

GOOD = """\
version: 1
task: {name: image_operator, operator: "rof:weight=0.1"}
model:
  name: can24
data:
  name: photo_folder
  root: photos
train:
  steps: 10
  lr: 1e-4
smoke:
  data: {name: sample}
  train: {steps: 2}
"""


def problems(text: str, *overrides: str, smoke: bool = False) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, "r.yaml", overrides, smoke=smoke)
    return caught.value.every


def test_a_good_recipe() -> None:
    recipe = Recipe.parse(GOOD, "folder/r.yaml")
    assert recipe.name == "r"
    assert recipe.train.lr == 1e-4
    assert recipe.data.arguments == {"root": "photos"}


def test_all_mistakes_at_once_with_line_and_suggestion() -> None:
    text = GOOD.replace("steps: 10", "stepz: 10").replace("lr: 1e-4", "lr: fast").replace("can24", "caan24")
    found = problems(text.replace("root: photos", "roots: photos"))
    joined = "\n".join(found)
    assert "r.yaml:4: there is no model 'caan24' - did you mean 'can24'?" in joined
    assert "r.yaml:7: data.roots: unknown key 'roots' - did you mean 'root'?" in joined
    assert "r.yaml:5: data.root: 'root' is missing" in joined
    assert "r.yaml:9: unknown key 'train.stepz' - did you mean 'steps'?" in joined
    assert "r.yaml:10: train.lr: should be a valid number (got 'fast')" in joined


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=fast", "--set train.lr=fast: train.lr: should be a valid number"),
        ("train.stepz=3", "--set train.stepz=3: unknown key 'train.stepz' - did you mean 'steps'?"),
        (
            "model.variant=Paper",
            "--set model.variant=Paper: model.variant: 'variant' should be 'released' or 'paper'",
        ),
        (
            "model.in_channels=4",
            "--set model.in_channels=4: model.in_channels: 'in_channels' follows from the data",
        ),
        ("task.operator=rof:wait=1", "operator rof: unknown key 'wait' - did you mean 'weight'?"),
        ("task.operator=roff", "there is no operator 'roff' - did you mean 'rof'?"),
        (
            "data.name=synthetic",
            "--set data.name=synthetic: the recipe's keys are another's; "
            '--set "data={name: synthetic}" replaces them all',
        ),
        (
            "model={name: resnet20}",
            "the model 'resnet20' is not for the task 'image_operator': it takes num_classes from data, "
            "the task gives in_channels, out_channels",
        ),
        ("lr", "--set lr: write it as key.key=value"),
        ("train.lr=[1", "--set train.lr=[1: '[1' is not a YAML value"),
        ("seed.a=1", "--set seed.a=1"),
        ("train.accumulate=3", "--set train.accumulate=3: train.accumulate 3 does not divide train.batch 1"),
        ("data.sizes=0", "--set data.sizes=0: data.sizes: 'sizes' should be greater than or equal to 1"),
        ("train.steps=true", "train.steps: should be a valid integer"),
        ("name=x", "--set name=x: unknown key 'name'"),
        ("version=2", "--set version=2: version: should be 1"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    assert any(message in line for line in problems(GOOD, override)), problems(GOOD, override)


def test_overrides_are_split_at_the_first_equals_sign() -> None:
    recipe = Recipe.parse(GOOD, "r.yaml", ["task.operator=rof:weight=0.2"])
    assert recipe.task.arguments["operator"] == "rof:weight=0.2"


def test_data_derived_key_in_the_file_is_refused_with_its_line() -> None:
    found = problems(GOOD.replace("name: can24", "name: can24\n  in_channels: 3"))
    assert found == [
        "r.yaml:5: model.in_channels: 'in_channels' follows from the data: remove it from the recipe"
    ]


def test_a_task_and_a_data_set_of_different_samples_are_refused() -> None:
    found = problems(GOOD.replace('image_operator, operator: "rof:weight=0.1"', "image_translation"))
    mismatch = "data set 'photo_folder' gives photograph samples, task 'image_translation' takes image_pair"
    assert f"r.yaml:6: {mismatch}" in found


def test_the_smoke_block_replaces_named_components_and_merges_the_rest() -> None:
    recipe = Recipe.parse(GOOD, "r.yaml", smoke=True)
    assert (recipe.data.name, recipe.data.arguments) == ("sample", {})
    assert (recipe.train.steps, recipe.train.lr) == (2, 1e-4)
    assert recipe.is_smoke


def test_a_mistake_in_the_smoke_block_is_found_without_smoke() -> None:
    assert problems(GOOD.replace("steps: 2}", "stepz: 2}")) == [
        "r.yaml:13: unknown key 'train.stepz' - did you mean 'steps'?"
    ]


def test_smoke_of_a_recipe_without_one() -> None:
    text = GOOD[: GOOD.index("smoke:")]
    assert "no 'smoke' block" in problems(text, smoke=True)[0]


@pytest.mark.parametrize("text", ["", "- 1", "version: 1", "just text"])
def test_what_is_no_recipe(text: str) -> None:
    assert problems(text)


def test_a_resolved_recipe_loads_to_itself() -> None:
    recipe = Recipe.parse(GOOD, "r.yaml", ["train.clip_norm=1.0", "seed=3"])
    again = Recipe.parse(recipe.to_yaml(), "r.yaml")
    assert again == recipe


def test_steps_and_epochs_exclude_each_other() -> None:
    assert problems(GOOD.replace("steps: 10", "steps: 10\n  epochs: 1"))[0] == (
        "r.yaml:8: train needs one of 'steps' and 'epochs'"
    )
    assert Recipe.parse(GOOD, "r.yaml", ["train.epochs=2"]).total_steps(5) == 10


def test_epochs_become_steps() -> None:
    text = GOOD.replace("  steps: 10", "  epochs: 1.5\n  batch: 4")
    assert Recipe.parse(text, "r.yaml").total_steps(samples=9) == 4


def test_a_missing_file_and_a_binary_one(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match="cannot read the recipe"):
        Recipe.load(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CompressnetError, match=r"b\.yaml"):
        Recipe.load(tmp_path / "b.yaml")


def test_every_shipped_recipe_is_valid_and_says_how_to_run_it() -> None:
    names = subject.names("recipe")
    assert {"fip_fivek", "fip_sample"} <= set(names)
    for name in names:
        path = subject.recipe_path(name)
        Recipe.load(path)
        Recipe.load(path, smoke=True)
        text = path.read_text()
        assert f"compressnet train {name}" in text, f"{name}: no command in its header"
        for word in ("Needs", "Time", "Expect"):
            assert f"# {word}" in text, f"{name}: its header lacks '{word}'"


def test_the_schema_is_in_step_with_the_signatures() -> None:
    committed = (Path(__file__).parents[1] / "recipes" / "schema.json").read_text()
    assert committed == schema_text(), "run `make schema`"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("conv2d", "layer conv2d: does not fit here: it takes no input_size and hidden_size"),
        ("sru:hidden_size=3", "layer sru: 'hidden_size' follows from the rest: leave it out"),
        ("sru:version=3", "layer sru: 'version'"),
    ],
)
def test_a_layer_that_is_named_with_arguments(cell: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(subject.recipe_path("lm_sample"), [f"model.cell={cell}"])
    assert [message in problem for problem in caught.value.every] == [True]


HEAD = """version: 1
task: {name: image_operator, operator: rof}
model: {name: can24}
data: {name: sample}
"""


@pytest.mark.parametrize(
    ("old", "new", "overrides"),
    [
        ("seed: 3", "init: '1e5'\nseed: 3", []),
        ("seed: 3", 'init: "tab\\t, quote \', colon: \\x85 \\u2028 é"', []),
        ("seed: 3", "init_skip: ['no', '~', '010', '0x1', 2026-01-01]", []),
        ("eval: {batch: 2}", "eval: &e {batch: 4}", ["train.batch=6"]),
        ("train: {steps: 3, accumulate: 2, batch: 4}", "train: {steps: &a 4, accumulate: *a, batch: *a}", []),
        ("seed: 3", "seed: 9223372036854775807", ["train.lr=1e-05", "train.checkpoint_every=null"]),
        ("seed: 3", "seed: 4", ["train.accumulate=1", "train.batch=1"]),  # the smoke block accumulates by 2
        (
            "seed: 3",
            "init: w\ninit_only: [trunk]",
            ["train.schedule=pieces", "train.pieces=[[1, 1], [2, 0.5]]"],
        ),
    ],
)
def test_every_valid_recipe_loads_to_itself(old: str, new: str, overrides: list[str]) -> None:
    text = (
        f"{HEAD}train: {{steps: 3, accumulate: 2, batch: 4}}\neval: {{batch: 2}}\nseed: 3\n"
        "smoke: {train: {accumulate: 2}}\n"
    )
    assert text.count(old) == 1
    first = Recipe.parse(text.replace(old, new), "r.yaml", overrides)
    assert Recipe.parse(first.to_yaml(), "r.yaml").to_dict() == first.to_dict()


@pytest.mark.parametrize(
    ("train", "more", "message"),
    [
        (
            "steps: 3, schedule: pieces",
            "",
            "r.yaml:5: train.schedule: pieces and train.pieces: .* come together",
        ),
        (
            "steps: 3, pieces: [[3, 0.1]]",
            "",
            "r.yaml:5: train.schedule: pieces and train.pieces: .* come together",
        ),
        (
            "steps: 3, schedule: pieces, pieces: [[1, 0.1], [1, 0.01]]",
            "",
            "add up to 2 steps, train.steps is 3",
        ),
        (
            "steps: 3, schedule: pieces, pieces: [[3, 0.1]], lr: 0.1",
            "",
            "r.yaml:5: train.lr: .* leave lr away",
        ),
        ("steps: 3, schedule: pieces, pieces: [[3]]", "", "r.yaml:5: 'train.pieces.0.1' is missing"),
        ("steps: 3, schedule: pieces, pieces: [[3, true]]", "", r"train\.pieces\.0\.1: should be"),
        ("steps: 3", "init_only: [a]", "r.yaml:6: init_only: 'init' says whose modules they are"),
        (
            "steps: 3",
            "init: w\ninit_only: [a]\ninit_skip: [b]",
            "r.yaml:7: init_only: init_skip says the opposite",
        ),
    ],
)
def test_schedules_of_pieces_and_single_modules(train: str, more: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.parse(f"{HEAD}train: {{{train}}}\n{more}\n", "r.yaml")


def test_a_wrong_override_of_the_smoke_block_is_told() -> None:
    text = f"{HEAD}train: {{steps: 3}}\nsmoke: {{train: {{steps: 2}}}}\n"
    with pytest.raises(RecipeError, match=r"^--set smoke\.train\.steps=x: train\.steps: should be"):
        Recipe.parse(text, "r.yaml", ["smoke.train.steps=x"])


def test_what_is_too_long_once_aliases_are_written_out_is_refused() -> None:
    skip = ", ".join(["*n"] * 3000)
    text = f"{HEAD}train: {{steps: 3}}\ninit: &n {'blocks' * 9}\ninit_skip: [{skip}]\n"
    with pytest.raises(RecipeError, match=r"^r\.yaml, with aliases and overrides written out:1: longer than"):
        Recipe.parse(text, "r.yaml")
