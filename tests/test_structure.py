"""The arrows of the house: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each room may import the rooms below it; a set on one line holds neighbours that do not import each other.
ORDER = [
    {"cli"},
    {"report"},
    {"compression", "results"},
    {"training", "export"},
    {"tasks"},
    {"codec"},
    {"models", "data"},
    {"operators", "layers"},
    {"kernels"},
]
RANK = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
GROUND = {"errors", "files", "places", "processes", "recipe", "registry", "reporter", "signature", "subject"}
GROUND |= {
    "architecture",
    "bounds",
    "card",
    "cost",
    "cost_cells",
    "crc32c",
    "finite",
    "free_memory",
    "json_file",
    "npz_file",
    "user_module",
    "yaml_file",
}
GROUND |= {"checkpoints", "run", "run_files", "run_lock", "run_names", "side", "tf_bundle"}
GROUND |= {"processor", "regular_file", "source", "weights"}
SOURCES = [*(ROOT / "compressnet").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "cli" if parts[0] == "cli" else parts[1].removesuffix(".py")


def imports(tree: ast.Module, *, module_level: bool) -> Iterator[str]:
    """Names of compressnet modules that are imported; `if TYPE_CHECKING` does not count."""
    nodes = tree.body if module_level else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path, *, module_level: bool) -> set[str]:
    names = imports(ast.parse(path.read_text()), module_level=module_level)
    return {
        name.split(".")[1] for name in names if name.startswith("compressnet.") and len(name.split(".")) > 1
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_downwards(path: Path) -> None:
    room = room_of(path)
    for other in rooms_imported(path, module_level=True):
        if room in RANK and other in RANK and room != other:
            assert RANK[other] > RANK[room], f"{room} imports {other}"
        if room in GROUND:
            assert other in GROUND, f"the ground floor ({room}) imports {other} at module level"
        if room == "analysis":
            assert other in GROUND | {"analysis", "layers"}, f"analysis imports {other}"
        if room == "export":
            assert other in GROUND | {"export", "analysis", "layers", "models"}, f"export imports {other}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_knows_no_screen_and_no_command_line(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    names = set(imports(tree, module_level=False))
    if room_of(path) != "cli":
        assert not any(name.startswith("compressnet_cli") for name in names)
        assert "sys.argv" not in text
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls)
    banned = {"torchvision", "torchaudio", "timm", "compressai", "lpips", "pickle"}
    assert not banned & {name.split(".")[0] for name in names}
