"""Keyword spotting: which of a few words was spoken, in a clip or when in a stream.

loss                  cross-entropy, nats, mean over clips
figures of clips      those of `class_metrics`: accuracy, recall of every class
figures of a stream   those of `keyword_metrics`: hits, misses, false accepts per hour, delay

    clip (samples,)  -> model -> ln p (K,)
    stream           -> model.step, or the last clip anew (`SlidingWindow`) -> ln p hop by hop -> Detector

The mean and deviation of each feature of the training clips become arguments of the model (`standardise`):
its front end is part of it, so that a weights file and an exported one take audio as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image as PILImage
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet import json_file
from compressnet.bounds import Probability, Share
from compressnet.data.audio_class import AudioClass, AudioClassBatch
from compressnet.data.keyword_stream import AudioPiece, AudioStreamBatch
from compressnet.errors import CompressnetError, UsageError
from compressnet.layers.features import Rate
from compressnet.models.keyword_spotting import KeywordSpotter
from compressnet.recipe import Component
from compressnet.reporter import Reporter
from compressnet.source import Source
from compressnet.tasks.artefacts import Events
from compressnet.tasks.image_classification import captioned
from compressnet.tasks.keyword_apply import Ear, probabilities
from compressnet.tasks.keyword_detection import Smoothing, check_thresholds
from compressnet.tasks.keyword_features import feature_statistics, spectrum
from compressnet.tasks.keyword_listening import StreamScores, can_stream, listen
from compressnet.tasks.keyword_metrics import KeywordMetrics
from compressnet.tasks.protocol import Answers, Loss, Outputs, State
from compressnet.weights import Architecture


@dataclass(frozen=True)
class Options(Smoothing):
    """What `apply` takes, beside what `Smoothing` has.

    Attributes:
        thresholds: of single words, in the place of `threshold`: {yes: 0.8}.
        stream: hop by hop, as a device does it; the results are the same.
    """

    thresholds: dict[str, Share] | None = None
    stream: bool = False


@dataclass(frozen=True)
class Measures(Smoothing):
    """How streams are measured, beside what `Smoothing` has.

    Attributes:
        thresholds: of single words, in the place of `threshold`.
        tolerance_ms: how far a detection may be from the beginning of its word.
        max_false_accepts: per hour: of the thresholds that have no more the one with the fewest misses is
            taken, in the place of `threshold`.
    """

    thresholds: dict[str, Share] | None = None
    tolerance_ms: Annotated[float, Field(gt=0, le=60_000)] = 1500.0
    max_false_accepts: Annotated[float, Field(ge=0, le=1e6)] | None = None


class Assets(json_file.Form):
    """What is stored with weights: the names of the classes, and what clips are."""

    classes: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1)]
    sample_rate: Rate
    clip_ms: Annotated[float, Field(gt=0, le=60_000)]


class KeywordSpotting:
    """Tell which word was spoken.

    Args:
        standardise: features are brought to mean 0 and deviation 1 by those of the training clips; false: as
            TensorFlow, which then needs many more steps.
        label_smoothing: share of the target that is spread over all classes, in training.
    """

    sample_types: ClassVar[tuple[str, ...]] = ("audio_class", "audio_stream")
    size_names: ClassVar[tuple[str, ...]] = ("num_classes", "sample_rate", "clip_ms")
    reads: ClassVar[tuple[str, ...]] = ("audio",)
    best: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    options: ClassVar[type] = Options
    measures: ClassVar[type] = Measures
    needs_targets: ClassVar[bool] = True
    unit: ClassVar[str] = "second of audio"

    def __init__(self, standardise: bool = True, label_smoothing: Probability = 0.0) -> None:
        self._standardise, self._label_smoothing = standardise, label_smoothing
        self._measures = Measures()
        self.sample_rate, self.clip_ms = 16_000, 1000.0  # until `use`: those that models have by themselves

    def prepare(
        self,
        train_data: Any,
        parent: Architecture | None = None,
        model: Component | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The classes of the training data, its clips, and what features are like in it.

        Weights that training starts from keep the mean and scale of their features.
        """
        assets = {
            "classes": list(train_data.classes),
            "sample_rate": train_data.sample_rate,
            "clip_ms": float(train_data.clip_ms),
        }
        self.use(assets)
        sizes = self.sizes()
        if parent is not None:
            kept = ("feature_mean", "feature_scale")
            return assets, sizes | {key: parent.model_args[key] for key in kept if key in parent.model_args}
        if model is None or not self._standardise:
            return assets, sizes
        return assets, sizes | feature_statistics(model.name, {**model.arguments, **sizes}, train_data)

    def use(self, assets: Mapping[str, Any]) -> None:
        stored = json_file.check(Assets, assets, "the stored assets")
        self.classes, self.sample_rate, self.clip_ms = stored.classes, stored.sample_rate, stored.clip_ms
        twice = [name for name, times in Counter(self.classes).items() if times > 1]
        if twice:
            raise CompressnetError(f"the list of classes has {twice[0]!r} twice")

    def sizes(self) -> dict[str, Any]:
        return {"num_classes": len(self.classes), "sample_rate": self.sample_rate, "clip_ms": self.clip_ms}

    def amount(self, inputs: tuple[Any, ...]) -> float:
        return float(inputs[0].numel() / self.sample_rate)

    def loss(self, model: nn.Module, batch: AudioClassBatch, state: State) -> Loss:
        return self.loss_of(self.outputs(model, batch, state), batch)

    def loss_of(self, outputs: Outputs, batch: AudioClassBatch) -> Loss:
        mean = F.cross_entropy(outputs.values, batch.labels, label_smoothing=self._label_smoothing)
        return Loss(mean, len(batch.labels), {}, ())

    def outputs(self, model: nn.Module, batch: AudioClassBatch, state: State) -> Outputs:
        """Scores of the classes, (B, K), in float32."""
        return Outputs(model(batch.audio).float(), "logits", ())

    def predict(
        self, model: nn.Module, batch: AudioClassBatch | AudioStreamBatch, state: State
    ) -> tuple[Tensor | StreamScores, State]:
        """ln p of the classes: of clips (B, K); of a piece of a stream hop by hop, with its times.

        Clips of a stream (`carry: true`) have the scores of the hop that they end in.
        """
        if isinstance(batch, AudioClassBatch) and not batch.carried:
            return model(batch.audio).float().log_softmax(-1), ()
        scores, state = listen(model, batch.audio, state)
        return (scores.log_p[-1:] if isinstance(batch, AudioClassBatch) else scores), state

    def measure(self, settings: Mapping[str, Any]) -> None:
        self._measures = Measures(**settings)
        check_thresholds(self._measures.thresholds, self.classes)

    def metrics(self) -> KeywordMetrics:
        return KeywordMetrics(self.classes, self._measures, self.sample_rate, self.clip_ms)

    def preview(
        self, model: nn.Module, samples: list[AudioClass] | list[AudioPiece]
    ) -> Iterator[tuple[str, PILImage.Image]]:
        """The log-mel spectrum of a clip, its class, and the three that the model takes it for.

        Of a piece of a stream its spectrum and the words in it, with the seconds in which they begin.
        """
        for sample in samples:
            if isinstance(sample, AudioPiece):
                lines = [f"{onset.onset_ms / 1000:.2f} s {onset.word}" for onset in sample.onsets]
                picture = spectrum(sample.samples, self.sample_rate)
                yield sample.name, captioned(picture, lines or ["no words"])
                continue
            scores = probabilities(model, sample.samples)
            lines = [f"true: {self.classes[sample.label]}"]
            best = np.argsort(-scores, kind="stable")[:3]
            lines += [f"{scores[number]:.3f} {self.classes[number]}" for number in best]
            yield sample.name, captioned(spectrum(sample.samples, self.sample_rate), lines)

    def makes(self, options: Mapping[str, Any], kind: str) -> type[Events]:
        return Events

    def apply(
        self, model: nn.Module, inputs: Iterable[Source], options: Mapping[str, Any], reporter: Reporter
    ) -> Answers:
        """The word of each clip; of longer audio every word that is found, with its time."""
        settings = Options(**options)
        check_thresholds(settings.thresholds, self.classes)
        if isinstance(model, KeywordSpotter):
            settings.check(1000 * model.hop / self.sample_rate)
        if settings.stream and not can_stream(model):
            raise UsageError(
                "stream=true: this network looks at whole clips: leave it out, and windows slide"
            )
        ear = Ear(model, self.classes, self.sample_rate, self.clip_ms, settings, reporter)
        return ear.answers(inputs)
