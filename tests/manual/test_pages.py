"""The manual as a reader would follow it: blocks marked `<!-- run -->` run, and show what they show.

Of a shown output `...` stands for anything, within a line or for lines; figures may differ by 2 %.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from compressnet import registry
from tests.conftest import ROOT, environment_of
from tests.manual.reader import Reader

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"<!-- (run|file: (?P<file>\S+)) -->\n```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.M
)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


class Command(NamedTuple):
    line: str
    shown: list[str]


def commands(text: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        line, *shown = part.rstrip("\n").replace("\\\n", "").split("\n")
        yield Command(line, [row for row in shown if row.strip()])


def fits(shown: list[str], output: list[str]) -> bool:
    """Whether the shown lines stand in the output, one after the other."""
    if not shown:
        return not output
    first, *rest = shown
    if first == "...":
        return any(fits(rest, output[skip:]) for skip in range(len(output) + 1))
    return bool(output) and _alike(first, output[0]) and fits(rest, output[1:])


def _alike(shown: str, line: str) -> bool:
    pattern = r".*".join(re.escape(_NUMBER.sub("0", part)) for part in shown.split("..."))
    if not re.fullmatch(pattern, _NUMBER.sub("0", line)):
        return False
    wanted, found = ([float(n.replace(",", "")) for n in _NUMBER.findall(text)] for text in (shown, line))
    return "..." in shown or all(abs(a - b) <= 0.02 * abs(a) for a, b in zip(wanted, found, strict=True))


@pytest.fixture(scope="session")
def reader(forked: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Whoever reads all pages, one after the other."""
    return Reader(forked, environment_of(cache), tmp_path_factory.mktemp("reader"))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "<!-- run -->" in page.read_text()], ids=lambda page: page.stem
)
def test_what_a_page_shows(page: Path, tmp_path: Path, reader: Reader) -> None:
    programs = []
    for found in _BLOCK.finditer(page.read_text()):
        if found["file"]:
            (tmp_path / found["file"]).write_text(found["text"])
        elif found["kind"] == "python":
            programs.append(found["text"])
        else:
            for command in commands(found["text"]):
                done = reader.run(command.line, tmp_path)
                said = done.stderr + done.stdout  # pages leave notes out where they do not matter
                assert done.code == 0, f"{command.line}\n{said}"
                if command.shown:
                    outputs = _lines(done.stdout), _lines(said)
                    assert any(fits(command.shown, output) for output in outputs), f"{command.line}\n{said}"
    if programs:
        done = reader.python("\n".join(programs), tmp_path)
        assert done.code == 0, done.stderr + done.stdout


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_every_layer_and_model_has_an_example_that_runs() -> None:
    for kind in ("layer", "model"):
        blocks = "".join(m["text"] for m in _BLOCK.finditer((ROOT / f"docs/api/{kind}s.md").read_text()))
        for name in registry.REGISTRIES[kind]:
            assert f'"{name}"' in blocks, name


@pytest.mark.slow
def test_the_manual_builds_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "docs", str(tmp_path / "html")]
    done = subprocess.run(
        [*words, "-d", str(tmp_path / "trees")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "apply" in (tmp_path / "html" / "commands" / "apply.html").read_text()


def test_every_command_has_a_page() -> None:
    import typer
    from compressnet_cli.main import app

    pages = "".join(page.read_text() for page in (ROOT / "docs" / "commands").glob("*.md"))
    command = typer.main.get_command(app)
    for name in command.commands:  # type: ignore[attr-defined]
        assert f"compressnet {name}" in pages, name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_what_fits() -> None:
    assert fits(["a 7.40 ...", "...", "end"], ["a 7.39 b", "x", "y", "end"])
    assert fits(["| 7.40 |"], ["| 7.39 |"])
    assert not fits(["| 7.40 |"], ["| 6.39 |"])
    assert not fits(["a"], ["a", "b"])


def test_a_command_runs_again_where_its_files_are_others(tmp_path: Path, reader: Reader) -> None:
    numbers = []
    for name, text in (("first", "a"), ("second", "a"), ("third", "b")):
        place = tmp_path / name
        place.mkdir()
        (place / "given").write_text(text)
        (place / "not_named").write_text(name)
        reader.run("cp given made; date +%s%N > time    # for the reader", place)
        assert (place / "made").read_text() == text
        numbers.append((place / "time").read_text())
    assert numbers[0] == numbers[1] != numbers[2]
