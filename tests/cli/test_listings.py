"""The lists, the help and the rules that hold for every command."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
import yaml
from compressnet_cli.main import app
from PIL import Image

from compressnet import recipe_schema, registry, signature
from compressnet.subject import names, zoo_card
from tests.cli.conftest import Cli
from tests.conftest import ROOT

PROGRAM = typer.main.get_command(app)


def commands(group: Any = PROGRAM, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its name as it is typed."""
    if hasattr(group, "commands"):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path), group


COMMANDS = dict(commands())
WITHOUT_JSON = {"recipes schema"}  # prints JSON anyway
# How to call each command so that it ends well with --json; RUN is a smoke run, photo.png a photograph.
CALLS = {
    "train": "train fip_sample --smoke --set train.steps=1 -o fresh",
    "eval": "eval RUN --data photo_folder:root=set,test_root=set",
    "apply": "apply operator:rof photo.png -o out.png",
    "export": "export linear:in_features=2,out_features=3 -o linear.onnx",
    "compress": "compress zoo:rof --method tucker --data-free --dry-run",
    "fold": "fold can24:norm=bn",
    "import": "import released.npz -o released.safetensors",
    "report": "report RUN -o page.html",
    "results": "results",
    "count-params": "count-params lstm vs can24",
    "bench": "bench can24 --input-size 16 --threads 1 --rounds 2 --processes 1 --no-memory",
    "recipes ls": "recipes ls",
    "recipes show": "recipes show fip_sample",
    "recipes cp": "recipes cp fip_sample mine.yaml",
    "recipes validate": "recipes validate fip_sample",
    "data check": "data check sample",
    "data mix": "data mix speech_sample -o long.wav --minutes 0.1",
    "data samples": "data samples",
    "data targets": "data targets fip_photos --set data.root=set --set task.operator=rof:max_iterations=2",
    "runs ls": "runs ls",
    "models ls": "models ls",
    "layers ls": "layers ls",
    "operators ls": "operators ls",
    "operators show": "operators show rof",
    "zoo ls": "zoo ls",
    "zoo show": "zoo show rof",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_json_stands_alone_on_stdout(cli: Cli, photo: Path, smoke_run: Path, name: str) -> None:
    flags = {flag for parameter in COMMANDS[name].params for flag in parameter.opts}
    if name in WITHOUT_JSON:
        assert "--json" not in flags
        return
    assert "--json" in flags, f"{name} reports something: give it options.Json"
    assert name in CALLS, f"say in CALLS how {name} is called"
    shutil.copytree(smoke_run, "RUN")
    for folder in ("set", "results"):
        (photo.parent / folder).mkdir()
    shutil.copy(photo, "set/photo.png")
    if name == "import":
        released(photo.parent / "released.npz")
    words = [f"./{word}" if word == "RUN" else word for word in CALLS[name].split()]
    done = cli(*words, "--json")
    assert json.loads(done.stdout) is not None
    assert done.stdout.rstrip()[-1] in "}]"


def released(path: Path) -> None:
    """Arrays named and shaped as the authors' network, from the golden file."""
    golden = ROOT.parent / "shared" / "golden" / "can24_l0_released.npz"
    if not golden.exists():
        pytest.skip("the golden file of the authors' network is not here")
    shutil.copy(golden, path)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_and_shows_how(name: str) -> None:
    command = COMMANDS[name]
    assert "Example: compressnet " in command.help
    example = command.help.split("Example: ")[1].splitlines()[0]
    assert example.startswith(f"compressnet {name}")
    for parameter in command.params:
        assert parameter.help, f"{name}: {parameter.opts} has no help"
        assert "[" not in parameter.help, "rich takes brackets for markup and hides them"


def test_a_flag_means_one_thing_everywhere() -> None:
    helps = defaultdict(set)
    shorts = defaultdict(set)
    for command in COMMANDS.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                long = max(parameter.opts, key=len)
                helps[long].add(parameter.help)
                for flag in parameter.opts:
                    shorts[flag].add(long)
    assert {flag: texts for flag, texts in helps.items() if len(texts) > 1} == {}
    assert {flag: longs for flag, longs in shorts.items() if len(longs) > 1} == {}


def test_no_command_of_a_later_issue_is_there_as_a_stub() -> None:
    assert {"encode", "decode"} & {name.split()[0] for name in COMMANDS} == set()


def test_help_imports_nothing_heavy(place: Path) -> None:
    # CPU time differs between machines; what makes it long does not.
    script = """
import sys
from compressnet_cli.main import main
for words in sys.argv[1].split(","):
    code = main([*words.split(), "--help"])
    heavy = {"torch", "numpy", "skimage", "scipy", "PIL"} & set(sys.modules)
    if code or heavy:
        sys.exit(f"{words}: {code} {heavy}")
"""
    groups = sorted({name.split()[0] for name in COMMANDS if " " in name})
    every = ",".join(["", *groups, *COMMANDS])
    done = subprocess.run([sys.executable, "-c", script, every], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage: compressnet train" in done.stdout


def test_no_command_prints_help(cli: Cli) -> None:
    assert "Usage: compressnet" in cli(code=2).stdout
    assert "-h" in cli("-h").stdout


def test_version(cli: Cli) -> None:
    shown = cli("--version").stdout
    for word in ("compressnet 0.", "torch 2.", "device ", "kernels "):
        assert f"\n{word}" in f"\n{shown}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Cli, shell: str) -> None:
    assert "_COMPRESSNET_COMPLETE" in cli("--show-completion", shell).stdout


def test_completion_knows_the_commands(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_COMPRESSNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "compressnet re")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert set(cli(code=None).stdout.split()) == {"recipes", "report", "results"}


def test_completion_knows_subjects(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_COMPRESSNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "compressnet bench can24 can")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert set(cli(code=None).stdout.split()) == {"can24", "can24_small", "can32"}


@pytest.mark.parametrize("set_", [True, False])
def test_no_color(cli: Cli, monkeypatch: pytest.MonkeyPatch, set_: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if set_:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    error = cli("apply", "absent.safetensors", "x", "-o", "y", code=1).stderr
    assert ("\033[" in error) is not set_


# --- recipes, models, operators, zoo, runs -----------------------------------------------------------------


def test_recipes(cli: Cli, place: Path) -> None:
    listed = json.loads(cli("recipes", "ls", "--json").stdout)
    assert {"fip_fivek", "fip_sample"} <= {entry["name"] for entry in listed}
    assert all(entry["about"] for entry in listed)
    names = [entry["name"] for entry in listed]
    assert all(name in cli("recipes", "ls").stdout for name in names)
    assert cli("recipes", "validate", *names).stdout.count(": valid") == len(names)
    shown = cli("recipes", "show", "fip_sample").stdout
    assert shown.startswith("# ")
    assert yaml.safe_load(shown)["version"] == 1
    resolved = json.loads(cli("recipes", "show", "fip_sample", "--json").stdout)
    assert resolved["train"]["log_every"] > 0


def test_copied_recipes_are_yours(cli: Cli, place: Path) -> None:
    assert cli("recipes", "cp", "fip_sample").stdout == "fip_sample.yaml\n"
    cli("recipes", "cp", "fip_sample", "mine.yaml")
    assert Path("mine.yaml").read_text() == (ROOT / "recipes" / "fip_sample.yaml").read_text()
    Path("mine.yaml").write_text("# mine\n")
    assert "add --force" in cli("recipes", "cp", "fip_sample", "mine.yaml", code=1).error
    assert Path("mine.yaml").read_text() == "# mine\n"
    cli("recipes", "cp", "fip_sample", "mine.yaml", "--force")
    done = cli("recipes", "validate", "mine.yaml", "--set", "train.lr=fast", "--json", code=2)
    assert json.loads(done.stdout)[0]["valid"] is False
    assert "is of kind model, not a recipe" in cli("recipes", "show", "can24", code=2).error


def test_the_schema_is_the_shipped_one(cli: Cli) -> None:
    printed = cli("recipes", "schema").stdout
    assert printed == recipe_schema.schema_text()
    assert printed == (ROOT / "recipes" / "schema.json").read_text(), "run: make schema"


@pytest.mark.parametrize("kind", ["model", "layer", "operator"])
def test_registered_names_are_listed(cli: Cli, kind: str) -> None:
    listed = json.loads(cli(f"{kind}s", "ls", "--json").stdout)
    assert set(listed) <= set(registry.REGISTRIES[kind])
    assert {"model": "can24", "layer": "lstmp", "operator": "rof"}[kind] in listed
    shown = cli(f"{kind}s", "ls").stdout
    assert "inspect" not in shown
    for name, entry in listed.items():
        assert name in shown
        assert entry["about"]
        assert not set(entry["required"]) & set(entry["arguments"])


@pytest.mark.parametrize("name", sorted(registry.OPERATORS))
def test_an_operator_is_shown(cli: Cli, name: str) -> None:
    found = json.loads(cli("operators", "show", name, "--json").stdout)
    own = signature.parameters(registry.find("operator", name))
    assert list(found["keys"]) == list(own)
    for key, entry in found["keys"].items():
        assert entry["about"], key
        default = own[key].default
        assert entry.get("default") == (list(default) if isinstance(default, tuple) else default)
    assert re.search(r"[12]\d{3}", found["source"])
    table = (ROOT / "docs" / "systems" / "fast_image_processing.md").read_text()
    (row,) = re.findall(rf"^\| `{name}` .*$", table, re.MULTILINE)
    assert found["confirmed"] is ("not confirmed" not in row)
    shown = cli("operators", "show", f"operator:{name}").stdout
    told = "settings confirmed: " if found["confirmed"] else f"settings not confirmed: {found['unconfirmed']}"
    assert told in shown
    for text in (found["about"], found["source"], f"example: {found['example']}", *found["notes"]):
        assert text in shown
    assert found["example"].startswith(f"compressnet apply operator:{name}:{next(iter(own))}=")


def test_an_operator_that_is_none_is_not_shown(cli: Cli) -> None:
    assert (
        "there is no operator 'roff' - did you mean 'rof'?" in cli("operators", "show", "roff", code=2).error
    )
    assert "give the name alone, rof" in cli("operators", "show", "rof:weight=1", code=2).error


def test_the_zoo_is_listed_with_its_results(cli: Cli) -> None:
    cards = json.loads(cli("zoo", "ls", "--json").stdout)
    assert sorted(cards) == names("zoo")
    shown = cli("zoo", "ls").stdout
    for name, card in cards.items():
        assert f"zoo:{name}" in shown
        assert card["about"]
        assert card["result"]


def test_a_network_of_the_zoo_is_shown(cli: Cli) -> None:
    card = json.loads(cli("zoo", "show", "zoo:rof", "--json").stdout)
    shown = cli("zoo", "show", "rof").stdout
    for key in ("about", "result", "data", "licence", "example"):
        assert card[key] in shown
    assert "there is no 'roff' in the zoo - did you mean 'rof'?" in cli("zoo", "show", "roff", code=2).error


@pytest.mark.parametrize("name", names("zoo"))
def test_the_example_of_a_network_works(cli: Cli, place: Path, name: str) -> None:
    Image.effect_noise((40, 30), 60).convert("RGB").save("photo.jpg")
    soundfile.write("speech.wav", np.zeros(16000, dtype=np.float32), 16000)
    _, *words = shlex.split(zoo_card(name)["example"])
    assert json.loads(cli(*words, "--device", "cpu", "--json").stdout)


def test_runs(cli: Cli, place: Path, smoke_run: Path) -> None:
    assert "no runs in runs" in cli("runs", "ls").stdout
    for name in ("whole", "bad_json", "bad_recipe", "other", "binary"):
        shutil.copytree(smoke_run, place / "runs" / name)
    (place / "runs" / "bad_json" / "run.json").write_text("{")
    (place / "runs" / "bad_recipe" / "recipe.yaml").write_text("version: 7\nwhat: this\n")
    (place / "runs" / "other" / "run.json").write_text("{}")
    (place / "runs" / "binary" / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    (place / "runs" / "no_run").mkdir()
    rows = {Path(row["run"]).name: row for row in json.loads(cli("runs", "ls", "--json").stdout)}
    assert set(rows) == {"whole", "bad_json", "bad_recipe", "other", "binary"}
    assert rows["whole"]["status"] == "done (smoke)"
    assert rows["whole"]["step"] == 8
    for name in set(rows) - {"whole"}:
        assert rows[name]["status"].startswith("damaged: ")
        assert "\n" not in rows[name]["status"]
    shown = cli("runs", "ls").stdout
    assert re.search(r"whole .*done \(smoke\)", shown)
    assert "bad_json" in shown
    assert "bad_json" in cli("eval", "runs/bad_json", code=1).error
