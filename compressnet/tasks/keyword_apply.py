"""`apply` of keyword spotters: files of sound, and what is piped in, to words with times.

no longer than a clip -> the best class                       one event
longer                -> scores hop by hop -> Detector        an event for each word that is found
-                     -> 16-bit PCM as it comes -> the same   an answer for each word, at once
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compressnet import finite
from compressnet.data.audio import pcm_blocks, read_audio, resampled
from compressnet.errors import CompressnetError, NotFinite
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Event, Events
from compressnet.tasks.keyword_detection import Detector
from compressnet.tasks.keyword_listening import State, StreamScores, listen
from compressnet.tasks.protocol import Answers, answers

if TYPE_CHECKING:
    from compressnet.tasks.keyword_spotting import Options

_PIECE_MS = 10_000.0


class Ear:
    """Hears words in files and streams.

    Args:
        classes: their names.
        sample_rate, clip_ms: of the clips that the network knows.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        sample_rate: int,
        clip_ms: float,
        options: Options,
        reporter: Reporter,
    ) -> None:
        self._model, self._classes, self._options, self._reporter = model, classes, options, reporter
        self._rate, self._clip_ms = sample_rate, clip_ms
        self._told: set[int] = set()  # rates
        self._clip = int(sample_rate * clip_ms / 1000)

    def answers(self, inputs: Iterable[Source]) -> Answers:
        for source in inputs:
            if source.path is None:
                yield from self._live(source)
            else:
                yield from answers([source], self._heard, "cut the recording into parts")

    def _heard(self, source: Source) -> Events:
        with source.file() as path:
            samples, rate = read_audio(path, source.name)
        if rate != self._rate:
            if rate not in self._told:
                self._told.add(rate)
                note = f"{source}: {rate:,} Hz: resampled to {self._rate:,}, as others of that rate"
                self._reporter.note("info", note)
            samples = resampled(samples, rate, self._rate)
        try:
            if len(samples) <= self._clip:
                return Events([self._whole(torch.from_numpy(samples))])
            return Events(list(self._words(source, torch.from_numpy(samples))))
        except NotFinite as error:
            raise NotFinite(f"{source}: {error}") from error

    def _whole(self, samples: Tensor) -> Event:
        """A clip as one."""
        padded = torch.nn.functional.pad(samples, (0, self._clip - len(samples)))
        scores = probabilities(self._model, padded)
        best = int(scores.argmax())
        return Event(0.0, 1000 * len(samples) / self._rate, self._classes[best], float(scores[best]))

    def _words(self, source: Source, samples: Tensor) -> Iterator[Event]:
        """Longer audio, piece by piece."""
        detector = self._detector()
        state: State = ()
        pieces = samples.split(int(self._rate * _PIECE_MS / 1000))
        if len(pieces) > 1:
            self._reporter.stage(source.name, len(pieces), "pieces")
        for piece in pieces:
            scores, state = self._listen(piece, state)
            yield from self._found(detector, scores)
            if len(pieces) > 1:
                self._reporter.advance(1)

    def _live(self, source: Source) -> Answers:
        """What is piped in, as it comes: an answer for every word."""
        detector = self._detector()
        state: State = ()
        try:
            with source.open() as stream:
                for block in pcm_blocks(stream):
                    scores, state = self._listen(torch.from_numpy(block), state)
                    for event in self._found(detector, scores):
                        yield source, Events([event])
        except OSError as error:
            yield source, CompressnetError(f"{source}: cannot be read: {error.strerror or error}")
        except CompressnetError as error:
            yield source, error

    def _detector(self) -> Detector:
        return Detector(self._classes, self._options, self._options.thresholds, self._clip_ms)

    @torch.inference_mode()
    def _listen(self, piece: Tensor, state: State) -> tuple[StreamScores, State]:
        device = next((tensor.device for tensor in self._model.parameters()), torch.device("cpu"))
        scores, state = listen(self._model, piece[None].to(device), state, self._options.stream)
        finite.checked(scores.log_p, "the network's output")
        return scores, state

    def _found(self, detector: Detector, scores: StreamScores) -> Iterator[Event]:
        rows = scores.log_p.exp().cpu().double().numpy()
        for end_ms, row in zip(scores.ends_ms.tolist(), rows, strict=True):
            if (found := detector.push(end_ms, row)) is not None:
                begin = max(0.0, found.first_ms - self._clip_ms)
                yield Event(begin, end_ms, self._classes[found.label], found.score)


@torch.inference_mode()
def probabilities(model: nn.Module, samples: Tensor) -> np.ndarray:
    """Of the classes of one clip (samples,), (K,)."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    scores = finite.checked(model(samples[None].to(device)).float()[0], "the network's output")
    found: np.ndarray = scores.softmax(-1).cpu().numpy()
    return found
