"""What has to be there before anything is checked: packages, the C kernels, and this checkout on the path."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from benchmarks.cuda_checks.cases import ROOT

_MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage"}  # where the name is another
# What a package that is missing would bring: it cannot say so itself.
_BRINGS = {
    "matplotlib": ["contourpy", "cycler", "fonttools", "kiwisolver", "pyparsing", "python-dateutil"],
    "pydantic": ["annotated-types", "pydantic-core", "typing-extensions", "typing-inspection"],
    "rich": ["markdown-it-py", "mdurl", "pygments"],
    "scikit-image": ["imageio", "lazy-loader", "networkx", "tifffile"],
    "torchmetrics": ["lightning-utilities"],
    "typer": ["annotated-doc", "rich", "shellingham"],
}
VersionOf = Callable[[str], str | None]
NeedsOf = Callable[[str], list[str]]


def installed_version(name: str) -> str | None:
    """The version of a distribution; None: it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def installed_needs(name: str) -> list[str]:
    """Names of what an installed distribution needs everywhere: without extras, on no condition."""
    return [split(text)[0] for text in requires(name) or [] if ";" not in text]


def missing(version_of: VersionOf = installed_version, needs_of: NeedsOf = installed_needs) -> list[str]:
    """All packages that are missing or too old, as pip takes them."""
    found: dict[str, str] = {}
    waiting = [split(text) for text in dependencies()]
    seen: set[str] = set()
    while waiting:
        name, least = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        there = version_of(name)
        if there is None or numbers(there) < numbers(least):
            found[name] = f"{name}>={least}" if least else name
        further = _BRINGS.get(name, []) if there is None else needs_of(name) if name != "torch" else []
        waiting += [(other, "") for other in further]
    return sorted(found.values())


def how_to_install(names: list[str]) -> str:
    """One line, for a machine with and without an index."""
    quoted = " ".join(f"'{name}'" for name in names)
    return (
        f"missing packages: {', '.join(names)}; install them with: {sys.executable} -m pip install {quoted} "
        "(without an index: carry their wheels here and add --no-index --find-links FOLDER)"
    )


def dependencies() -> list[str]:
    """Those of pyproject.toml that some module imports."""
    texts = [path.read_text() for room in ("compressnet", "cli") for path in (ROOT / room).rglob("*.py")]
    statement = re.compile(r"^ *(?:import|from) (\w+)", re.MULTILINE)
    imported = {name for text in texts for name in statement.findall(text)}
    return [text for text in project()["dependencies"] if _module(split(text)[0]) in imported]


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def split(requirement: str) -> tuple[str, str]:
    """`typer>=0.20` as ("typer", "0.20"); other conditions than a least version are left out."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    least = re.search(r">=\s*([\d.]+)", requirement)
    return re.sub(r"[-_.]+", "-", name[0]).lower(), least[1] if least else ""


def numbers(text: str) -> tuple[int, ...]:
    """The release of a version: 2.11.0+cu130 as (2, 11, 0)."""
    release = re.match(r"[\d.]*\d", text)
    return tuple(map(int, release[0].split("."))) if release else ()


def _module(name: str) -> str:
    return _MODULES.get(name, name.replace("-", "_"))


def put_on_path(folder: Path) -> None:
    """Make of `folder` a place to import from as if this checkout were installed.

    `compressnet_cli` and `compressnet_recipes` are folders under other names, and the version is looked up.
    """
    own = project()
    about = folder / f"{own['name']}-{own['version']}.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {own['name']}\nVersion: {own['version']}\n"
    )
    for name, place in (("compressnet_cli", "cli"), ("compressnet_recipes", "recipes")):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / place, target_is_directory=True)


def build_kernels(log: Path, seconds: float) -> tuple[bool, str]:
    """Build in place the C kernels that are not there; whether all are, and a line about it."""
    if not (wanted := list(_unbuilt())):
        return True, "were there"
    log.parent.mkdir(parents=True, exist_ok=True)
    # Python may have been built with a compiler that is not here.
    compiler = {"CC": found} if (found := shutil.which("cc") or shutil.which("gcc")) else {}
    with log.open("a") as output:
        try:
            subprocess.run(
                [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
                cwd=ROOT,
                env={**compiler, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False, f"setup.py build_ext did not end within {seconds:.0f} s"
    if left := list(_unbuilt()):
        return False, f"setup.py build_ext did not make {', '.join(left)} (logs/{log.name})"
    return True, f"built {', '.join(wanted)}"


def _unbuilt() -> Iterator[str]:
    for source in sorted((ROOT / "compressnet/kernels").glob("*.c")):
        if not source.with_name(f"_{source.stem}{EXTENSION_SUFFIXES[0]}").is_file():
            yield source.stem
