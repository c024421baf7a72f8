"""What records count MACs by: of the first tasks it is what bare models are counted by."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressnet import registry, signature
from compressnet.analysis.count import rate_of
from compressnet.analysis.example import example

CASES = {
    "conditioned_operator": ("can24", "megapixel", 0.004096),
    "image_classification": ("resnet20", "image", 1),
    "image_operator": ("can24", "megapixel", 0.004096),
    "image_translation": ("can24", "megapixel", 0.004096),
    "keyword_spotting": ("kws_svdf", "second of audio", 1),
    "language_modelling": ("language_model", "token", 35),
    "segmentation": ("shuffleseg", "megapixel", 0.2304),
    "sequence_classification": ("sequence_classifier", "token", 35),
    "sequence_regression": ("lstm_1997_network", "step", 35),
}


ARGUMENTS: dict[str, dict[str, Any]] = {
    "image_operator": {"operator": "rof"},
    "conditioned_operator": {"operators": ["rof", "l0"]},
}


def test_every_task_is_here() -> None:
    assert CASES.keys() == registry.TASKS.keys()


@pytest.mark.parametrize("name", CASES)
def test_units_of_an_example(name: str) -> None:
    model_name, unit, of_one = CASES[name]
    task = signature.build("task", name, ARGUMENTS.get(name, {}))
    with torch.device("meta"):
        model = signature.build("model", model_name, {})
    assert signature.misfit(model_name, name, task.size_names) is None
    for batch in (1, 3):
        inputs = example(model, batch)
        assert (task.unit, task.amount(inputs)) == (unit, pytest.approx(batch * of_one))
        if unit != "image":  # of pictures of any size a rate counts pixels
            assert (task.unit, task.amount(inputs)) == rate_of(model, inputs)
