"""What the checks on CUDA do with all that is registered, on the CPU: nothing may be new to them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.cuda_checks import compare, modules, training
from benchmarks.cuda_checks.cases import Failed, Settings
from compressnet import registry


@pytest.mark.parametrize(("kind", "name"), list(modules.names()))
def test_it_can_be_built_small_and_run(kind: str, name: str) -> None:
    module = modules.build(kind, name)
    assert compare.floats(module(*modules.inputs_of(module, name)))


def test_networks_with_a_condition_are_trained_and_exported_in_each_form(tmp_path: Path) -> None:
    found = [case.name for case in modules.cases(Settings(str(tmp_path), "cpu"), 0).cases]
    for name in ("can24", "can32"):
        assert f"model {name}: forward" in found
        for form in ("planes", "film"):
            for what in ("forward", "gradients", "training", "export"):
                assert f"model {name} {form}: {what}" in found
    assert modules._training("model", "can24 film", torch.device("cpu")).figure == "0.0e+00"


def test_of_each_task_a_recipe_is_trained() -> None:
    found = training.of_tasks()
    assert found.keys() <= registry.TASKS.keys()
    assert set(training.QUICK) <= set(found.values())


def test_a_difference_is_found() -> None:
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1])
    assert compare.difference([other], [one]) == pytest.approx(0.05)
    with pytest.raises(Failed, match="5.0e-02 of the scale"):
        compare.near(0.05, 1e-4)
    with pytest.raises(Failed, match="not finite"):
        compare.difference([torch.tensor([1.0, torch.nan])], [one])
    with pytest.raises(Failed, match=r"\(1,\) against \(2,\)"):
        compare.difference([one[:1]], [one])
    with pytest.raises(Failed, match="not the same tensors"):
        compare.difference([one], [one, one])


def test_a_gradient_that_is_wrong_is_found() -> None:
    class Wrong(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input.detach())

    torch.manual_seed(0)
    right, wrong = torch.nn.Linear(3, 2), Wrong(3, 2)
    x = (torch.randn(4, 3),)
    with pytest.raises(Failed, match="input 0"):
        compare.differences(compare.gradients(wrong, x), compare.gradients(right, x))
