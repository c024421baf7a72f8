"""What is measured of keyword spotters: of clips as of any classifier, of a stream what was found in it.

hit_rate, miss_rate        shares of the spoken words that were found, and that were not (or as another);
                           of a recording without words there are none
hits, wrong_words          how many were found; found as another word
false_accepts_per_hour     words that were found where none was said
delay_ms                   from the beginning of a word to its detection: the median of hits
threshold                  that all this is at
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image as PILImage

from compressnet.data.audio_class import SILENCE, UNKNOWN
from compressnet.data.keyword_stream import AudioStreamBatch
from compressnet.errors import CompressnetError, UsageError
from compressnet.tasks.class_metrics import ClassMetrics
from compressnet.tasks.keyword_detection import (
    Comparison,
    Smoothed,
    Spoken,
    compared,
    detections,
    smoothed,
    sweep,
)
from compressnet.tasks.keyword_listening import StreamScores

if TYPE_CHECKING:
    from compressnet.tasks.keyword_spotting import Measures

_HOUR = 3_600_000  # milliseconds


class KeywordMetrics:
    """Figures of clips or of a stream, whichever comes.

    Args:
        classes: their names.
        measures: how streams are measured.
        sample_rate: of the audio, in Hz.
        clip_ms: length of the windows of a stream.
    """

    def __init__(self, classes: Sequence[str], measures: Measures, sample_rate: int, clip_ms: float) -> None:
        self._classes, self._measures = list(classes), measures
        self._rate, self._clip_ms = sample_rate, clip_ms
        self._clips = ClassMetrics(classes)
        self._stream: StreamMetrics | None = None

    def update(self, output: Any, batch: Any) -> None:
        if isinstance(output, StreamScores):
            self._stream = self._stream or StreamMetrics(
                self._classes, self._measures, self._rate, self._clip_ms
            )
            self._stream.update(output, batch)
        else:
            self._refuse_settings_of_streams()
            self._clips.update(output, batch)

    def _refuse_settings_of_streams(self) -> None:
        for key, value in asdict(self._measures).items():
            if value != getattr(type(self._measures), key, None):
                raise UsageError(
                    f"--set {key}: it says how words are found in a recording, these are clips: add --data "
                    "keyword_stream:audio=FILE"
                )

    def state(self) -> Any:
        return (self._clips.state(), self._stream)

    def merge(self, states: list[Any]) -> None:
        clips, streams = zip(*states, strict=True)
        self._clips.merge(list(clips))
        self._stream = next((stream for stream in streams if stream is not None), None)

    def compute(self) -> dict[str, float]:
        return self._clips.compute() if self._stream is None else self._stream.compute()

    def details(self) -> dict[str, Any]:
        return self._clips.details() if self._stream is None else self._stream.details()

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        return self._clips.pictures() if self._stream is None else self._stream.pictures()


class StreamMetrics:
    """Scores of one stream, and what was said in it."""

    def __init__(self, classes: Sequence[str], measures: Measures, sample_rate: int, clip_ms: float) -> None:
        self._classes, self._measures = list(classes), measures
        self._rate, self._clip_ms = sample_rate, clip_ms
        self._log_p: list[torch.Tensor] = []
        self._ends_ms: list[torch.Tensor] = []
        self._spoken: list[Spoken] = []
        self._length_ms = 0.0

    def update(self, output: StreamScores, batch: AudioStreamBatch) -> None:
        for stale in ("_entries", "_swept"):
            vars(self).pop(stale, None)
        if len(output.ends_ms) > 1:
            self._measures.check(float(output.ends_ms[1] - output.ends_ms[0]))
        self._log_p.append(output.log_p)
        self._ends_ms.append(output.ends_ms)
        words = [onset for onset in batch.onsets if onset.word not in (SILENCE, UNKNOWN)]
        self._spoken += [Spoken(onset.onset_ms, self._classes.index(onset.word)) for onset in words]
        self._length_ms += 1000 * batch.audio.shape[1] / self._rate

    def compute(self) -> dict[str, float]:
        threshold, result = self._result()
        shares = {"hit_rate": 1 - result.miss_rate, "miss_rate": result.miss_rate}
        found = {
            **(shares if self._spoken else {}),
            "false_accepts_per_hour": result.false_accepts * self._per_hour,
            "threshold": threshold,
            "hits": result.hits,
            "wrong_words": result.wrong,
            "words": result.spoken,
            "hours": 1 / self._per_hour,
        }
        return found | ({"delay_ms": float(np.median(result.delays_ms))} if result.delays_ms else {})

    def details(self) -> dict[str, Any]:
        """The sweep over thresholds, a row each."""
        return {
            "sweep": [
                {
                    "threshold": threshold,
                    **({"miss_rate": result.miss_rate} if self._spoken else {}),
                    "hits": result.hits,
                    "wrong_words": result.wrong,
                    "false_accepts_per_hour": result.false_accepts * self._per_hour,
                }
                for threshold, result in self._swept
            ]
        }

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        if not self._spoken:
            return
        points = [(result.false_accepts * self._per_hour, result.miss_rate) for _, result in self._swept]
        threshold, result = self._result()
        here = result.false_accepts * self._per_hour, result.miss_rate
        yield "det", det_curve(points, here, f"threshold {threshold:g}")

    @property
    def _per_hour(self) -> float:
        return _HOUR / self._length_ms

    @cached_property
    def _entries(self) -> list[Smoothed]:
        """What a detector knows after each hop, of all that was collected."""
        ends = torch.cat(self._ends_ms).tolist()
        heard = [rows for rows in self._log_p if len(rows)]
        if not heard:  # less than a hop
            return []
        probabilities = torch.cat(heard).exp().double().numpy()
        return smoothed(self._classes, self._measures, ends, probabilities, self._clip_ms)

    @cached_property
    def _swept(self) -> list[tuple[float, Comparison]]:
        return sweep(
            self._classes,
            self._measures,
            self._entries,
            self._spoken,
            self._measures.tolerance_ms,
            self._measures.thresholds,
        )

    def _result(self) -> tuple[float, Comparison]:
        """At the threshold that was asked for, or that follows from the false accepts that may be."""
        measures = self._measures
        most = measures.max_false_accepts
        if most is not None:
            swept = self._swept
            fitting = [entry for entry in swept if entry[1].false_accepts * self._per_hour <= most]
            if not fitting:
                highest, result = swept[-1]
                still = result.false_accepts * self._per_hour
                raise CompressnetError(
                    f"max_false_accepts={most:g}: at every threshold there are more, at {highest:g} still "
                    f"{still:,.4g} an hour: allow more"
                )
            return min(fitting, key=lambda entry: (entry[1].miss_rate, entry[1].false_accepts))
        found = detections(self._classes, measures, self._entries, measures.thresholds)
        return measures.threshold, compared(found, self._spoken, measures.tolerance_ms)


def det_curve(points: Sequence[tuple[float, float]], here: tuple[float, float], label: str) -> PILImage.Image:
    """Misses against false accepts per hour, over thresholds, and the point where the figures are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=120, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    false, missed = zip(*points, strict=True)
    axes.plot(false, [100 * share for share in missed], marker=".", color="tab:blue")
    axes.plot([here[0]], [100 * here[1]], "o", color="tab:orange", label=label)
    axes.set_xlabel("false accepts per hour")
    axes.set_ylabel("missed words (%)")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.draw()
    return PILImage.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
