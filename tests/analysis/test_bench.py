"""Benchmarks as data: what a child process is sent is what was planned."""

from __future__ import annotations

import json

import pytest
import torch

from compressnet.analysis.bench import Case, Facts, Plan, example_inputs, prepare
from compressnet.analysis.example import example_step
from compressnet.errors import UsageError
from compressnet.layers.torch_lstm import TorchLSTM
from compressnet.models.can import can24


def test_plans_and_facts_survive_json() -> None:
    cases = (Case(0), Case(1, "train-step", "compile", "bfloat16", 2, "torch"))
    plan = Plan(("can24", "vs", "can32"), cases, {"norm": "bn"}, 2, (8, 16), None, True, "cpu")
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    facts = Facts(((1, 3, 8, 16),), "megapixel", 0.1, 5, 20)
    assert Facts.from_dict(json.loads(json.dumps(facts.as_dict()))) == facts


def test_a_case_is_built_as_planned() -> None:
    plan = Plan(("can24",), (Case(0, threads=1),), {"in_channels": 4}, 2, (8, 16), channels_last=True)
    prepared = prepare(plan, plan.cases[0])
    assert prepared.facts.inputs == ((2, 4, 8, 16),)
    assert prepared.facts.parameters == 37219 + 9 * 24
    assert prepared.facts.unit == "megapixel"
    assert prepared.facts.amount == pytest.approx(2 * 8 * 16 / 1e6)
    before = torch.get_num_threads()
    output = prepared.form()
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
    assert isinstance(output, torch.Tensor)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_usual_sizes() -> None:
    plan = Plan(("can24",), ())
    assert example_inputs(can24(), plan)[0].shape == (1, 3, 512, 512)
    assert example_inputs(torch.nn.LSTM(3, 4), plan)[0].shape == (35, 1, 3)
    assert example_step(torch.nn.LSTM(3, 4), 2)[0].shape == (1, 2, 3)
    assert example_inputs(torch.nn.Linear(3, 4), plan)[0].shape == (1, 3)
    assert example_inputs(TorchLSTM(3, 4), Plan(("x",), (), seq_len=5, batch=2))[0].shape == (5, 2, 3)


def test_weights_are_those_of_the_file() -> None:
    plan = Plan(("zoo:rof", "can24"), (Case(0), Case(1)), image_size=(8, 8))
    outputs = [prepare(plan, case).form() for case in plan.cases]
    assert not torch.equal(*outputs)  # type: ignore[arg-type]


def test_no_channels_last_for_sequences() -> None:
    plan = Plan(("torch_lstm:input_size=3,hidden_size=4",), (Case(0),), channels_last=True)
    with pytest.raises(UsageError, match="takes no images"):
        prepare(plan, plan.cases[0])
