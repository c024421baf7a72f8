"""Keyword spotters as a user has them: train, resume, evaluate, apply to files and pipes, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image as Pillow

from compressnet import recipe, run, subject
from compressnet.training.train import train
from tests.cli.conftest import Cli
from tests.cli.test_toy_systems import Stdin
from tests.cli.test_train import facts, wait_for
from tests.training.test_loop import CPU

RATE = 8_000
PITCHES = {"low": 500, "high": 2500, "other": 1200}  # Hz
DATA = f"sample_rate={RATE},unknown_percent=50,silence_percent=25"
RECIPE = """
version: 1
task: {{name: keyword_spotting}}
model: {model}
data: {{name: speech_commands, root: set, words: [low, high], sample_rate: 8000, unknown_percent: 50,
        silence_percent: 25}}
train: {{steps: {steps}, batch: 16, lr: 0.01, optimizer: adam, schedule: cosine, evaluate_every: 100,
        checkpoint_every: 100}}
"""
MODELS = {
    "heard": RECIPE.format(model="{name: kws_svdf, size: 30k, norm: true}", steps=80),
    "whole": RECIPE.format(model="{name: kws_tiny_conv, hop_ms: 20, dropout: 0.0}", steps=40),
}
SMALL = (
    "train.steps=6",
    "train.checkpoint_every=2",
    "data.count=24",
    "data.val_count=12",
    "data.test_count=12",
)
SMOKE = ("speech_sample", "--smoke", "--device", "cpu", *(word for key in SMALL for word in ("--set", key)))


def tones(
    *words: str, length_ms: int = 1000, every_ms: int = 2500, rate: int = RATE, seed: int = 0
) -> np.ndarray:
    """Words, which are tones of 400 ms, the first after 300 ms; float (N,)."""
    random = np.random.default_rng(seed)
    samples = random.normal(0, 0.003, rate * length_ms // 1000)
    time = np.arange(rate * 400 // 1000) / rate
    for number, word in enumerate(words):
        tone = (
            np.sin(2 * np.pi * PITCHES[word] * random.uniform(0.95, 1.05) * time)
            * np.hanning(len(time)) ** 0.3
        )
        begin = rate * (300 + every_ms * number) // 1000
        samples[begin : begin + len(tone)] += random.uniform(0.1, 0.5) * tone
    return samples


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with `set`, clips of three words, and two runs that tell them apart: one streams."""
    place = tmp_path_factory.mktemp("tones")
    for part, count in (("train", 24), ("test", 4)):
        for word in PITCHES:
            for number in range(count):
                path = place / "set" / part / word / f"{number}.wav"
                write(path, tones(word, seed=len(word) + 10 * number + 1000 * (part == "test")))
    write(
        place / "set" / "_background_noise_" / "hiss.wav", np.random.default_rng(0).normal(0, 0.01, 4 * RATE)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSNET_DATA", str(place))
        patch.setenv("COMPRESSNET_CACHE", str(cache))
        for name, text in MODELS.items():
            train(run.Run.create(recipe.Recipe.parse(text, "c.yaml"), folder=place / name), device=CPU)
    return place


@pytest.fixture
def runs(place: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to work in, with copies of `heard` and `whole`."""
    monkeypatch.setenv("COMPRESSNET_DATA", str(trained))
    for name in MODELS:
        shutil.copytree(trained / name, place / name)
    return place


def events(done: Any) -> list[list[dict[str, Any]]]:
    """What `apply --json` found in each file."""
    return [file["events"] for file in json.loads(done.stdout)["files"]]


def labels(found: list[dict[str, Any]]) -> list[str]:
    return [event["label"] for event in found]


def test_killed_and_resumed_is_the_same(
    cli: Cli, place: Path, environment: dict[str, str], forked: Path
) -> None:
    cli("train", *SMOKE, "-o", "whole")
    command = [str(forked), "train", *SMOKE, "-o", "killed"]
    process = subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(place / "killed" / "checkpoints" / "step-2", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert facts(place / "killed")["status"] == "running"
    cli("train", "--resume", "killed", "--device", "cpu")
    assert facts(place / "killed")["digest"] == facts(place / "whole")["digest"]
    shown = cli("eval", "killed").stdout
    assert "killed on speech_sample (synthetic), test (smoke run: figures mean nothing)" in " ".join(
        shown.split()
    )


def test_eval_of_clips_and_of_the_same_as_one_stream(cli: Cli, runs: Path) -> None:
    for name in MODELS:
        clips = json.loads(cli("eval", name, "--json").stdout)
        assert clips["metrics"]["accuracy"] > 0.8
        assert clips["rows"]["low"]["count"] == 4
        assert np.sum(clips["details"]["confusion"]["counts"]) == 14
        # The window of both is a clip, a whole number of hops: nothing is left of the clip before.
        data = f"speech_commands:root=set,words=[low,high],{DATA},carry=true"
        stream = json.loads(cli("eval", name, "--data", data, "--json").stdout)
        assert stream["metrics"] == pytest.approx(clips["metrics"], abs=1e-5)
        assert stream["details"] == clips["details"]
    cli("eval", "heard", "--pictures", "seen")
    assert Pillow.open("seen/confusion.png").width > 200
    assert len(list((runs / "seen").iterdir())) == 15


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("speech_sample", "the network knows _silence_, _unknown_, low, high"),
        (f"speech_commands:root=set,words=[high,low],{DATA}", "the network knows"),
        ("speech_commands:root=set,words=[low,high]", "set data.sample_rate=8000"),
        ("glyphs", "'glyphs' gives class_image samples, 'heard' takes audio_class or audio_stream"),
    ],
)
def test_data_that_does_not_fit(cli: Cli, runs: Path, data: str, problem: str) -> None:
    assert problem in cli("eval", "heard", "--data", data, code=None).error


def test_apply_says_the_word_of_a_clip(cli: Cli, runs: Path) -> None:
    write(runs / "a.wav", tones("low"))
    for name in MODELS:
        ((event,),) = events(cli("apply", name, "a.wav", "--json"))
        assert (event["start_ms"], event["end_ms"], event["label"]) == (0, 1000, "low")
        assert 0.5 < event["score"] <= 1
    shown = cli("apply", "heard", "a.wav").stdout
    assert "a.wav" in shown
    assert "low" in shown
    write(runs / "short.wav", tones("low", length_ms=720))
    ((event,),) = events(cli("apply", "heard", "short.wav", "--json"))
    assert (event["end_ms"], event["label"]) == (720, "low")


def test_apply_finds_words_in_longer_audio(cli: Cli, runs: Path) -> None:
    said = ["low", "high", "low", "other", "low"]
    write(runs / "set" / "long.wav", tones(*said, length_ms=12_500))
    write(runs / "set" / "more" / "clip.flac", tones("high"))
    write(runs / "set" / "quiet.wav", tones(length_ms=3000))
    (runs / "set" / "notes.txt").write_text("no sound")
    done = cli("apply", "heard", "set", "--json")
    assert "1 file of other kinds left out: 1 .txt" in done.stderr
    assert [file["input"] for file in json.loads(done.stdout)["files"]] == [
        "set/long.wav",
        "set/more/clip.flac",
        "set/quiet.wav",
    ]
    long, clip, quiet = events(done)
    assert labels(long) == ["low", "high", "low", "low"]  # unknown words are not told
    for event, begin in zip(long, (300, 2800, 5300, 10_300), strict=True):
        assert 1000 <= event["end_ms"] - event["start_ms"] <= 1500  # windows of half a second in a row
        assert 200 <= event["end_ms"] - begin <= 1500
        assert 0.7 < event["score"] <= 1
    assert labels(clip) == ["high"]
    assert quiet == []
    for name in MODELS:
        (found,) = events(cli("apply", name, "set/long.wav", "--json"))
        assert labels(found) == labels(long)
    shown = cli("apply", "heard", "set/long.wav", "set/quiet.wav").stdout
    assert shown.count("low") == 3
    assert "set/quiet.wav: nothing" in shown
    cli("apply", "heard", "set/long.wav", "set/more/clip.flac", "-o", "out.tsv")
    rows = list(csv.DictReader((runs / "out.tsv").open(), delimiter="\t"))
    assert [row["input"] for row in rows] == ["set/long.wav"] * 4 + ["set/more/clip.flac"]
    assert [(float(row["start_ms"]), row["label"]) for row in rows] == [
        (event["start_ms"], event["label"]) for event in [*long, *clip]
    ]


def test_apply_takes_settings(cli: Cli, runs: Path) -> None:
    write(runs / "long.wav", tones("low", "high", length_ms=5000))

    def found(name: str, *settings: str) -> list[dict[str, Any]]:
        words = [word for setting in settings for word in ("--set", setting)]
        (events_,) = events(cli("apply", name, "long.wav", "--json", *words))
        return events_

    plain = found("heard")
    assert labels(plain) == ["low", "high"]
    stream = found("heard", "stream=true")
    for mine, theirs in zip(stream, plain, strict=True):
        assert mine == {**theirs, "score": pytest.approx(theirs["score"], abs=1e-5)}
    assert labels(found("heard", "thresholds={low: 1.0}")) == ["high"]
    assert labels(found("heard", "threshold=1.0", "thresholds={low: 0.6}")) == ["low"]
    assert found("heard", "threshold=0.3")[0]["end_ms"] <= plain[0]["end_ms"]
    assert labels(found("heard", "suppression_ms=60000")) == ["low"]
    refused = cli("apply", "whole", "long.wav", "--set", "stream=true", code=2).error
    assert refused == "stream=true: this network looks at whole clips: leave it out, and windows slide"
    unknown = cli("apply", "heard", "long.wav", "--set", "thresholds={hi: 0.5}", code=2).error
    assert unknown == "thresholds: 'hi' is no class: there are _silence_, _unknown_, low, high"
    assert "thresholds" in cli("apply", "heard", "long.wav", "--set", "thresholds={low: 2}", code=2).error
    never = cli("apply", "heard", "long.wav", "--set", "minimum_count=1000", code=2).error
    assert never.startswith("average_ms=500, minimum_count=1000: nothing would ever be found")
    listed = json.loads(cli("apply", "heard", "--options", "--json").stdout)
    assert {"average_ms", "minimum_count", "suppression_ms", "threshold", "thresholds", "stream"} == set(
        listed
    )


def test_sound_of_any_kind(cli: Cli, runs: Path) -> None:
    write(runs / "in" / "8bit.wav", tones("low"), subtype="PCM_U8")
    write(runs / "in" / "float.wav", tones("low"), subtype="DOUBLE")
    write(runs / "in" / "rate.wav", tones("low", rate=44_100), 44_100)
    write(runs / "in" / "stereo.flac", np.stack([tones("low"), tones("low", seed=1)], 1))
    done = cli("apply", "heard", "in", "--json")
    found = events(done)
    assert [labels(events_) for events_ in found] == [["low"]] * 4
    assert [events_[0]["end_ms"] for events_ in found] == [1000] * 4
    notes = [line for line in done.stderr.splitlines() if "resampled" in line]
    assert notes == ["in/rate.wav: 44,100 Hz: resampled to 8,000, as others of that rate"]


def test_bad_files_are_told_in_a_line_each(cli: Cli, runs: Path) -> None:
    good = write(runs / "good.wav", tones("high")).read_bytes()
    (runs / "empty.wav").touch()
    (runs / "cut.wav").write_bytes(good[:-1000])
    (runs / "words.wav").write_text("no sound")
    samples = tones("low")
    samples[77] = np.nan
    write(runs / "nan.wav", samples, subtype="FLOAT")
    write(runs / "none.wav", samples[:0])
    problems = {
        "empty.wav": "an empty file",
        "cut.wav": "cut short",
        "words.wav": "not audio that can be read",
        "nan.wav": "sample 77 is NaN or infinite",
        "none.wav": "holds no samples",
        "missing.wav": "no such file",
    }
    for name, problem in problems.items():
        error = cli("apply", "heard", name, code=1).error
        assert error.startswith(name)
        assert problem in error
    done = cli("apply", "heard", "empty.wav", "good.wav", "nan.wav", "--json", code=1)
    assert [labels(found) for found in events(done)] == [["high"]]
    assert len(done.errors) == 2
    assert [row["input"] for row in json.loads(done.stdout)["failed"]] == ["empty.wav", "nan.wav"]


def pcm(*words: str, length_ms: int) -> bytes:
    return np.rint(tones(*words, length_ms=length_ms) * 32_767).astype("<i2").tobytes()


def test_words_are_told_while_sound_is_piped_in(
    runs: Path, environment: dict[str, str], forked: Path, cli: Cli
) -> None:
    data = pcm("low", "high", length_ms=5000)
    command = [str(forked), "apply", "heard", "-", "--threads", "1"]
    process = subprocess.Popen(
        command,
        cwd=runs,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for begin in range(0, 2 * RATE * 5 // 2, 999):  # two and a half seconds; half samples wait
        process.stdin.write(data[:40_000][begin : begin + 999])
        process.stdin.flush()
    first = process.stdout.readline().decode().split("\t")  # the pipe is open still
    assert process.poll() is None
    rest, errors = process.communicate(data[40_000:])
    assert process.returncode == 0, errors
    (second,) = rest.decode().splitlines()
    write(runs / "same.wav", np.frombuffer(data, "<i2"))
    (wanted,) = events(cli("apply", "heard", "same.wav", "--json"))
    assert labels(wanted) == ["low", "high"]
    for line, event in zip([first, second.split("\t")], wanted, strict=True):
        assert [float(line[0]), float(line[1]), line[2]] == [
            event["start_ms"],
            event["end_ms"],
            event["label"],
        ]
        assert float(line[3]) == pytest.approx(event["score"], abs=1e-3)


def test_what_is_piped_in(cli: Cli, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pcm("low", "high", length_ms=5000)

    def piped(data: bytes, *words: str, code: int = 0) -> Any:
        monkeypatch.setattr("sys.stdin", Stdin(data))
        return cli("apply", "heard", "-", *words, code=code)

    report = json.loads(piped(data, "--json").stdout)
    assert [event["label"] for file in report["files"] for event in file["events"]] == ["low", "high"]
    assert {file["input"] for file in report["files"]} == {"-"}
    shown = piped(data, "--set", "stream=true").stdout
    assert [line.split("\t")[2] for line in shown.splitlines()] == ["low", "high"]
    piped(data, "-o", "out.tsv")
    assert [row["label"] for row in csv.DictReader((runs / "out.tsv").open(), delimiter="\t")] == [
        "low",
        "high",
    ]
    assert piped(pcm(length_ms=2000)).stdout == ""
    assert piped(b"", code=1).error == "-: nothing was piped in"
    odd = piped(data + b"\0", code=1)
    assert odd.error == "-: 80,001 bytes were piped in, an odd number: 16-bit PCM has two for each sample"
    assert len(odd.stdout.splitlines()) == 2  # what was heard before is told
    wav = write(runs / "a.wav", tones("low")).read_bytes()
    assert "raw 16-bit PCM is read: name the file instead" in piped(wav, code=1).error


def test_a_mixed_recording_is_measured(cli: Cli, runs: Path) -> None:
    cli("data", "mix", f"speech_commands:root=set,words=[low,high],{DATA}", "-o", "x.wav", "--minutes", "0.5")
    stream = f"keyword_stream:audio={runs / 'x.wav'}"  # a relative one stands below --data-root
    said = [line.split(",")[0] for line in (runs / "x.txt").read_text().splitlines()]
    for name in MODELS:
        report = json.loads(cli("eval", name, "--data", stream, "--json").stdout)
        figures = report["metrics"]
        assert figures["words"] == sum(word in ("low", "high") for word in said)
        assert figures["hit_rate"] > 0.5
        assert figures["hit_rate"] + figures["miss_rate"] == pytest.approx(1)
        assert figures["hours"] == pytest.approx(1 / 120)
        assert figures["threshold"] == 0.7
        assert 0 < figures["delay_ms"] <= 1500
        assert len(report["details"]["sweep"]) == 49
    swept = {row["threshold"]: row for row in report["details"]["sweep"]}
    assert swept[0.7]["hits"] == figures["hits"]
    chosen = json.loads(
        cli(
            *("eval", name, "--data", f"{stream},piece_ms=7499", "--json"),
            *("--set", "max_false_accepts=1000", "--pictures", "seen"),
        ).stdout
    )
    assert chosen["measures"]["max_false_accepts"] == 1000
    assert chosen["details"]["sweep"] == report["details"]["sweep"]
    fitting = [row for row in swept.values() if row["false_accepts_per_hour"] <= 1000]
    best = min(fitting, key=lambda row: (row["miss_rate"], row["false_accepts_per_hour"]))
    assert chosen["metrics"]["threshold"] == best["threshold"]
    assert Pillow.open("seen/det.png").size == (720, 540)
    assert len(list((runs / "seen").iterdir())) == 6  # and the spectrum of each piece; the last has 4 ms
    wrong = cli(*("eval", name, "--data", stream, "--set", "thresholds={hi: 0.5}"), code=2).error
    assert "thresholds: 'hi' is no class" in wrong
    never = cli(*("eval", name, "--data", stream, "--set", "average_ms=0"), code=2).error
    assert "average_ms=0, minimum_count=3: nothing would ever be found" in never


def test_labels_that_do_not_fit_the_recording(cli: Cli, runs: Path) -> None:
    write(runs / "x.wav", tones("low", length_ms=3000))
    (runs / "x.txt").write_text("low, 300\nlow, 3100\ntalo, 3200\n")
    data = ("--data", f"keyword_stream:audio={runs / 'x.wav'}")
    assert cli("eval", "heard", *data, code=1).errors == [
        f"{runs}/x.txt, line 2: 3,100 ms is not within the recording of 3,000 ms",
        f"{runs}/x.txt, line 3: 3,200 ms is not within the recording of 3,000 ms",
    ]
    (runs / "x.txt").write_text("low, 300\ntalo, 1100\nhi, 1200\ntalo, 2200\n")
    assert cli("eval", "heard", *data, code=1).error == (
        f"{runs}/x.txt: the network does not know 'talo' (2x), 'hi' (1x) (it knows _silence_, _unknown_, "
        "low, high)"
    )
    cli("data", "mix", "speech_sample:test_count=24", "-o", "x.wav", "--minutes", "0.1", "--force")
    assert all("the network does not know" in error for error in cli("eval", "heard", *data, code=1).errors)
    (runs / "x.txt").unlink()
    assert "x.txt: cannot be read" in cli("eval", "heard", *data, code=1).error


def test_a_step_of_a_stream_is_counted(cli: Cli, runs: Path) -> None:
    shown = cli("count-params", "heard", "--depth", "1").stdout
    assert "streamed step: " in shown
    assert "state 3,104 numbers" in shown  # 2,944 of the layers, and 20 ms of sound
    step = json.loads(cli("count-params", "heard", "--json").stdout)["sides"][0]["streamed_step"]
    assert step["state"] == 3_104
    assert step["per_second"] == 50
    assert step["macs"] > 32_000
    assert "streamed step" not in cli("count-params", "whole").stdout
    whole = json.loads(cli("count-params", "whole", "--json").stdout)["sides"][0]
    assert whole["streamed_step"] is None
    both_ways = "layer:torch_lstm:input_size=4,hidden_size=4,bidirectional=true"
    assert "streamed step" not in cli("count-params", both_ways).stdout


OWN = """
import torch

class Own(torch.nn.Linear):
    def step(self): ...
    def init_state(self): ...
    def example(self, batch=1, size=None):
        return (torch.zeros(batch, 3),)

def own():
    return Own(3, 3)
"""


def test_a_step_of_another_kind_does_not_stop_the_count(cli: Cli, place: Path) -> None:
    (place / "own.py").write_text(OWN)
    done = cli("count-params", "py:own.py:own")
    assert "streamed step: not counted: Own.init_state(1): " in done.stderr
    assert "streamed step" not in done.stdout


def test_a_stream_is_timed_beside_its_windows(cli: Cli, place: Path) -> None:
    done = cli(
        *("bench", "model:kws_svdf:size=30k", "--mode", "stream-step", "--backend", "eager,window", "--json"),
        *("--rounds", "2", "--processes", "1", "--threads", "1", "--device", "cpu", "--no-memory"),
    )
    rows = json.loads(done.stdout)["rows"]
    assert [(row["mode"], row["backend"]) for row in rows] == [
        ("stream-step", "eager"),
        ("stream-step", "window"),
    ]


def test_the_smoke_recipes_are_there() -> None:
    for name in ("speech_sample", "speech_svdf", "speech_svdf_stacked", "speech_dscnn", "speech_bcresnet"):
        loaded = recipe.Recipe.load(subject.recipe_path(name), smoke=True)
        assert loaded.data.name == "speech_sample"
