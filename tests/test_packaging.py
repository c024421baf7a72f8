"""What is installed: by a wheel as by an editable install, the same program with all its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from compressnet.kernels.library import NAMES
from tests.conftest import ROOT
from tests.kernels.test_library import has_compiler

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages() -> set[str]:
    """Every folder with Python files, by the name it is installed as."""
    folders = {path.parent for room in ("compressnet", "cli") for path in (ROOT / room).rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    return {"compressnet_recipes", *(re.sub(r"^cli\b", "compressnet_cli", name) for name in names)}


def test_every_package_is_listed() -> None:
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == packages()


def test_the_tests_run_on_the_editable_install() -> None:
    for name, folder in {
        "compressnet_recipes": "recipes",
        "compressnet_cli": "cli",
        "compressnet": None,
    }.items():
        place = Path(str(resources.files(name)))
        assert place.resolve() == (ROOT / (folder or name)).resolve()
    assert (resources.files("compressnet_recipes") / "fip_sample.yaml").is_file()
    assert (resources.files("compressnet") / "py.typed").is_file()


def test_dependencies_hold_nothing_that_breaks_builds_of_torch() -> None:
    project = SETTINGS["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    for banned in ("torchvision", "torchaudio", "timm", "compressai", "lpips", "torchmetrics["):
        assert not any(name.startswith(banned) for name in wanted)


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    copy_of_the_source(source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)], tmp_path)
    (wheel,) = tmp_path.glob("compressnet-*.whl")
    contents = set(zipfile.ZipFile(wheel).namelist())
    for pattern, package in [
        ("recipes/*.yaml", "compressnet_recipes"),
        ("recipes/schema.json", "compressnet_recipes"),
        ("compressnet/zoo/*.safetensors", "compressnet/zoo"),
        ("compressnet/zoo/*.json", "compressnet/zoo"),
        ("compressnet/report/*.css", "compressnet/report"),
        ("compressnet/report/*.js", "compressnet/report"),
        ("compressnet/py.typed", "compressnet"),
    ]:
        missing = {f"{package}/{path.name}" for path in ROOT.glob(pattern)} - contents
        assert not missing
    for room, installed_as in (("compressnet", "compressnet"), ("cli", "compressnet_cli")):
        for path in (ROOT / room).rglob("*.py"):
            assert f"{installed_as}/{path.relative_to(ROOT / room)}" in contents
    assert not any(name.startswith(("tests/", "runs/", "results/")) for name in contents)
    if has_compiler():
        for kernel in NAMES:
            assert any(name.startswith(f"compressnet/kernels/_{kernel}.") for name in contents)

    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run([*pip, "install", "--no-deps", "--target", str(installed), str(wheel)], tmp_path)
    # `-S` would hide torch too: the installed copy comes first, and must say that it is the one that runs.
    script = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import compressnet, compressnet_cli, compressnet_recipes\n"
        f"assert all(m.__file__.startswith({str(installed)!r})\n"
        "           for m in (compressnet, compressnet_cli, compressnet_recipes))\n"
        "from compressnet_cli.main import main\n"
        "for words in ('recipes ls', 'zoo ls', 'recipes validate fip_sample', '--version'):\n"
        "    assert main(words.split()) == 0, words\n"
    )
    shown = run([sys.executable, "-c", script], elsewhere)
    for word in ("fip_sample", "fip_sample.yaml: valid", "compressnet 0."):
        assert word in shown
    for name in (ROOT / "compressnet" / "zoo").glob("*.safetensors"):
        assert f"zoo:{name.stem}" in shown


@pytest.mark.slow
def test_a_wheel_without_a_compiler_is_whole_but_for_the_kernels(tmp_path: Path) -> None:
    source = tmp_path / "source"
    copy_of_the_source(source)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-deps"]
    command += ["--no-build-isolation", "-w", str(tmp_path), str(source)]
    environment = {**os.environ, "CC": "false", "CXX": "false"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("compressnet-*.whl")
    contents = zipfile.ZipFile(wheel).namelist()
    assert "compressnet/kernels/sru.py" in contents
    assert not any(name.startswith("compressnet/kernels/_sru") for name in contents)


def copy_of_the_source(target: Path) -> None:
    """What git knows or would add: a build in the tree itself would leave folders there."""
    listed = run(["git", "ls-files", "-co", "--exclude-standard", "-z"], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name.split("/")[0] not in ("tests", "runs"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
