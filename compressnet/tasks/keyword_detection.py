"""From scores hop by hop to words that were spoken, once each: TensorFlow's RecognizeCommands.

    ln p (N, K), one row a hop -> mean over the last `average_ms` -> best class -> above its threshold,
                                                                 another than before, late enough -> Detection

As tensorflow/examples/speech_commands/recognize_commands.cc: silence and unknown words are found like any
other, so that a word may be found again after them, and are not told. There the first window lies wholly in
the audio; here earlier ones, which begin in the silence before it, count in the mean, and nothing is found in
them: networks take the edge of such silence for words. What is found is compared with what was spoken as in
accuracy_utils.cc: each detection belongs to the nearest word within a tolerance that no other has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from compressnet.bounds import Share
from compressnet.data.audio_class import SILENCE, UNKNOWN
from compressnet.errors import UsageError, named

Milliseconds = Annotated[float, Field(ge=0, le=60_000)]
MinimumCount = Annotated[int, Field(ge=1, le=1000)]
_THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 50))


class Detection(NamedTuple):
    """A word that was found.

    Attributes:
        end_ms: end of the window in which it was found, from the beginning of the audio.
        label: number of its class.
        score: mean probability.
        first_ms: end of the first window of those that were averaged.
    """

    end_ms: float
    label: int
    score: float
    first_ms: float = 0.0


class Spoken(NamedTuple):
    """A word that was said: where it begins, and the number of its class."""

    onset_ms: float
    label: int


class Smoothed(NamedTuple):
    """The best class after a hop: as of `Detection`."""

    end_ms: float
    label: int
    score: float
    first_ms: float = 0.0


@dataclass(frozen=True)
class Smoothing:
    """How scores become words.

    Attributes:
        average_ms: over how long scores are averaged.
        minimum_count: so many hops, and a quarter of `average_ms`, have to be there before anything is found.
        suppression_ms: nothing is found for so long after a word.
        threshold: what a mean probability has to be above.
    """

    average_ms: Milliseconds = 500.0
    minimum_count: MinimumCount = 3
    suppression_ms: Milliseconds = 1500.0
    threshold: Share = 0.7

    def check(self, hop_ms: float) -> None:
        """Refuse what can never find a word in scores of every `hop_ms`.

        Raises:
            UsageError: too few of them, or too short a time, lie within `average_ms`.
        """
        hops = int(self.average_ms / hop_ms + 1e-9)  # beside the newest score
        needed = max(self.minimum_count - 1, 1 if self.average_ms else 0)
        if hops < needed:
            raise UsageError(
                f"average_ms={self.average_ms:g}, minimum_count={self.minimum_count}: nothing would ever be "
                f"found in scores of every {hop_ms:g} ms: average over {needed * hop_ms:g} ms at least"
            )


class Detector:
    """Finds words in a stream, hop after hop.

    Args:
        classes: names, by which silence and unknown words are known.
        thresholds: of single words, by name, in the place of `smoothing.threshold`.
        clip_ms: length of a window: nothing is found before one lies wholly in the audio.
    """

    def __init__(
        self,
        classes: Sequence[str],
        smoothing: Smoothing,
        thresholds: Mapping[str, float] | None = None,
        clip_ms: float = 0.0,
    ) -> None:
        self._smoothing, self._clip_ms = smoothing, clip_ms
        self._thresholds = [(thresholds or {}).get(name, smoothing.threshold) for name in classes]
        self._told = [name not in (SILENCE, UNKNOWN) for name in classes]
        self._silent = [name == SILENCE for name in classes]
        self._recent: deque[tuple[float, np.ndarray]] = deque()
        self._before: Detection | None = None

    def push(self, end_ms: float, probabilities: np.ndarray) -> Detection | None:
        """The scores (K,) of the window that ends now: a word, where one is found."""
        smoothed = self.smooth(end_ms, probabilities)
        return None if smoothed is None else self.fire(smoothed)

    def smooth(self, end_ms: float, probabilities: np.ndarray) -> Smoothed | None:
        """The best class of late; None: too little was heard yet."""
        row = probabilities.astype(np.float64)
        self._recent.append((end_ms, row))
        while self._recent[0][0] < end_ms - self._smoothing.average_ms:
            self._recent.popleft()
        heard = end_ms - self._recent[0][0]
        if len(self._recent) < self._smoothing.minimum_count or heard < self._smoothing.average_ms / 4:
            return None
        if end_ms < self._clip_ms:
            return None
        mean = np.mean([scores for _, scores in self._recent], axis=0)
        best = int(mean.argmax())
        return Smoothed(end_ms, best, float(mean[best]), self._recent[0][0])

    def fire(self, smoothed: Smoothed) -> Detection | None:
        """A word, where this is one: of another class than that before, and not too soon after it."""
        end_ms, label, score, _ = smoothed
        before = self._before
        if score <= self._thresholds[label] or (before is not None and before.label == label):
            return None
        late = before is None or self._silent[before.label]
        if not late and before is not None and end_ms - before.end_ms <= self._smoothing.suppression_ms:
            return None
        self._before = Detection(*smoothed)
        return self._before if self._told[label] else None


def smoothed(
    classes: Sequence[str],
    smoothing: Smoothing,
    ends_ms: Sequence[float],
    probabilities: np.ndarray,
    clip_ms: float = 0.0,
) -> list[Smoothed]:
    """What a `Detector` knows after each hop of (N, K) scores, before any threshold."""
    detector = Detector(classes, smoothing, clip_ms=clip_ms)
    found = (detector.smooth(end, row) for end, row in zip(ends_ms, probabilities, strict=True))
    return [entry for entry in found if entry is not None]


def detections(
    classes: Sequence[str],
    smoothing: Smoothing,
    entries: Iterable[Smoothed],
    thresholds: Mapping[str, float] | None = None,
) -> list[Detection]:
    """The words in what `smoothed` returned."""
    detector = Detector(classes, smoothing, thresholds)
    return [found for entry in entries if (found := detector.fire(entry)) is not None]


@dataclass
class Comparison:
    """What was found beside what was said.

    Attributes:
        spoken: how many words.
        hits, wrong: how many of these were found, or found as another word.
        false_accepts: how often a word was found where none was said.
        delays_ms: from the beginning of a word to its detection, of hits.
    """

    spoken: int = 0
    hits: int = 0
    wrong: int = 0
    false_accepts: int = 0
    delays_ms: list[float] = field(default_factory=list)

    @property
    def miss_rate(self) -> float:
        """The share of spoken words that were not found as themselves."""
        return 1 - self.hits / self.spoken if self.spoken else 0.0


def compared(found: Sequence[Detection], spoken: Sequence[Spoken], tolerance_ms: float) -> Comparison:
    """Give each detection to the nearest word that begins within a tolerance and has none yet.

    Args:
        found, spoken: in the order of time; `spoken` without silence and unknown words.
    """
    result = Comparison(len(spoken))
    onsets = np.array([word.onset_ms for word in spoken])
    free = np.ones(len(spoken), bool)
    for detection in found:
        distances = np.where(free, np.abs(onsets - detection.end_ms), np.inf) if len(spoken) else np.array([])
        nearest = int(distances.argmin()) if len(distances) else -1
        if nearest < 0 or distances[nearest] > tolerance_ms:
            result.false_accepts += 1
            continue
        free[nearest] = False
        if spoken[nearest].label == detection.label:
            result.hits += 1
            result.delays_ms.append(detection.end_ms - spoken[nearest].onset_ms)
        else:
            result.wrong += 1
    return result


def sweep(
    classes: Sequence[str],
    smoothing: Smoothing,
    entries: Sequence[Smoothed],
    spoken: Sequence[Spoken],
    tolerance_ms: float,
    thresholds: Mapping[str, float] | None = None,
) -> list[tuple[float, Comparison]]:
    """The comparison at every threshold of a grid from 0.02 to 0.98; words in `thresholds` keep theirs."""
    results = []
    for threshold in _THRESHOLDS:
        found = detections(classes, replace(smoothing, threshold=threshold), entries, thresholds)
        results.append((threshold, compared(found, spoken, tolerance_ms)))
    return results


def check_thresholds(thresholds: Mapping[str, float] | None, classes: Sequence[str]) -> None:
    """Refuse thresholds of words that a network has not.

    Raises:
        UsageError: it has not.
    """
    for name in thresholds or ():
        if name not in classes:
            raise UsageError(f"thresholds: '{named(name)}' is no class: there are {', '.join(classes)}")
