from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressnet.errors import UsageError
from compressnet.tasks.keyword_detection import (
    Comparison,
    Detection,
    Detector,
    Smoothed,
    Smoothing,
    Spoken,
    check_thresholds,
    compared,
    detections,
    smoothed,
    sweep,
)

CLASSES = ["_silence_", "_unknown_", "yes", "no"]
SILENCE, UNKNOWN, YES, NO = range(4)
AT_ONCE = Smoothing(average_ms=0, minimum_count=1, suppression_ms=0, threshold=0.5)


def scores(label: int, score: float = 0.9) -> np.ndarray:
    """Probabilities (K,) of which `label` has `score`, and the others the rest."""
    rest = (1 - score) / (len(CLASSES) - 1)
    return np.where(np.arange(len(CLASSES)) == label, score, rest)


def heard(smoothing: Smoothing, *said: tuple[float, int] | tuple[float, int, float]) -> list[Detection]:
    """What a detector finds in (time, class) or (time, class, score) one after the other."""
    detector = Detector(CLASSES, smoothing)
    found = (detector.push(end_ms, scores(label, *score)) for end_ms, label, *score in said)
    return [detection for detection in found if detection is not None]


def test_the_score_is_the_mean_of_the_window() -> None:
    detector = Detector(CLASSES, Smoothing(average_ms=100, minimum_count=2))
    rows = [[0.1, 0.1, 0.8, 0.0], [0.1, 0.3, 0.2, 0.4], [0.0, 0.0, 0.1, 0.9], [0.2, 0.0, 0.0, 0.8]]
    ends = [50, 100, 150, 201]
    found = [detector.smooth(end, np.array(row)) for end, row in zip(ends, rows, strict=True)]
    assert found[0] is None  # one score, of no length
    for entry, mean in zip(
        found[1:],
        [
            (100, YES, 0.5),
            (150, NO, 1.3 / 3),  # 100 ms ago is still heard
            (201, NO, 1.7 / 2),  # 101 and 151 ms ago are not
        ],
        strict=True,
    ):
        assert entry is not None
        assert (entry.end_ms, entry.label) == mean[:2]
        assert entry.score == pytest.approx(mean[2])


@pytest.mark.parametrize(
    ("minimum_count", "first"),
    [
        (1, 125.0),  # a quarter of the window
        (5, 125.0),
        (6, 125.0),
        (7, 150.0),  # seven hops of 25 ms: 0 to 150
        (22, None),  # the window has but 21
    ],
)
def test_nothing_is_found_before_enough_is_heard(minimum_count: int, first: float | None) -> None:
    smoothing = Smoothing(average_ms=500, minimum_count=minimum_count)
    found = heard(smoothing, *((25.0 * hop, YES) for hop in range(100)))
    assert [detection.end_ms for detection in found] == ([] if first is None else [first])


def test_nothing_is_found_in_windows_that_begin_before_the_audio() -> None:
    detector = Detector(CLASSES, Smoothing(average_ms=50, minimum_count=1, threshold=0.5), clip_ms=100)
    assert detector.push(50, scores(YES, 0.8)) is None
    found = detector.push(100, scores(YES, 0.4))
    assert found == (100, YES, pytest.approx(0.6), 50)  # they count in the mean


def test_a_word_is_told_once_and_again_after_silence() -> None:
    said = [(0, YES), (10, YES), (20, YES), (30, SILENCE), (40, YES), (50, UNKNOWN), (60, YES), (70, NO)]
    found = heard(AT_ONCE, *said)
    assert [(detection.end_ms, detection.label) for detection in found] == [
        (0, YES),
        (40, YES),
        (60, YES),
        (70, NO),
    ]
    assert found[0].score == pytest.approx(0.9)


def test_what_comes_too_soon_after_a_word_is_not_told_but_is_found_later() -> None:
    smoothing = Smoothing(average_ms=0, minimum_count=1, suppression_ms=100, threshold=0.5)
    assert heard(smoothing, (0, YES), (100, NO)) == [(0, YES, pytest.approx(0.9), 0)]
    assert [word.end_ms for word in heard(smoothing, (0, YES), (100, NO), (101, NO), (202, YES))] == [
        0,
        101,
        202,
    ]
    # Silence and unknown words are found like any other: the first lets a word follow at once, and has to
    # wait itself; the second makes words wait.
    assert [word.end_ms for word in heard(smoothing, (0, SILENCE), (1, YES))] == [1]
    assert [word.end_ms for word in heard(smoothing, (0, YES), (50, SILENCE), (60, YES))] == [0]
    assert [word.end_ms for word in heard(smoothing, (0, YES), (101, SILENCE), (102, YES))] == [0, 102]
    assert heard(smoothing, (0, UNKNOWN), (100, YES)) == []
    assert [word.end_ms for word in heard(smoothing, (0, UNKNOWN), (101, YES))] == [101]


