"""What is measured of classifiers: accuracy, of all samples and class by class, and the confusion matrix.

loss                  -ln p(class), nats, mean over samples
accuracy              share of samples whose most probable class is theirs (top 1)
accuracy_top5         share of samples whose class is among the five most probable ones; where asked for
accuracy/<class>      the same of the samples of one class: its recall; count/<class>: how many there are
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.nn import functional as F

from compressnet.tasks.confusion import confusion_details, confusion_picture


class Labelled(Protocol):
    """A batch whose samples have classes: `labels` (B,)."""

    @property
    def labels(self) -> Tensor: ...


class ClassMetrics:
    """Sums over samples, class by class.

    Args:
        classes: their names.
        top: also count samples whose class is among so many most probable ones; 0: none.
    """

    def __init__(self, classes: Sequence[str], top: int = 0) -> None:
        self.classes, self._top = list(classes), top
        self.sums = torch.zeros(3, len(classes), dtype=torch.float64)  # samples, -ln p, among the top
        self.confusion = torch.zeros(len(classes), len(classes), dtype=torch.float64)  # true, predicted

    def update(self, output: Tensor, batch: Labelled) -> None:
        labels = batch.labels.cpu()
        losses = F.nll_loss(output.double(), labels, reduction="none")
        ones = torch.ones_like(losses)
        near = torch.zeros_like(ones)
        if self._top:
            best = output.topk(min(self._top, len(self.classes))).indices
            near = (best == labels[:, None]).any(1).double()
        self.sums.index_add_(1, labels, torch.stack([ones, losses, near]))
        self.confusion.index_put_((labels, output.argmax(-1)), ones, accumulate=True)

    def state(self) -> list[list[float]]:
        sums: list[list[float]] = torch.cat([self.sums, self.confusion]).tolist()
        return sums

    def merge(self, states: list[list[list[float]]]) -> None:
        self.sums, self.confusion = torch.tensor(states, dtype=torch.float64).sum(0).tensor_split([3])

    def compute(self) -> dict[str, float]:
        counts, losses, near = self.sums.tolist()
        right = self.confusion.diagonal().tolist()
        total = sum(counts)
        figures = {"loss": sum(losses) / total, "accuracy": sum(right) / total}
        if self._top:
            figures[f"accuracy_top{self._top}"] = sum(near) / total
        for name, count, hits, loss in zip(self.classes, counts, right, losses, strict=True):
            if count:
                figures |= {
                    f"loss/{name}": loss / count,
                    f"accuracy/{name}": hits / count,
                    f"count/{name}": int(count),
                }
        return figures

    def details(self) -> dict[str, Any]:
        return {"confusion": confusion_details(self.classes, self.confusion.numpy())}

    def pictures(self) -> Iterator[tuple[str, PILImage.Image]]:
        yield "confusion", confusion_picture(self.classes, self.confusion.numpy())
