"""One network for several operators, and one with a dial."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compressnet import signature
from compressnet.data.image_pair import collate_pairs, image_pair
from compressnet.errors import CompressnetError, UsageError
from compressnet.models.can import CAN
from compressnet.recipe import Component
from compressnet.tasks.conditioned_operator import ConditionedOperator

DIAL: dict[str, Any] = {"operators": ["l0"], "dial": {"lambda": [0.002, 0.02]}}


def lively(condition: Any, conditions: int) -> CAN:
    torch.manual_seed(0)
    net = CAN(4, 8, condition=condition, conditions=conditions, kernels="mixed").eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return net


def told(task: ConditionedOperator, **settings: Any) -> list[float]:
    keywords, problems = signature.check(task.options, settings)
    assert not problems
    found: list[float] = task.condition(task.options(**keywords)).tolist()
    return found


def test_options_follow_from_the_operators() -> None:
    task = ConditionedOperator(["rof", "l0", "rof:weight=0.1"])
    assert told(task, operator="l0") == [0, 1, 0]
    assert told(task, operator="rof:weight=0.1") == [0, 0, 1]
    assert told(task, blend=["rof:0.25", "l0:0.75"]) == [0.25, 0.75, 0]
    assert told(task, blend=["rof:weight=0.1:0.5", "rof:0.5"]) == [0.5, 0, 0.5]
    assert signature.check(task.options, {"operator": "rtv"})[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name the operator, as in --set operator=rof"),
        ({"operator": "rof", "blend": ["l0:1"]}, "operator and blend: choose one"),
        ({"blend": ["rof:0.5"]}, "the shares add up to 0.5, not to 1"),
        ({"blend": ["rof:0.5", "l0:0.6"]}, "the shares add up to 1.1, not to 1"),
        ({"blend": ["rof:1.5", "l0:-0.5"]}, "is not NAME:SHARE with a share from 0 to 1"),
        ({"blend": ["rof:nan", "l0:1"]}, "is not NAME:SHARE"),
        ({"blend": ["rof", "l0"]}, "is not NAME:SHARE"),
        ({"blend": ["rtv:1"]}, r"'rtv' is no operator of this network \(there are: rof, l0\)"),
        ({"blend": ["rof:0.5", "rof:0.5"]}, "'rof' is named twice"),
        ({"blend": []}, "the shares add up to 0, not to 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_choice_that_is_none_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        told(ConditionedOperator(["rof", "l0"]), **settings)


def test_a_dial_is_refused_outside_of_its_range() -> None:
    task = ConditionedOperator(**DIAL)
    assert told(task) == pytest.approx([1.0])
    assert told(task, **{"lambda": 0.002}) == pytest.approx([0.2])
    with pytest.raises(UsageError, match="was trained from 0.002 to 0.02; --set force=true"):
        told(task, **{"lambda": 0.5})
    assert told(task, **{"lambda": 0.5, "force": True}) == pytest.approx([50.0])
    schema, _ = signature.json_schema(task.options)
    assert (schema["lambda"]["minimum"], schema["lambda"]["maximum"]) == (0.002, 0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operators": ["rof"]}, "of one operator the task is image_operator"),
        ({"operators": ["rof", "nope"]}, "operators: there is no operator 'nope'"),
        ({"operators": ["rof", "rof:weight=0.055"]}, "'rof:weight=0.055' is named twice"),
        ({"operators": ["rof", "l0"], "weights": [1.0]}, "weights: one for each of 2 operators"),
        ({**DIAL, "weights": [1.0]}, "none with a dial"),
        ({"operators": ["rof", "l0"], "dial": {"lambda": [0.002, 0.02]}}, "one setting of one operator"),
        ({"operators": ["l0"], "dial": {"lambda": [0.02, 0.002]}}, "is no range"),
        ({"operators": ["l0"], "dial": {"lambda": [0.0, 0.02]}}, "is no range"),
        (
            {"operators": ["l0"], "dial": {"lambda": [0.002, 7.0]}},
            "dial.lambda: operator l0: 'lambda' should be less",
        ),
        (
            {"operators": ["l0"], "dial": {"sigma": [1.0, 2.0]}},
            "dial.sigma: operator l0: unknown key 'sigma'",
        ),
        (
            {"operators": ["l0:lambda=0.01"], "dial": {"lambda": [0.002, 0.02]}},
            "'l0:lambda=0.01' sets it already",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_task_that_is_none_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ConditionedOperator(**arguments)


def test_the_network_must_take_a_condition() -> None:
    task = ConditionedOperator(["rof", "l0"])
    plain = Component(kind="model", name="can24", arguments={})
    with pytest.raises(UsageError, match=r"model.condition: .* takes planes \(as published\) or film"):
        task.prepare(None, None, plain)  # type: ignore[arg-type]
    film = Component(kind="model", name="can24", arguments={"condition": "film"})
    assets, sizes = task.prepare(None, None, film)  # type: ignore[arg-type]
    assert sizes == {"in_channels": 3, "out_channels": 3, "conditions": 2}
    task.use(assets)
    ConditionedOperator(["rof:weight=0.055", "l0"]).use(assets)  # the same, in other words
    for other in (ConditionedOperator(["l0", "rof"]), ConditionedOperator(**DIAL)):
        with pytest.raises(CompressnetError, match="the stored assets: operators: they are not those"):
            other.use(assets)


@pytest.mark.parametrize("condition", ["planes", "film"])
def test_loss_and_prediction_hear_the_condition(condition: Any) -> None:
    task, net = ConditionedOperator(["rof", "l0"]), lively(condition, 2)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    samples = [
        image_pair(pixels, pixels, "a, rof", 0, (1.0, 0.0), "rof"),
        image_pair(pixels, pixels, "a, l0", 1, (0.0, 1.0), "l0"),
    ]
    batch = collate_pairs(samples)
    outputs = task.outputs(net, batch, ()).values
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-3)
    found, _ = task.predict(net, batch, ())
    rounded = outputs.detach().clamp(0, 1).mul(255).round().int()
    assert (found.int() - rounded).abs().max() <= 1
    metrics = task.metrics()
    metrics.update(found, batch)
    rows = metrics.compute()
    assert {key for key in rows if key.startswith("mse/")} == {"mse/rof", "mse/l0"}
    assert rows["mse"] == pytest.approx((rows["mse/rof"] + rows["mse/l0"]) / 2)
    assert set(metrics.details()["samples"]) == {"a, rof", "a, l0"}


def test_planes_by_hand_are_the_same(tmp_path: Any) -> None:
    net, x, condition = lively("planes", 3), torch.rand(2, 3, 9, 11), torch.rand(2, 3)
    by_hand = torch.cat([x, condition[:, :, None, None].expand(-1, -1, 9, 11)], dim=1)
    with torch.no_grad():
        assert torch.equal(net(x, condition), net(by_hand))


def test_film_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    plain = CAN(5, 8, kernels="mixed")
    film = CAN(5, 8, kernels="mixed", condition="film", conditions=2)
    film.load_state_dict({**film.state_dict(), **plain.state_dict()})
    x = torch.rand(1, 3, 10, 10)
    for condition in ([1.0, 0.0], [0.3, -2.0]):
        torch.testing.assert_close(film(x, torch.tensor(condition)), plain(x))
    assert (
        sum(p.numel() for p in film.parameters())
        == sum(p.numel() for p in plain.parameters()) + 3 * 2 * 8 * 4
    )


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"condition": "film", "conditions": 2}, None, "takes a condition of 2 numbers"),
        ({"condition": "planes", "conditions": 2}, None, "takes a condition of 2 numbers"),
        ({"condition": "film", "conditions": 2}, torch.rand(1, 3), "a condition of 2 numbers for each image"),
        ({}, torch.rand(1, 3), "takes no condition"),
    ],
)
def test_a_wrong_condition_is_refused(options: dict[str, Any], given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CAN(4, 8, **options)(torch.rand(1, 3, 8, 8), given)


@pytest.mark.parametrize("options", [{"condition": "film"}, {"conditions": 3}])
def test_a_network_of_no_condition_has_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="takes condition 'planes' or 'film'"):
        CAN(4, 8, **options)