def test_a_score_has_to_be_above_its_threshold() -> None:
    half = np.array([0.125, 0.125, 0.5, 0.25])
    assert Detector(CLASSES, AT_ONCE).push(0, half) is None
    assert Detector(CLASSES, AT_ONCE).push(0, np.array([0, 0.125, 0.625, 0.25])) == Detection(0, YES, 0.625)
    assert Detector(CLASSES, AT_ONCE, {"yes": 0.4}).push(0, half) == Detection(0, YES, 0.5)
    strict = Detector(CLASSES, AT_ONCE, {"yes": 0.95})
    assert strict.push(0, scores(YES, 0.9)) is None
    assert strict.push(1, scores(NO, 0.9)) == (1, NO, pytest.approx(0.9), 1)
    # A word below its threshold was not found: the word before it is not told again.
    assert strict.push(2, scores(YES, 0.9)) is None
    assert strict.push(3, scores(NO, 0.9)) is None


def test_thresholds_of_words_that_are_not_there() -> None:
    check_thresholds(None, CLASSES)
    check_thresholds({"yes": 0.5, "_silence_": 0.1}, CLASSES)
    with pytest.raises(
        UsageError, match="'yess' is no class: there are _silence_, _unknown_, yes, no"
    ) as error:
        check_thresholds({"no": 0.5, "yess": 0.5}, CLASSES)
    assert len(error.value.problems) == 1


streams = st.lists(
    st.tuples(st.floats(5, 400), st.integers(0, 3), st.floats(0.25, 1)), min_size=1, max_size=60
).map(lambda hops: [(sum(gap for gap, *_ in hops[: n + 1]), *hop[1:]) for n, hop in enumerate(hops)])
smoothings = st.builds(
    Smoothing,
    average_ms=st.sampled_from([0.0, 100.0, 500.0]),
    minimum_count=st.integers(1, 4),
    suppression_ms=st.sampled_from([0.0, 300.0, 1500.0]),
    threshold=st.floats(0, 1),
)


@settings(max_examples=40, deadline=None)
@given(streams, smoothings, st.dictionaries(st.sampled_from(CLASSES), st.floats(0, 1)), st.floats(0, 1000))
def test_what_is_told_at_once_is_what_is_found_afterwards(
    hops: list[tuple[float, int, float]], smoothing: Smoothing, thresholds: dict[str, float], clip_ms: float
) -> None:
    ends, rows = [hop[0] for hop in hops], np.stack([scores(*hop[1:]) for hop in hops])
    detector = Detector(CLASSES, smoothing, thresholds, clip_ms)
    live = [detector.push(end, row) for end, row in zip(ends, rows, strict=True)]
    entries = smoothed(CLASSES, smoothing, ends, rows, clip_ms)
    assert [found for found in live if found] == detections(CLASSES, smoothing, entries, thresholds)


@settings(max_examples=40, deadline=None)
@given(streams, smoothings)
def test_words_are_in_order_above_their_threshold_and_apart(
    hops: list[tuple[float, int, float]], smoothing: Smoothing
) -> None:
    found = heard(smoothing, *hops)
    assert all(detection.label in (YES, NO) for detection in found)
    assert all(detection.score > smoothing.threshold for detection in found)
    ends = [detection.end_ms for detection in found]
    assert ends == sorted(ends)
    # Between two words there may be silence, which may be followed at once but comes late itself.
    assert all(late - early > smoothing.suppression_ms for early, late in pairwise(ends))


