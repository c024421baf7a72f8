from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from compressnet.data.audio_class import AudioClassBatch
from compressnet.data.keyword_stream import AudioStreamBatch, Onset
from compressnet.errors import CompressnetError
from compressnet.tasks.keyword_listening import StreamScores
from compressnet.tasks.keyword_metrics import KeywordMetrics, det_curve
from compressnet.tasks.keyword_spotting import Measures

CLASSES = ["_silence_", "_unknown_", "yes", "no"]
RATE, HOP_MS, HOPS = 1000, 50.0, 20  # hops a second
AT_ONCE = {"average_ms": 0.0, "minimum_count": 1, "suppression_ms": 0.0, "threshold": 0.5}
SECONDS = 36  # a hundredth of an hour
ONSETS = [Onset("yes", 1000), Onset("no", 11_500), Onset("_unknown_", 15_000), Onset("no", 20_900)]
# What is heard when, for one hop each: a hit, one too much, another word, one more that is too much.
HEARD = {
    1400: ("yes", 0.9),
    6000: ("no", 0.6),
    12_000: ("yes", 0.7),
    15_400: ("no", 0.8),
    22_000: ("no", 0.95),
}


def metrics(clip_ms: float = 1000.0, **measures: Any) -> KeywordMetrics:
    return KeywordMetrics(CLASSES, Measures(**{**AT_ONCE, **measures}), RATE, clip_ms)


def pieces(seconds: Sequence[int]) -> list[tuple[StreamScores, AudioStreamBatch]]:
    """The stream in pieces of so many seconds."""
    ends = HOP_MS * np.arange(1, SECONDS * HOPS + 1)
    rows = np.tile([0.97, 0.01, 0.01, 0.01], (len(ends), 1))
    for end, (word, score) in HEARD.items():
        rows[int(end / HOP_MS) - 1] = np.where(np.array(CLASSES) == word, score, (1 - score) / 3)
    found, start = [], 0
    for length in seconds:
        of_hops = slice(start * HOPS, (start + length) * HOPS)
        onsets = [onset for onset in ONSETS if start * 1000 <= onset.onset_ms < (start + length) * 1000]
        scores = StreamScores(torch.from_numpy(rows[of_hops]).log(), torch.from_numpy(ends[of_hops]))
        audio = torch.zeros(1, length * RATE)
        found.append((scores, AudioStreamBatch(audio, start * RATE, onsets, f"from {start} s")))
        start += length
    return found


def measured(made: KeywordMetrics, seconds: Sequence[int] = (SECONDS,)) -> KeywordMetrics:
    for scores, batch in pieces(seconds):
        made.update(scores, batch)
    return made


def test_figures_of_a_stream() -> None:
    assert measured(metrics()).compute() == pytest.approx(
        {
            "hit_rate": 2 / 3,
            "miss_rate": 1 / 3,
            "hits": 2,
            "wrong_words": 1,
            "words": 3,  # without the unknown one
            "false_accepts_per_hour": 200,
            "hours": 0.01,
            "delay_ms": (400 + 1100) / 2,
            "threshold": 0.5,
        }
    )


@pytest.mark.parametrize("seconds", [(10, 10, 10, 6), (1,) * SECONDS])
def test_figures_do_not_depend_on_the_pieces(seconds: Sequence[int]) -> None:
    made = measured(metrics(), seconds)
    assert made.compute() == pytest.approx(measured(metrics()).compute())
    assert made.details() == measured(metrics()).details()


def test_windows_that_begin_before_the_audio_find_nothing() -> None:
    assert measured(metrics(1400.0)).compute()["hits"] == 2
    assert measured(metrics(1450.0)).compute()["hits"] == 1


def test_settings_say_how_a_stream_is_measured() -> None:
    figures = measured(metrics(threshold=0.75)).compute()
    assert (figures["hits"], figures["wrong_words"], figures["threshold"]) == (2, 0, 0.75)
    assert figures["false_accepts_per_hour"] == pytest.approx(100)
    figures = measured(metrics(thresholds={"no": 0.9})).compute()
    assert (figures["hits"], figures["wrong_words"]) == (2, 1)
    assert figures["false_accepts_per_hour"] == 0
    figures = measured(metrics(tolerance_ms=1000)).compute()
    assert figures["hits"] == 1
    assert figures["false_accepts_per_hour"] == pytest.approx(300)
    assert figures["delay_ms"] == pytest.approx(400)
    figures = measured(metrics(suppression_ms=60_000.0)).compute()  # silence, too, comes too soon
    assert (figures["hits"], figures["wrong_words"]) == (1, 0)
    assert "delay_ms" not in measured(metrics(threshold=0.99)).compute()  # nothing was found
    assert measured(metrics(threshold=0.99)).compute()["miss_rate"] == 1


@pytest.mark.parametrize("most", [0, 100, 199, 200, 1000])
def test_the_threshold_that_misses_least_is_taken(most: float) -> None:
    """Of several the one with the fewest false accepts: both are found up to 0.8, and alone from there."""
    figures = measured(metrics(max_false_accepts=most, threshold=0.1)).compute()
    assert (figures["threshold"], figures["hits"], figures["false_accepts_per_hour"]) == (0.8, 2, 0)


