"""What is measured of segmentation: one confusion of all pixels, as the Cityscapes benchmark has it.

mIoU                     intersection over union, mean over the classes that are there
pixel_accuracy           share of the pixels that were labelled right
class_accuracy           the same of each class, mean over classes
category_mIoU            of categories of classes, where the class file has them
iIoU, category_iIoU      each object weighted by the average size of its class over its own: small ones count
                         as much as large ones; where instances are there, of Cityscapes' classes
IoU/x, accuracy/x, pixels/x    of one class

    labels (H, W), predicted (H, W) -> counts (K, K + 1), a row for each true class; the last column is of
                                       pixels that were taken for "ignored": misses, and nobody's false alarm

Pixels whose label is ignored do not count at all. A class that is neither there nor predicted has no figures
and is left out of means; where nothing is labelled there are none (NaN). Source: cityscapesscripts,
evalPixelLevelSemanticLabeling.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as PILImage
from torch import Tensor

from compressnet.data.label_classes import IGNORED, LabelClasses
from compressnet.data.label_image import WholeBatch
from compressnet.tasks.confusion import confusion_details, confusion_picture

# Average pixels of an object in Cityscapes' training data (cityscapesscripts).
_AVERAGE_SIZES = {
    "bicycle": 4672.3249222261,
    "motorcycle": 6298.7200839748,
    "rider": 3930.4788056518,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "car": 12794.0202738185,
    "person": 3462.4756337644,
    "truck": 27855.1264367816,
}
_OBJECT = 1000  # ids of objects are 1000 times that of their class, and a number


class SegmentationMetrics:
    """Counts over pixels.

    Args:
        classes: of the outputs.
    """

    def __init__(self, classes: LabelClasses) -> None:
        self._classes = classes
        number = len(classes)
        self.confusion = np.zeros((number, number + 1), np.int64)
        # Of objects, weighted: found, missed; as their class, and as any of its category.
        self._objects = np.zeros((4, number))
        self._has_objects = False

    def update(self, output: list[Tensor], batch: WholeBatch) -> None:
        """Count maps of predicted outputs, uint8 (H, W), 255 where "ignored" was predicted."""
        for predicted, labels, instances in zip(output, batch.labels, batch.instances, strict=True):
            guess, truth = predicted.numpy(), labels.numpy()
            self.confusion += _counts(truth, guess, len(self._classes))
            if instances is not None and self._classes.instances is not None:
                self._has_objects = True
                self._count_objects(guess, instances.numpy())

    def state(self) -> Any:
        return self.confusion.tolist(), self._objects.tolist(), self._has_objects

    def merge(self, states: list[Any]) -> None:
        confusions, objects, there = zip(*states, strict=True)
        self.confusion = np.sum(np.array(confusions, np.int64), axis=0)
        self._objects = np.sum(np.array(objects), axis=0)
        self._has_objects = any(there)

    def compute(self) -> dict[str, float]:
        hits = self.confusion.diagonal()
        rows = self.confusion.sum(1)
        ious = _ratio(hits, rows + self.confusion[:, :-1].sum(0) - hits)
        recalls = _ratio(hits, rows)
        figures = {
            "mIoU": _mean(ious),
            "pixel_accuracy": float(hits.sum() / rows.sum()) if rows.any() else math.nan,
            "class_accuracy": _mean(recalls),
            **self._of_categories(),
            **self._of_objects(),
        }
        for number, name in enumerate(self._classes.names):
            if not np.isnan(ious[number]):
                figures[f"IoU/{name}"] = float(ious[number])
            if rows[number]:
                figures[f"accuracy/{name}"] = float(recalls[number])
            figures[f"pixels/{name}"] = int(rows[number])
        return figures

    def details(self) -> dict[str, Any]:
        """The confusion; `ignored` counts the pixels of each class that were taken for that."""
        square = confusion_details(self._classes.names, self.confusion[:, :-1])
        return {"confusion": {**square, "ignored": self.confusion[:, -1].tolist()}}

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        yield "confusion", confusion_picture(self._classes.names, self.confusion[:, :-1])

    def _categories(self) -> tuple[list[str], np.ndarray]:
        """Names, and of each class the number of its own."""
        own = self._classes.categories or ()
        names = list(dict.fromkeys(own))
        return names, np.array([names.index(name) for name in own], np.int64)

    def _of_categories(self) -> dict[str, float]:
        if self._classes.categories is None:
            return {}
        names, own = self._categories()
        belongs = own == np.arange(len(names))[:, None]  # (categories, K)
        square = belongs @ self.confusion[:, :-1] @ belongs.T
        hits, rows = square.diagonal(), belongs @ self.confusion.sum(1)
        return {"category_mIoU": _mean(_ratio(hits, rows + square.sum(0) - hits))}

    def _of_objects(self) -> dict[str, float]:
        """iIoU: objects weighted, false alarms counted by the pixel."""
        classes = self._classes
        if not self._has_objects or classes.instances is None:
            return {}
        counted = np.array([own and name in _AVERAGE_SIZES for own, name in self._named()])
        found, missed, near, far = self._objects
        false = self.confusion[:, :-1].sum(0) - self.confusion.diagonal()
        figures = {"iIoU": _mean(_ratio(found, found + missed + false)[counted])}
        if classes.categories is not None:
            names, own = self._categories()
            belongs = own == np.arange(len(names))[:, None]
            whole = np.array([counted[row].all() for row in belongs])  # every class of it has objects
            square = belongs @ self.confusion[:, :-1] @ belongs.T
            false = square.sum(0) - square.diagonal()
            hits = belongs @ near
            figures["category_iIoU"] = _mean(_ratio(hits, hits + belongs @ far + false)[whole])
        return figures

    def _named(self) -> Iterator[tuple[bool, str]]:
        assert self._classes.instances is not None
        yield from zip(self._classes.instances, self._classes.names, strict=True)

    def _count_objects(self, guess: np.ndarray, instances: np.ndarray) -> None:
        classes = self._classes
        outputs = {identity: number for number, identity in enumerate(classes.ids)}
        own = self._categories()[1]
        numbers, places, sizes = np.unique(instances, return_inverse=True, return_counts=True)
        known = [
            (place, outputs[number // _OBJECT])
            for place, number in enumerate(numbers.tolist())
            if number >= _OBJECT and number // _OBJECT in outputs
        ]
        places = places.reshape(-1)
        right = np.zeros((2, len(numbers)))
        of = np.full(len(numbers), -1)
        for place, output in known:
            of[place] = output
        target, seen = of[places], guess.reshape(-1).astype(np.int64)
        same = seen == target
        right[0] = np.bincount(places, same, len(numbers))
        if len(own):
            inside = (target >= 0) & (seen != IGNORED)
            same = inside & (own[np.where(inside, seen, 0)] == own[np.where(inside, target, 0)])
            right[1] = np.bincount(places, same, len(numbers))
        for place, output in known:
            weight = _AVERAGE_SIZES.get(classes.names[output], 0.0) / sizes[place]
            as_class, as_category = right[:, place]
            self._objects[:, output] += weight * np.array(
                [as_class, sizes[place] - as_class, as_category, sizes[place] - as_category]
            )


def _counts(truth: np.ndarray, guess: np.ndarray, number: int) -> np.ndarray:
    """(K, K + 1)."""
    valid = truth != IGNORED
    columns = np.minimum(guess[valid].astype(np.int64), number)  # 255 is "ignored"
    pairs = truth[valid].astype(np.int64) * (number + 1) + columns
    return np.bincount(pairs, minlength=number * (number + 1)).reshape(number, number + 1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1e-300), np.nan)


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan
