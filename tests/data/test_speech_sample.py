from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from compressnet.data.audio_class import check_format
from compressnet.data.protocol import Key, NoSuchSplit
from compressnet.data.speech_sample import WORDS, SpeechSample, voices
from compressnet.errors import CompressnetError


def test_a_clip_is_a_function_of_seed_split_and_number() -> None:
    one, again, other = (SpeechSample().open("train", {}, seed) for seed in (0, 0, 1))
    key = Key(0, 5, 77)
    again = ForkingPickler.loads(ForkingPickler.dumps(again))  # as worker processes get it
    assert torch.equal(one[key].samples, again[key].samples)
    drawn = [one[key], one[Key(0, 5, 78)], other[key], SpeechSample().open("val", {}, 0)[Key(0, 5, 77)]]
    assert not any(torch.equal(a.samples, b.samples) for n, a in enumerate(drawn) for b in drawn[:n])
    assert {sample.label for sample in drawn} == {5}
    for split in ("val", "test"):  # always the same
        a, b = (SpeechSample().open(split, {}, seed)[Key(epoch, 3, 9)] for seed, epoch in ((0, 0), (1, 4)))
        assert torch.equal(a.samples, b.samples)


def test_every_class_sounds() -> None:
    split = SpeechSample(count=48).open("train", {}, 0)
    assert split.classes == ["_silence_", "_unknown_", *WORDS]
    assert [split.label(index) for index in range(14)] == [*range(12), 0, 1]
    batch = split.collate([split[Key(0, index, index)] for index in range(48)])
    assert batch.audio.shape == (48, 16_000)
    assert batch.audio.dtype == torch.float32
    assert batch.audio.abs().max() <= 1
    assert batch.names[2] == "train/fipo-2"
    peaks = batch.audio.abs().amax(1)
    assert peaks[batch.labels > 0].min() > 0.19
    assert batch.audio[batch.labels == 0].std(1).max() < 0.1


def test_words_can_be_told_apart() -> None:
    """By the nearest mean spectrum of a word, which knows nothing of time, far above chance."""
    split = SpeechSample().open("test", {}, 0)
    words = [index for index in range(480) if split.label(index) > 1]
    spectra = np.stack([np.abs(np.fft.rfft(split.clip(index)))[: 16 * 480] for index in words])
    bands = np.log(spectra.reshape(len(words), 48, -1).mean(2) + 1e-3)
    labels = np.array([split.label(index) for index in words])
    half = len(words) // 2
    centres = np.stack([bands[:half][labels[:half] == label].mean(0) for label in range(2, 12)])
    distances = ((bands[half:, None] - centres) ** 2).mean(2)
    right = (distances.argmin(1) + 2 == labels[half:]).mean()
    assert right > 0.3  # chance is 0.1


def test_voices_of_the_splits_differ() -> None:
    sets = [set(voices(split)) for split in ("train", "val", "test")]
    assert [len(own) for own in sets] == [32, 8, 8]
    assert len(set.union(*sets)) == 48


def test_it_calls_itself_synthetic() -> None:
    facts = SpeechSample(count=24).open("train", {}, 0).facts()
    assert facts["synthetic"] is True
    assert facts["count"] == 24
    assert facts != SpeechSample(count=36).open("train", {}, 0).facts()
    assert SpeechSample().check() == []


def test_clean_clips_are_of_words_from_everywhere() -> None:
    split = SpeechSample(count=120).open("train", {}, 0)
    clips = list(split.clean(20))
    assert len(clips) == 20
    assert all(clip.abs().max() > 0.19 for clip in clips)
    assert len(list(split.clean(1000))) == 110  # those of `_silence_` are not among them
    noises = split.noises()
    assert {noise.dtype for noise in noises} == {np.dtype(np.int16)}


def test_other_networks_are_refused() -> None:
    with pytest.raises(CompressnetError, match=r"classes _silence_, .*; the network knows a, b"):
        SpeechSample().open("test", {"classes": ["a", "b"]}, 0)
    with pytest.raises(CompressnetError, match="data.sample_rate is 16,000; the network was .* 8,000"):
        check_format(16_000, 1000, {"sample_rate": 8_000, "clip_ms": 1000.0})
    with pytest.raises(NoSuchSplit):
        SpeechSample().open("testing", {}, 0)
