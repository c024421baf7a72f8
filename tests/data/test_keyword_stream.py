from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from compressnet.data import audio
from compressnet.data.keyword_stream import (
    KeywordStream,
    KeywordStreamSplit,
    Onset,
    mix,
    read_labels,
    written,
)
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.speech_sample import SpeechSample
from compressnet.errors import CompressnetError, CompressnetNote, UsageError
from compressnet.reporter import Silent

RATE = 16_000
SOUND = np.random.default_rng(0).integers(-9000, 9000, 5 * RATE // 2).astype(np.int16)  # 2.5 s
LABELS = "yes, 100\nno, 999.5\n\nyes\t1000\n_unknown_, 2499\n"
ONSETS = [Onset("yes", 100), Onset("no", 999.5), Onset("yes", 1000), Onset("_unknown_", 2499)]


@pytest.fixture
def recording(home: Path) -> Path:
    """x.wav and x.txt."""
    path = home / "x.wav"
    soundfile.write(path, SOUND, RATE)
    path.with_suffix(".txt").write_text(LABELS)
    return path


def open_(**settings: object) -> KeywordStreamSplit:
    return KeywordStream(**{"audio": "x.wav", "piece_ms": 1000, **settings}).open("test", {}, 0)  # type: ignore[arg-type]


def test_the_pieces_are_the_recording_in_order(recording: Path) -> None:
    data = open_()
    data.prepare([], 1, Silent())
    assert data.continuous
    data = ForkingPickler.loads(ForkingPickler.dumps(data))  # as worker processes get it
    batches = [data.collate([data[Key(0, index, index)]]) for index in range(len(data))]
    assert [batch.audio.shape for batch in batches] == [(1, RATE), (1, RATE), (1, RATE // 2)]
    assert [batch.start for batch in batches] == [0, RATE, 2 * RATE]
    whole = np.concatenate([batch.audio[0].numpy() for batch in batches])
    np.testing.assert_array_equal(audio.to_int16(whole), SOUND)
    assert [batch.onsets for batch in batches] == [ONSETS[:2], ONSETS[2:3], ONSETS[3:]]
    assert batches[1].name == "x.wav from 1 s"
    facts = data.facts()
    assert (facts["count"], facts["seconds"]) == (3, 2.5)
    recording.with_suffix(".txt").write_text("")
    assert open_().facts()["fingerprint"] != facts["fingerprint"]
    assert open_().onsets == []


def test_the_rate_is_that_of_the_network(recording: Path) -> None:
    with pytest.warns(CompressnetNote, match=r"x\.wav: 16,000 Hz: resampled to 8,000"):
        data = KeywordStream("x.wav").open("test", {"sample_rate": 8_000, "classes": ["yes", "no"]}, 0)
    piece = data[Key(0, 0, 0)]
    assert piece.samples.shape == (20_000,)
    assert piece.onsets == ONSETS


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("yes 1100", "'yes 1100' is not `word, onset in ms`"),
        ("yes, soon", "'yes, soon' is not `word, onset in ms`"),
        (", 1100", "is not `word, onset in ms`"),
        ("yes, nan", "is not `word, onset in ms`"),
        ("yes, 2500", "2,500 ms is not within the recording of 2,500 ms"),
        ("yes, -1", "-1 ms is not within the recording"),
        ("yes, 900", r"900 ms is before the line above \(1,000 ms\): sort the lines"),
    ],
)
def test_labels_that_do_not_fit(recording: Path, line: str, problem: str) -> None:
    labels = recording.with_suffix(".txt")
    labels.write_text(f"yes, 1000\n{line}\nno, 1200\n")
    with pytest.raises(CompressnetError, match=f"x\\.txt, line 2: .*{problem}") as error:
        KeywordStream("x.wav").open("test", {"classes": ["yes", "no"], "sample_rate": RATE}, 0)
    assert len(error.value.problems) == 1
    labels.write_text("no\n" * 40)
    with pytest.raises(CompressnetError) as error:
        open_()
    assert len(error.value.problems) == 16
    assert error.value.problems[-1].endswith("and 25 more lines")


def test_missing_files(recording: Path) -> None:
    with pytest.raises(NoSuchSplit, match="only test data"):
        KeywordStream("x.wav").open("train", {}, 0)
    with pytest.raises(CompressnetError, match=r"data\.audio 'y\.wav': .* is not there .*data mix"):
        open_(audio="y.wav")
    with pytest.raises(CompressnetError, match=r"y\.txt: cannot be read: No such file .*data\.labels"):
        open_(labels="y.txt")
    assert KeywordStream("x.wav").check() == []
    recording.write_bytes(recording.read_bytes()[:-1000])
    assert "cut short" in KeywordStream("x.wav").check()[0]
    recording.write_bytes(b"")
    with pytest.raises(CompressnetError, match=r"x\.wav: an empty file"):
        open_()


@given(
    st.lists(
        st.tuples(st.sampled_from(["yes", "hey you", "_unknown_", "a,b"]), st.integers(0, 59_999_999)),
        max_size=20,
    )
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[str, int]]
) -> None:
    onsets = sorted((Onset(word, place / 1000) for word, place in words), key=lambda onset: onset.onset_ms)
    path = tmp_path_factory.mktemp("labels") / "x.txt"
    path.write_text(written(onsets))
    assert read_labels(path, 60_000) == onsets


def test_mixed_recordings() -> None:
    split = SpeechSample(test_count=48).open("test", {}, 0)
    mixed = mix(split, 0.5, seed=3)
    assert mixed.samples.dtype == np.float32
    assert len(mixed.samples) == 30 * RATE
    assert np.abs(mixed.samples).max() <= 1
    assert len(mixed.onsets) == 10
    assert {onset.word for onset in mixed.onsets} <= {*split.classes[1:]}
    for number, onset in enumerate(mixed.onsets):  # a clip and a gap each three seconds
        assert 3000 * number <= onset.onset_ms < 3000 * number + 2000
    again, other = mix(split, 0.5, seed=3), mix(split, 0.5, seed=4)
    np.testing.assert_array_equal(mixed.samples, again.samples)
    assert mixed.onsets == again.onsets != other.onsets
    assert "_unknown_" not in {onset.word for onset in mix(split, 1, unknown_percent=0).onsets}
    assert {onset.word for onset in mix(split, 0.5, unknown_percent=100).onsets} == {"_unknown_"}
    with pytest.raises(UsageError, match=r"--minutes 0\.03: shorter than one clip with its gap \(3 s\)"):
        mix(split, 0.03)


def test_a_mixed_word_is_its_clip_and_noise_does_not_stop() -> None:
    split = SpeechSample(test_count=48).open("test", {}, 0)
    bare = mix(split, 0.5, noise_volume=0)
    clips = {split.clip(index)[500:-500].tobytes() for index in range(len(split))}
    for onset in bare.onsets:
        begin = round(onset.onset_ms * RATE / 1000)
        assert bare.samples[begin + 500 : begin + RATE - 500].tobytes() in clips
    first = round(bare.onsets[0].onset_ms * RATE / 1000)
    assert not bare.samples[:first].any()
    noisy = mix(split, 0.5, noise_volume=1).samples - bare.samples
    loudness = np.abs(noisy.reshape(-1, RATE // 4)).mean(1)
    assert loudness.min() > 0
    assert loudness.max() > 3 * loudness.min()
