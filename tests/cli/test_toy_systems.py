"""Systems that read clips and sounds, through the commands as they are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from compressnet import registry
from tests.cli import toy_systems
from tests.cli.conftest import Cli


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for table, names in toy_systems.REGISTERED.items():
        for name, attribute in names.items():
            monkeypatch.setitem(getattr(registry, table), name, f"tests.cli.toy_systems:{attribute}")


class Stdin:
    """What is piped in: bytes that cannot be wound back."""

    closed = False

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BufferedReader(io.BytesIO(data))
        self.buffer.seekable = lambda: False  # type: ignore[method-assign]

    def isatty(self) -> bool:
        return False


def clip(path: Path, first: int, last: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.linspace(first, last, 5)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    with open(path, "wb") as file:
        np.save(file, frames.astype(np.uint8))
    return path


def sound(path: Path, loud: str) -> Path:
    """A tenth of a second for each letter: `#` is loud."""
    path.parent.mkdir(parents=True, exist_ok=True)
    amplitude = np.repeat([0.9 if letter == "#" else 0.02 for letter in loud], toy_systems.FRAME)
    tone = np.sin(np.arange(len(amplitude)) * 0.9)
    soundfile.write(path, (amplitude * tone).astype(np.float32), toy_systems.RATE)
    return path


@pytest.fixture
def clips(place: Path, registered: None, cli: Cli) -> Path:
    for split in ("train", "test"):
        for number in range(4):
            clip(place / "data" / split / f"brighter_{number}.mp4", 20 * number, 150 + 20 * number)
            clip(place / "data" / split / f"darker_{number}.mp4", 250 - number, 100 + 20 * number)
    (place / "clips.yaml").write_text(toy_systems.RECIPE.format(task="toy_clips"))
    cli("train", "clips.yaml", "-o", "run", "--device", "cpu")
    return place


def test_clips_become_sentences(clips: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(cli("eval", "run", "--json").stdout)["metrics"] == {"accuracy": 1.0}
    report = json.loads(cli("eval", "run", "--set", "sure=1.0", "--json", "--pictures", "seen").stdout)
    assert report["metrics"] == {"accuracy": 0.0}
    assert report["measures"] == {"sure": 1.0}
    assert report["details"] == {"answers": [0.0] * 8}
    assert (clips / "seen" / "right.png").is_file()
    assert "unknown key 'shure'" in cli("eval", "run", "--set", "shure=1", code=2).error

    up, down = clip(clips / "up.mp4", 0, 200), clip(clips / "album" / "down.mp4", 200, 0)
    assert cli("apply", "run", "up.mp4").stdout == "it gets brighter\n"
    assert cli("apply", "run", "up.mp4", "--set", "subject=all").stdout == "all gets brighter\n"
    clip(clips / "album" / "deep" / "up.MP4", 0, 200)
    (clips / "album" / "notes.pdf").touch()
    (clips / "album" / "broken.mp4").write_text("no clip")
    done = cli("apply", "run", "album", "--json", code=1)
    report = json.loads(done.stdout)
    assert [(row["input"], row["text"]) for row in report["files"]] == [
        ("album/deep/up.MP4", "it gets brighter"),
        ("album/down.mp4", "it gets darker"),
    ]
    assert done.error == "album/broken.mp4: no clip can be read from it"
    assert "warning: album: 1 file of other kinds left out: 1 .pdf" in done.stderr
    (clips / "album" / "broken.mp4").unlink()

    cli("apply", "run", up, "album", "-o", "all.txt")
    assert Path("all.txt").read_text() == "it gets brighter\nit gets brighter\nit gets darker\n"
    written = cli("apply", "run", up, "album", "-o", "out").stdout
    assert written == "out/up.txt\nout/deep/up.txt\nout/down.txt\n"
    assert Path("out/down.txt").read_text() == "it gets darker\n"
    assert cli("apply", "run", "album", "-o", "out", "--skip-existing").stdout == ""
    shown = cli("apply", "run", "album", "-o", "out", "--force", "--shard", "2/2")
    assert shown.stdout == "out/down.txt\n"
    assert "one file for all" in cli("apply", "run", "album", "-o", "b.txt", "--shard", "1/2", code=2).error

    monkeypatch.setattr("sys.stdin", Stdin(down.read_bytes()))
    assert cli("apply", "run", "-").stdout == "it gets darker\n"
    monkeypatch.setattr("sys.stdin", Stdin(down.read_bytes()))
    cli("apply", "run", "-", "-o", "piped")
    assert Path("piped/stdin.txt").read_text() == "it gets darker\n"
    monkeypatch.setattr("sys.stdin", Stdin(b""))
    assert cli("apply", "run", "-", code=1).error == "-: nothing was piped in"
    assert "- is named twice" in cli("apply", "run", "-", "-", code=2).error
    lacks = cli("apply", "run", code=2).error
    assert lacks == "name at least one input: clips, a folder of them, or - for what is piped in"
    assert "run writes no text" in cli("apply", "run", "--prompt", "a", code=2).error


def test_sounds_become_events(
    place: Path, registered: None, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        for number in range(4):
            sound(place / "data" / split / f"loud_{number}.wav", "." * number + "#")
            sound(place / "data" / split / f"quiet_{number}.flac", "...")
    (place / "sounds.yaml").write_text(toy_systems.RECIPE.format(task="toy_sounds"))
    cli("train", "sounds.yaml", "-o", "run", "--device", "cpu")
    assert json.loads(cli("eval", "run", "--json").stdout)["metrics"] == {"accuracy": 1.0}
    listed = json.loads(cli("apply", "run", "--options", "--json").stdout)
    assert listed["only"]["enum"] == ["all", "loud", "quiet"]  # from what is stored with the weights
    assert "all, loud, quiet" in cli("apply", "run", "--options").stdout

    door = sound(place / "door.wav", ".##.")
    wanted = [(0.0, 0.1, "quiet"), (0.1, 0.3, "loud"), (0.3, 0.4, "quiet")]
    report = json.loads(cli("apply", "run", door, "--json").stdout)
    assert [tuple(event.values()) for event in report["files"][0]["events"]] == wanted
    cli("apply", "run", door, "-o", "events.csv", "--set", "only=loud")
    assert Path("events.csv").read_text() == f"input,begin,end,label\n{door},0.1,0.3,loud\n"
    cli("apply", "run", door, "-o", "each")
    assert Path("each/door.tsv").read_text().splitlines()[1] == "0.0\t0.1\tquiet"
    silent = sound(place / "silent.wav", "...")
    assert cli("apply", "run", silent, "--set", "only=loud").stdout == f"{silent}: nothing\n"
    cli("apply", "run", silent, "--set", "only=loud", "-o", "none.tsv")
    assert Path("none.tsv").read_bytes() == b""
    wrong = cli("apply", "run", door, "--set", "only=bang", code=2).error
    assert wrong.startswith("'only' should be 'all', 'loud' or 'quiet'")
    assert "use one of .tsv .csv" in cli("apply", "run", door, "-o", "events.wav", code=2).error

    monkeypatch.setattr("sys.stdin", Stdin(door.read_bytes()))
    assert cli("apply", "run", "-", "--json").stdout.count('"loud"') == 1
    monkeypatch.setattr("sys.stdin", Stdin(b"no sound"))
    assert cli("apply", "run", "-", code=1).error == "-: no sound can be read from it"
