"""Table-driven: whatever is registered keeps the contracts."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import compressnet
from benchmarks.cuda_checks.sizes import ARGUMENTS_OF_MODELS, SIZES
from compressnet import registry, signature, weights
from compressnet.errors import UsageError

ALL = [(kind, name) for kind, names in registry.REGISTRIES.items() for name in names]
ARGUMENTS = {"linear": {"in_features": 2, "out_features": 3}}


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_name_imports_and_has_a_docstring(kind: str, name: str) -> None:
    found = registry.find(kind, name)
    assert inspect.getdoc(found)
    assert signature.parameters(found) is not None


@pytest.mark.parametrize("kind", registry.REGISTRIES)
def test_names_stand_for_distinct_things(kind: str) -> None:
    places = list(registry.REGISTRIES[kind].values())
    assert len(set(places)) == len(places)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'sample'"):
        registry.find("data", "samples")


def floats(output: Any) -> list[Tensor]:
    """Every output, that of a state included."""
    return [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point()]


@pytest.mark.parametrize("name", registry.MODELS)
def test_models_build_run_learn_save_and_load(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        compressnet.create(name)
    arguments = ARGUMENTS_OF_MODELS.get(name, {})
    model = compressnet.create(name, **arguments)
    inputs = model.example(2, SIZES.get(name, 33))  # type: ignore[operator]
    outputs = floats(model(*inputs))
    assert 2 in outputs[0].shape[:2]  # sequences are (T, B, C)
    torch.stack([x.square().mean() for x in outputs if x.requires_grad]).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {parameter_name}"
        assert torch.isfinite(parameter.grad).all()
    architecture = weights.Architecture(
        task="image_translation", task_args={}, model=name, model_args=arguments
    )
    weights.save(tmp_path / "w.safetensors", model, architecture)
    stored, tensors = weights.load(tmp_path / "w.safetensors")
    again = weights.build(stored)
    weights.load_into(again, tensors, name)
    with torch.inference_mode():
        for one, other in zip(floats(again.eval()(*inputs)), floats(model.eval()(*inputs)), strict=True):
            assert torch.equal(one, other)
