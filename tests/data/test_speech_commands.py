from __future__ import annotations

import shutil
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from compressnet.data import audio, speech_check, speech_commands
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.speech_commands import CORE_WORDS, SpeechCommands, SpeechCommandsSplit, moved
from compressnet.data.speech_tree import which_set
from compressnet.errors import BadFiles, CompressnetError, CompressnetNote, UsageError
from compressnet.reporter import Level, Silent

RATE = 2_000
WORDS = ("yes", "no", "cat", "dog")
SPEAKERS = [f"{number:08x}" for number in range(40)]


class Told(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, level: Level, text: str) -> None:
        self.notes.append(text)


def sound(name: str, length: int = RATE) -> np.ndarray:
    """int16 noise, a different one for every name."""
    random = np.random.default_rng(sum(name.encode()) + len(name))
    return random.integers(-8000, 8000, length).astype(np.int16)


def write(path: Path, samples: np.ndarray | None = None, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(path.as_posix()) if samples is None else samples, rate)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four words of forty speakers, one clip each, and noise."""
    root = tmp_path_factory.mktemp("speech") / "set"
    for word in WORDS:
        for speaker in SPEAKERS:
            write(root / word / f"{speaker}_nohash_0.wav")
    for number, name in enumerate(("hum", "rain")):
        write(root / "_background_noise_" / f"{name}.wav", sound(name, RATE * (2 + number)))
    return root


@pytest.fixture
def tree(home: Path, written: Path) -> Path:
    """A copy to work on."""
    return Path(shutil.copytree(written, home / "set"))


def open_(part: str = "train", seed: int = 0, assets: Any = None, **settings: Any) -> SpeechCommandsSplit:
    settings = {"root": "set", "words": ["yes", "no"], "sample_rate": RATE, **settings}
    return SpeechCommands(**settings).open(part, assets or {}, seed)


def names(split: SpeechCommandsSplit) -> list[str]:
    return [split.name(index) for index in range(len(split))]


def samples(split: SpeechCommandsSplit, epoch: int = 0) -> list[np.ndarray]:
    return [split[Key(epoch, index, index)].samples.numpy() for index in range(len(split))]


def test_the_task_of_tensorflow(tree: Path) -> None:
    splits = {name: open_(name) for name in ("train", "val", "test")}
    files = {path.name for path in (tree / "yes").iterdir()}
    for name, split in splits.items():
        assert split.classes == ["_silence_", "_unknown_", "yes", "no"]
        count = sum(which_set(file, 10, 10) == name for file in files)
        assert count > 0
        special = -(-2 * count // 10)  # ten per cent, rounded up
        labels = Counter(split.label(index) for index in range(len(split)))
        assert labels == {0: special, 1: special, 2: count, 3: count}
        unknown = [split.name(index) for index in range(len(split)) if split.label(index) == 1]
        assert {clip.split("/")[0] for clip in unknown} <= {"cat", "dog"}
    drawn = [name for split in splits.values() for name in names(split) if "_silence_" not in name]
    assert len(drawn) == len(set(drawn))
    with pytest.raises(NoSuchSplit):
        open_("testing")


def test_which_set_is_that_of_tensorflow() -> None:
    """All clips of a speaker are in one split; what is behind `_nohash_` does not count."""
    for number in range(50):
        assert len({which_set(f"{number:08x}_nohash_{end}", 20, 30) for end in ("0.wav", "1.flac")}) == 1
    counts = Counter(which_set(f"{number:08x}_nohash_0.wav", 20, 30) for number in range(2_000))
    assert counts["val"] / 2_000 == pytest.approx(0.2, abs=0.03)
    assert counts["test"] / 2_000 == pytest.approx(0.3, abs=0.03)


def test_the_order_and_the_choice_follow_names_alone(tree: Path) -> None:
    before = names(open_(seed=0))
    assert names(open_(seed=1)) == before
    assert before != sorted(before)
    write(tree / "zebra" / f"{SPEAKERS[0]}_nohash_0.wav")
    kept = [name for name in names(open_()) if not name.startswith("zebra")]
    assert len(set(before) - set(kept)) <= 1  # the new word may take the place of one


def test_lists(tree: Path) -> None:
    held = [f"yes/{speaker}_nohash_0.wav" for speaker in SPEAKERS[:3]]
    tested = [f"no/{speaker}_nohash_0.flac" for speaker in SPEAKERS[3:8]]  # .wav here: stems count
    (tree / "validation_list.txt").write_text("\n".join(held) + "\n\n")
    (tree / "testing_list.txt").write_text("\r\n".join(tested))
    plain: dict[str, Any] = {"unknown_percent": 0.0, "silence_percent": 0.0}
    assert sorted(names(open_("val", **plain))) == held
    assert sorted(names(open_("test", **plain))) == [name.replace(".flac", ".wav") for name in tested]
    assert len(open_("train", **plain)) == 80 - 8
    assert len(open_("val", split="hash", **plain)) > 3
    assert open_("val", **plain).classes == ["yes", "no"]


def test_lists_with_faults(tree: Path) -> None:
    name = f"yes/{SPEAKERS[0]}_nohash_0.wav"
    (tree / "validation_list.txt").write_text(f"{name}\nyes/gone.wav\n")
    with pytest.raises(CompressnetError, match=r"testing_list\.txt: cannot be read.*both lists are needed"):
        open_()
    many = "".join(f"no/gone_{number}.wav\n" for number in range(30))
    (tree / "testing_list.txt").write_text(f"{name}\n{many}")
    with pytest.raises(BadFiles) as error:
        open_()
    first, second, *missing, last = error.value.problems
    assert first.endswith("validation_list.txt, line 2: there is no yes/gone.wav")
    assert second.endswith(f"testing_list.txt, line 1: {name} is in validation_list.txt too")
    assert len(missing) == 20
    assert last.endswith("and 10 more that are missing")
    assert SpeechCommands("set", words=["yes"], sample_rate=RATE).check()[
        : len(error.value.problems)
    ] == list(error.value.problems)


def test_folders(tree: Path) -> None:
    for split, speakers in (("training", SPEAKERS[:6]), ("testing", SPEAKERS[6:8])):
        for word in WORDS:
            for speaker in speakers:
                write(tree / split / word / f"{speaker}_nohash_0.wav")
    assert len(open_(unknown_percent=0.0, silence_percent=0.0)) == 12
    assert len(open_("test")) == 2 * 2 + 1 + 1
    with pytest.raises(NoSuchSplit, match="has no folder 'val'"):
        open_("val")
    for number in range(3):  # as in TensorFlow's ready sets for tests
        write(tree / "testing" / "_silence_" / f"{number}.wav")
        write(tree / "testing" / "_unknown_" / f"bed_{number}_nohash_0.wav.wav")
    ready = open_("test")
    assert Counter(ready.label(index) for index in range(len(ready))) == {0: 3, 1: 3, 2: 2, 3: 2}
    silence = next(index for index in range(len(ready)) if ready.label(index) == 0)
    np.testing.assert_array_equal(ready[Key(0, silence, 0)].samples, ready.clip(silence))
    assert ready.clip(silence).any()


def test_all_words(tree: Path) -> None:
    split = open_(words="all")
    assert split.classes == sorted(WORDS)
    assert len(open_(words="all", silence_percent=10.0)) > len(split)
    with pytest.raises(UsageError, match="with data.words=all no word is unknown"):
        open_(words="all", unknown_percent=10.0)


def test_evaluation_is_the_same_every_time_and_silence_has_noise(tree: Path) -> None:
    one, other = open_("val", seed=0), open_("val", seed=5)
    for index, (a, b) in enumerate(zip(samples(one), samples(other, epoch=3), strict=True)):
        np.testing.assert_array_equal(a, b)
        if one.label(index) == 0:
            assert a.any()
            assert not one.clip(index).any()
        else:
            np.testing.assert_array_equal(a, one.clip(index))
            path = tree / one.name(index)
            np.testing.assert_array_equal(a * 32768, soundfile.read(path, dtype="int16")[0])


def test_training_is_a_function_of_seed_and_key(tree: Path) -> None:
    data = open_()
    again = ForkingPickler.loads(ForkingPickler.dumps(data))  # as worker processes get it
    place = next(index for index in range(len(data)) if data.label(index) == 2)
    key = Key(3, place, 999)
    assert torch.equal(data[key].samples, again[key].samples)
    assert len(ForkingPickler.dumps(data)) < 50_000  # without the clips
    drawn = [data[key], data[Key(3, place, 7)], data[Key(4, place, 999)], open_(seed=1)[key]]
    assert not any(torch.equal(a.samples, b.samples) for n, a in enumerate(drawn) for b in drawn[:n])
    assert all(sample.samples.abs().max() <= 1 for sample in drawn)


def test_clips_are_moved_and_noise_is_added(tree: Path) -> None:
    still = open_(background_percent=0.0, shift_ms=0, silence_percent=0.0)
    for index, given in enumerate(samples(still)):
        np.testing.assert_array_equal(given, still.clip(index))
    shifting = open_(background_percent=0.0, shift_ms=10, silence_percent=0.0)
    most = 10 * RATE // 1000
    found = set()
    for index in range(len(shifting)):
        given = shifting[Key(0, index, index)].samples.numpy()
        places = [by for by in range(-most, most) if np.array_equal(given, moved(shifting.clip(index), by))]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > most  # -20 to 19 in 80 clips
    noisy = open_(background_percent=100.0, background_volume=0.5, shift_ms=0, silence_percent=0.0)
    for index, given in enumerate(samples(noisy)):
        added = given - noisy.clip(index)
        assert added.any()
        assert np.abs(added).max() <= 0.5 * 8000 / 32768
    half = open_(background_percent=50.0, shift_ms=0, silence_percent=0.0)
    touched = [not np.array_equal(given, half.clip(index)) for index, given in enumerate(samples(half))]
    assert 0.25 < np.mean(touched) < 0.75


@pytest.mark.parametrize("by", [-3, -1, 0, 2, 4, 5, -9])
def test_moved(by: int) -> None:
    clip = np.arange(1, 5, dtype=np.float32)
    wanted = [clip[place - by] if 0 <= place - by < 4 else 0 for place in range(4)]
    assert moved(clip, by).tolist() == wanted


def test_other_lengths_and_rates(tree: Path) -> None:
    """Stereo at another rate, a clip longer than `clip_ms`, a short one: they work, and are told of."""
    folder = tree / "yes"
    for path in folder.iterdir():
        path.unlink()
    long = sound("long", 2 * RATE)
    files = [f"{number:08x}_nohash_0.wav" for number in range(100, 160)]
    long_name, short_name, other = [name for name in files if which_set(name, 10, 10) == "train"][:3]
    write(folder / long_name, long)
    write(folder / short_name, long[:700])
    write(folder / other, np.stack([sound("a", 4 * RATE), sound("b", 4 * RATE)], 1), 4 * RATE)
    data, told = open_(), Told()
    data.prepare([], 1, told)
    assert [note.partition(" (")[0] for note in told.notes] == ["1 clip", "1 clip"]
    assert told.notes[0].endswith(f"(yes/{other}) not of 2,000 Hz: resampled")
    assert told.notes[1].endswith(f"(yes/{long_name}) longer than data.clip_ms=1000: cut")
    clips = {data.name(index).split("/")[1]: data.clip(index) for index in range(len(data))}
    np.testing.assert_array_equal(clips[long_name] * 32768, long[:RATE])
    np.testing.assert_array_equal(clips[short_name] * 32768, np.pad(long[:700], (0, RATE - 700)))
    assert clips[other].shape == (RATE,)
    again = Told()
    open_().prepare([], 1, again)
    assert again.notes == told.notes  # from the cache too
    with pytest.warns(CompressnetNote) as warned:  # as `eval` does, which prepares nothing
        samples(open_())
    assert [str(warning.message) for warning in warned] == told.notes


def test_decoding_is_done_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = samples(open_("val"))
    calls = []
    read = speech_commands.audio.read_audio

    def counted(path: Path) -> audio.Audio:
        calls.append(path)
        return read(path)

    monkeypatch.setattr(speech_commands.audio, "read_audio", counted)
    for given, before in zip(samples(open_("val")), wanted, strict=True):
        np.testing.assert_array_equal(given, before)
    assert not calls
    write(tree / "yes" / next(name for name in names(open_("val")) if "yes" in name)[4:], sound("new"))
    assert any((a != b).any() for a, b in zip(samples(open_("val")), wanted, strict=True))
    assert calls


def test_bad_files_are_all_named(tree: Path) -> None:
    train = [name for name in names(open_()) if name.startswith(("yes", "no"))]
    (tree / train[0]).write_bytes(b"")
    whole = (tree / train[1]).read_bytes()
    (tree / train[1]).write_bytes(whole[:1000])
    (tree / train[2]).write_text("not audio")
    for name in train[3:5]:  # links to nowhere, and to themselves
        (tree / name).unlink()
        (tree / name).symlink_to(tree / name if name == train[4] else tree / "nowhere")
    (tree / "loop").symlink_to(tree / "loop")  # no word
    (tree / "_background_noise_" / "hum.wav").write_bytes(b"")
    write(tree / "_background_noise_" / "rain.wav", sound("a", RATE - 1))
    with pytest.raises(BadFiles) as error:
        open_().prepare([], 1, Silent())
    problems = "\n".join(error.value.problems)
    assert len(error.value.problems) == 7
    assert open_().facts()["count"] == len(open_())
    assert f"{train[0]}: an empty file" in problems
    assert f"{train[1]}: cut short: 956 of 4,000 bytes" in problems
    assert f"{train[2]}: not audio that can be read" in problems
    assert f"{train[3]}: cannot be read: No such file" in problems
    assert f"{train[4]}: cannot be read: Too many levels" in problems
    assert "hum.wav: an empty file" in problems
    assert "rain.wav: 999 ms of noise, shorter than a clip of 1,000 ms" in problems
    with pytest.raises(BadFiles) as error:
        list(open_().clean(1000))
    assert len(error.value.problems) == 5
    found = SpeechCommands("set", words=["yes", "no"], sample_rate=RATE).check()
    assert len(found) == 6


def test_two_clips_of_one_name(tree: Path) -> None:
    name = next(name for name in names(open_()) if name.startswith("yes"))
    write((tree / name).with_suffix(".flac"), sound("b"))
    for part in ("testing", "validation"):
        (tree / f"{part}_list.txt").write_text(f"{name}\n" if part == "testing" else "")
    with pytest.raises(BadFiles, match="a second clip of its name, beside"):
        open_()


def test_a_folder_that_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("compressnet.data.speech_tree.os.scandir", refuse)
    with pytest.raises(CompressnetError, match="set: cannot be read: Permission denied"):
        open_()


def test_clips_are_not_moved_out_of_sight() -> None:
    with pytest.raises(UsageError, match="shift_ms=1000: clips of 1000 ms"):
        SpeechCommands("set", shift_ms=1000)


def test_missing_data(tree: Path) -> None:
    for settings, words in (
        ({"root": "nowhere"}, r"data\.root 'nowhere': .* is not there .*speech_commands_v0\.02\.tar\.gz"),
        ({"root": "set/yes"}, r"data\.root 'set/yes': .* holds no folders of clips"),
        ({"words": ["yes", "caat"]}, r"data\.words: 'caat': .* has no clips .* did you mean 'cat'"),
        ({"split": "lists"}, r"testing_list|validation_list"),
        ({"split": "folders"}, r"holds no folder train, val or test"),
        ({"words": list(WORDS)}, r"no other words, of which `_unknown_` is made.*unknown_percent=0"),
        ({"assets": {"classes": ["yes"]}}, r"classes _silence_, _unknown_, yes, no; the network knows yes"),
        ({"assets": {"sample_rate": 8_000, "classes": ["_silence_", "_unknown_", "yes", "no"]}}, "=8000"),
    ):
        with pytest.raises(CompressnetError, match=words) as error:
            open_(**settings)
        assert len(error.value.problems) == 1
    for path in (tree / "no").iterdir():
        if which_set(path.name, 10, 10) == "train":
            path.unlink()
    with pytest.raises(CompressnetError, match=r"data\.words: 'no': none of its clips in .* is for training"):
        open_()
    assert len(open_("val"))
    for twice, message in (
        (["yes", "no", "yes"], "'yes' is there twice"),
        (["yes", "_silence_"], "'_silence_' is no word"),
        ([], "an empty list"),
    ):
        with pytest.raises(UsageError, match=message):
            SpeechCommands(words=twice)


def test_noise_is_asked_for_only_where_it_is_needed(tree: Path) -> None:
    for path in (tree / "_background_noise_").iterdir():
        path.unlink()
    without: dict[str, Any] = {"silence_percent": 0.0, "background_percent": 0.0}
    for settings in list[dict[str, Any]]([{"silence_percent": 0.0}, {"background_percent": 0.0}]):
        with pytest.raises(CompressnetError, match=r"_background_noise_: no recordings of noise"):
            open_(**settings)
    open_(**without).prepare([], 1, Silent())
    open_("val", silence_percent=0.0).prepare([], 1, Silent())
    with pytest.raises(CompressnetError, match="there are no recordings of noise"):
        open_(**without).noises()
    assert "no recordings of noise" in SpeechCommands("set", words=["yes"], sample_rate=RATE).check()[0]


def test_check_tells_what_is_odd(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_check, "_FEW", 41)
    write(tree / "cat" / "a.wav", sound("a", 900))
    write(tree / "cat" / "b.wav", sound("b", RATE + 1))
    write(tree / "cat" / "c.wav", np.zeros(RATE, np.int16))
    write(tree / "cat" / "d.wav", np.clip(sound("d") * np.int32(20), -32768, 32767).astype(np.int16))
    write(tree / "dog" / "e.wav", sound("e"), RATE * 3 // 2)
    told = Told()
    assert SpeechCommands("set", words=["yes", "no", "cat"], sample_rate=RATE).check(reporter=told) == []
    assert told.notes == [
        "2 words (yes, no) with fewer than 41 clips",
        "1 clip (dog/e.wav) not of 2,000 Hz: resampled",
        "1 clip (cat/b.wav) longer than data.clip_ms=1000: cut",
        "1 clip (cat/a.wav) shorter than half of data.clip_ms=1000: filled up with zeros",
        "1 clip (cat/d.wav) clipped: recorded too loud",
        "1 clip (cat/c.wav) without a sound",
    ]
    quick = Told()
    assert SpeechCommands("set", words=["cat"], sample_rate=RATE).check(headers=True, reporter=quick) == []
    assert len(quick.notes) == 3


def test_check_finds_speakers_in_two_splits(tree: Path) -> None:
    (tree / "validation_list.txt").write_text(f"yes/{SPEAKERS[0]}_nohash_0.wav\n")
    (tree / "testing_list.txt").write_text(f"no/{SPEAKERS[1]}_nohash_0.wav\n")
    problems = SpeechCommands("set", words=["yes"], sample_rate=RATE).check()
    assert len(problems) == 2
    assert problems[0].startswith(f"1 speaker ({SPEAKERS[0]}) in both train and val")
    assert problems[1].startswith(f"1 speaker ({SPEAKERS[1]}) in both train and test")


def test_clean_clips_and_streams(tree: Path) -> None:
    data = open_()
    clips = list(data.clean(10))
    assert len(clips) == 10
    originals = {data.clip(index).tobytes() for index in range(len(data)) if data.label(index)}
    assert {clip.numpy().tobytes() for clip in clips} <= originals
    assert len(list(data.clean(10_000))) == sum(data.label(index) > 0 for index in range(len(data)))
    assert [open_(split, carry=True).continuous for split in ("train", "val", "test")] == [False, True, True]
    assert not open_("val").continuous
    facts = data.facts()
    assert facts["count"] == len(data)
    assert facts == open_(seed=3).facts()
    assert facts != open_(words=["yes", "cat"]).facts()


@pytest.mark.skipif(not Path("../shared/data/speech_commands").is_dir(), reason="the clips are not here")
def test_the_real_clips(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSNET_DATA", str(Path("../shared/data").resolve()))
    splits = [SpeechCommands().open(split, {}, 0) for split in ("train", "val", "test")]
    assert [len(split) for split in splits] == [3_732, 442, 408]
    assert splits[0].classes == ["_silence_", "_unknown_", *CORE_WORDS]
    assert len(SpeechCommands(words="all").open("train", {}, 0)) == 4_141
    clips = list(splits[0].clean(8))
    assert all(clip.shape == (16_000,) and clip.abs().max() > 0.01 for clip in clips)
    # The core words are mostly the official test set's, which TensorFlow's rule has chosen.
    core = [
        path.name for word in CORE_WORDS for path in Path(f"../shared/data/speech_commands/{word}").iterdir()
    ]
    assert sum(which_set(name, 10, 10) == "test" for name in core) == 3_754