@pytest.mark.parametrize(
    ("found", "spoken", "wanted"),
    [
        ([], [], Comparison()),
        ([], [Spoken(0, YES)], Comparison(1)),
        ([Detection(500, YES, 1)], [], Comparison(false_accepts=1)),
        ([Detection(500, YES, 1)], [Spoken(100, YES)], Comparison(1, 1, delays_ms=[400])),
        ([Detection(500, NO, 1)], [Spoken(100, YES)], Comparison(1, wrong=1)),
        # on the edge of the tolerance, and behind it; before the word as well
        ([Detection(1600, YES, 1)], [Spoken(100, YES)], Comparison(1, 1, delays_ms=[1500])),
        ([Detection(1601, YES, 1)], [Spoken(100, YES)], Comparison(1, false_accepts=1)),
        ([Detection(100, YES, 1)], [Spoken(300, YES)], Comparison(1, 1, delays_ms=[-200])),
        # the nearest, whatever it is called
        (
            [Detection(1000, YES, 1)],
            [Spoken(0, YES), Spoken(900, NO)],
            Comparison(2, wrong=1),
        ),
        # taken is taken: the second goes to the next, the third to none
        (
            [Detection(1000, NO, 1), Detection(1100, YES, 1), Detection(1200, YES, 1)],
            [Spoken(0, YES), Spoken(900, NO)],
            Comparison(2, 2, false_accepts=1, delays_ms=[100, 1100]),
        ),
    ],
)
def test_each_detection_belongs_to_the_nearest_free_word(
    found: list[Detection], spoken: list[Spoken], wanted: Comparison
) -> None:
    assert compared(found, spoken, 1500) == wanted


def test_the_miss_rate_counts_words_that_were_taken_for_others() -> None:
    assert Comparison(spoken=4, hits=1, wrong=2).miss_rate == 0.75
    assert Comparison().miss_rate == 0


words = st.lists(st.tuples(st.floats(0, 20_000), st.integers(YES, NO)), max_size=20).map(
    lambda words: [Spoken(*word) for word in sorted(words)]
)


@settings(max_examples=40, deadline=None)
@given(streams, words, st.floats(1, 3000))
def test_every_detection_and_every_word_is_counted_once(
    hops: list[tuple[float, int, float]], spoken: Sequence[Spoken], tolerance_ms: float
) -> None:
    found = heard(AT_ONCE, *hops)
    result = compared(found, spoken, tolerance_ms)
    assert result.hits + result.wrong + result.false_accepts == len(found)
    assert result.hits + result.wrong <= result.spoken == len(spoken)
    assert len(result.delays_ms) == result.hits
    assert all(abs(delay) <= tolerance_ms for delay in result.delays_ms)


@settings(max_examples=40, deadline=None)
@given(streams, words)
def test_a_higher_threshold_finds_no_more_where_nothing_is_suppressed(
    hops: list[tuple[float, int, float]], spoken: Sequence[Spoken]
) -> None:
    """With suppression it may: a word that is no longer found leaves room for the next."""
    entries = [Smoothed(*hop) for hop in hops]
    results = sweep(CLASSES, AT_ONCE, entries, spoken, 1500)
    thresholds, swept = zip(*results, strict=True)
    assert thresholds[0] == 0.02
    assert thresholds[-1] == 0.98
    assert list(thresholds) == sorted(set(thresholds))
    counts = [result.hits + result.wrong + result.false_accepts for result in swept]
    assert counts == sorted(counts, reverse=True)
    for threshold, result in results:
        at = Smoothing(0, 1, 0, threshold)
        assert result == compared(detections(CLASSES, at, entries), spoken, 1500)


def test_a_sweep_goes_from_everything_to_nothing() -> None:
    entries = [Smoothed(0, YES, 0.3), Smoothed(3000, NO, 0.97), Smoothed(6000, YES, 0.6)]
    results = dict(sweep(CLASSES, AT_ONCE, entries, [Spoken(2500, NO), Spoken(5900, NO)], 1500))
    assert results[0.02] == Comparison(2, 1, wrong=1, false_accepts=1, delays_ms=[500])
    assert results[0.3] == Comparison(2, 1, wrong=1, delays_ms=[500])  # 0.3 is not above 0.3
    assert results[0.6] == Comparison(2, 1, delays_ms=[500])
    assert results[0.98] == Comparison(2)


def test_words_with_a_threshold_of_their_own_keep_it_in_a_sweep() -> None:
    entries = [Smoothed(1000.0, CLASSES.index("no"), 0.6)]
    found = dict(sweep(CLASSES, Smoothing(), entries, [], 1500.0, {"no": 0.9}))
    assert {result.false_accepts for result in found.values()} == {0}
    assert {result.false_accepts for _, result in sweep(CLASSES, Smoothing(), entries, [], 1500.0)} == {0, 1}
