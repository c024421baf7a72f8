"""What the features of keyword spotters are like in the clips they learn from, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressnet import signature
from compressnet.data.cache import Cache
from compressnet.layers.features import LogMel

_CLIPS = 1000
_AT_ONCE = 50
_LEAST_SCALE = 1e-3  # of a feature that never changes


def feature_statistics(model: str, arguments: Mapping[str, Any], split: Any) -> dict[str, list[float]]:
    """`feature_mean` and `feature_scale` of a model: over the frames of at most 1,000 clips without noise.

    Args:
        model, arguments: the name of a model and what it is built with.
        split: of training data: it has `clean(number)`, clips (samples,).

    Returns:
        nothing, where the model has no front end of ours.
    """
    features = getattr(signature.build("model", model, dict(arguments)), "features", None)
    if not isinstance(features, LogMel):
        return {}
    key = {
        "derived": "feature statistics 1",
        "front end": repr(features),
        "data": split.facts(),
        "clips": _CLIPS,
    }
    found = Cache().get(key, lambda: _statistics(features, split.clean(_CLIPS)))
    return {f"feature_{name}": [round(float(x), 6) for x in found[name]] for name in ("mean", "scale")}


@torch.inference_mode()
def _statistics(features: LogMel, clips: Iterable[Tensor]) -> dict[str, np.ndarray]:
    clips = iter(clips)
    count, sums, squares = 0, 0.0, 0.0
    while some := list(islice(clips, _AT_ONCE)):
        frames = features(torch.stack(some)).flatten(0, 1).double().numpy()  # (T·B, F)
        count, sums, squares = count + len(frames), sums + frames.sum(0), squares + (frames**2).sum(0)
    mean = sums / count
    scale = np.sqrt(np.maximum(squares / count - mean**2, _LEAST_SCALE**2))
    return {"mean": mean, "scale": scale}


def spectrum(samples: Tensor, sample_rate: int) -> np.ndarray:
    """The log-mel spectrum of a clip (samples,) as a picture: uint8 (bands, T, 3), low tones below."""
    from matplotlib import colormaps

    features = LogMel(sample_rate, high_hz=min(7600.0, sample_rate / 2))
    missing = max(0, features.window - len(samples))  # the last piece of a recording may be short
    bands = features(torch.nn.functional.pad(samples, (0, missing))[None])[:, 0].numpy()
    shown = np.clip((bands - bands.max() + 9) / 9, 0, 1)  # 80 dB
    colours: np.ndarray = colormaps["magma"](shown.T[::-1])[..., :3]
    return np.asarray(np.rint(colours * 255), np.uint8)