def test_fewer_misses_are_worth_false_accepts_that_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEARD, 22_000, ("no", 0.55))  # behind two words that nobody said
    for most, threshold, hits, false_accepts in ((199, 0.8, 1, 0), (200, 0.02, 2, 200)):
        figures = measured(metrics(max_false_accepts=most)).compute()
        assert (figures["threshold"], figures["hits"]) == (threshold, hits)
        assert figures["false_accepts_per_hour"] == false_accepts


def test_where_no_threshold_fits() -> None:
    made = metrics(max_false_accepts=10)
    (scores, batch), *_ = pieces([SECONDS])
    rows = scores.log_p.exp()
    rows[100] = torch.tensor([0.0, 0.0, 1.0, 0.0])  # sure of what nobody said
    made.update(scores._replace(log_p=rows.log()), batch)
    with pytest.raises(CompressnetError, match="max_false_accepts") as error:
        made.compute()
    assert error.value.problems == [
        "max_false_accepts=10: at every threshold there are more, at 0.98 still 100 an hour: allow more"
    ]


def test_the_sweep_is_in_the_details() -> None:
    sweep = measured(metrics(threshold=0.7)).details()["sweep"]
    assert len(sweep) == 49
    assert [row["threshold"] for row in sweep] == [round(0.02 * step, 2) for step in range(1, 50)]
    at = {row["threshold"]: row for row in sweep}
    assert at[0.7] == {
        "threshold": 0.7,
        "miss_rate": pytest.approx(1 / 3),
        "hits": 2,
        "wrong_words": 0,
        "false_accepts_per_hour": pytest.approx(100),
    }
    assert at[0.98]["miss_rate"] == 1
    figures = measured(metrics(threshold=0.7)).compute()
    assert all(at[0.7][key] == figures[key] for key in at[0.7])


def test_a_picture_of_the_trade_off() -> None:
    ((name, picture),) = measured(metrics()).pictures()
    assert name == "det"
    assert picture.size == (720, 540)
    pixels = np.asarray(picture).astype(int)
    orange = (abs(pixels - [255, 127, 14]) < 20).all(-1)  # the point where the figures are
    blue = (abs(pixels - [31, 119, 180]) < 20).all(-1)
    assert orange.sum() > 50
    assert blue.sum() > 200
    det_curve([(0.0, 1.0)], (0.0, 1.0), "threshold 0.5")  # a spotter that never fires


def test_a_stream_without_words_and_one_without_sound_enough() -> None:
    made = metrics()
    (scores, batch), *_ = pieces([SECONDS])
    made.update(scores, batch._replace(onsets=[]))
    figures = made.compute()
    assert (figures["words"], figures["hits"]) == (0, 0)
    assert not {"miss_rate", "hit_rate"} & figures.keys()  # of no words there is no share
    assert all("miss_rate" not in row for row in made.details()["sweep"])
    assert not list(made.pictures())
    assert figures["false_accepts_per_hour"] == pytest.approx(500)
    made = metrics()  # shorter than a hop
    nothing = StreamScores(torch.zeros(0, 1), torch.zeros(0, dtype=torch.float64))
    made.update(nothing, batch._replace(audio=torch.zeros(1, 5), onsets=[Onset("yes", 1)]))
    figures = made.compute()
    assert (figures["words"], figures["miss_rate"], figures["false_accepts_per_hour"]) == (1, 1, 0)


def test_states_merge() -> None:
    """Of a stream one process has it all, as it cannot be divided; clips are summed."""
    mine, other = measured(metrics(), (20, 16)), metrics()
    wanted = mine.compute()
    for states in ([mine.state(), other.state()], [other.state(), mine.state()]):
        merged = metrics()
        merged.merge(states)
        assert merged.compute() == wanted
        assert len(merged.details()["sweep"]) == 49

    def clips(*right: int) -> KeywordMetrics:
        made = KeywordMetrics(CLASSES, Measures(), RATE, 1000.0)
        labels = torch.tensor([2, 3, 2])
        guesses = torch.where(torch.isin(torch.arange(3), torch.tensor(right)), labels, 1)
        log_p = torch.nn.functional.one_hot(guesses, len(CLASSES)).double().log_softmax(-1)
        made.update(log_p, AudioClassBatch(torch.zeros(3, 4), labels, ["a", "b", "c"]))
        return made

    assert clips(0, 1).compute()["accuracy"] == pytest.approx(2 / 3)
    both = clips()
    both.merge([clips(0, 1).state(), clips(0, 1, 2).state()])
    figures = both.compute()
    assert figures["accuracy"] == pytest.approx(5 / 6)
    assert figures["accuracy/yes"] == pytest.approx(3 / 4)
    assert figures["accuracy/no"] == 1
    assert np.sum(both.details()["confusion"]["counts"]) == 6
