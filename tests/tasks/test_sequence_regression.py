"""The task of the 1997 paper: loss, criteria, files, and a problem that is learned in seconds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.data.protocol import Key
from compressnet.data.synthetic import SequenceBatch, Synthetic
from compressnet.errors import CompressnetError
from compressnet.recipe import Recipe
from compressnet.reporter import Silent
from compressnet.run import Run
from compressnet.source import Source
from compressnet.tasks.artefacts import Figures
from compressnet.tasks.sequence_regression import SequenceMetrics, SequenceRegression, are_wrong
from compressnet.training.train import train

RECIPE = Path(__file__).parents[2] / "recipes" / "lstm_1997_tasks.yaml"


class Given(nn.Module):
    """Puts out sums that were given."""

    def __init__(self, sums: Tensor) -> None:
        super().__init__()
        self.sums = nn.Parameter(sums)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.sums, ()


def prepared(problem: Any) -> SequenceRegression:
    task = SequenceRegression()
    assets, model_args = task.prepare(Synthetic(problem).open("train", {}, 0))
    assert model_args == {key: assets[key] for key in ("input_size", "output_size", "problem")}
    task.use(assets)
    return task


def ends(targets: list[list[float]], steps: int = 3) -> SequenceBatch:
    """A batch with targets at its last step."""
    batch, outputs = len(targets), len(targets[0])
    whole = torch.zeros(steps, batch, outputs)
    whole[-1] = torch.tensor(targets)
    scored = torch.zeros(steps, batch, dtype=torch.bool)
    scored[-1] = True
    return SequenceBatch(torch.zeros(steps, batch, 2), whole, scored, None)


def test_the_loss_is_half_the_squared_error_at_the_end() -> None:
    """Linear units: errors 0.2 and -0.1 at the end; what comes before does not count."""
    batch = ends([[0.5], [0.4]])
    sums = torch.tensor([[[9.0], [9.0]], [[9.0], [9.0]], [[0.7], [0.3]]])
    model = Given(sums)
    loss = prepared("adding").loss(model, batch, ())
    assert loss.mean.item() == pytest.approx((0.04 + 0.01) / 2 / 2)
    assert loss.count == 2
    assert loss.logs["error"].item() == pytest.approx(0.15)
    assert loss.logs["wrong"].item() == 1
    assert loss.state == ()
    loss.mean.backward()
    assert model.sums.grad is not None
    assert model.sums.grad[-1].flatten().tolist() == pytest.approx([0.1, -0.05])
    assert not model.sums.grad[:-1].any()


def test_logistic_units_where_the_problem_has_them() -> None:
    batch = ends([[1.0, 0.0, 0.0, 0.0]], steps=1)
    sums = torch.tensor([[[math.log(3.0), 0.0, 0.0, 0.0]]])  # to 0.75 and 0.5
    outputs, _ = prepared("temporal_order_6a").predict(Given(sums), batch, ())
    assert outputs.flatten().tolist() == pytest.approx([0.75, 0.5, 0.5, 0.5])


def test_a_sequence_is_wrong_if_one_output_is_off() -> None:
    batch = ends([[1.0, 0.0], [0.0, 1.0]], steps=1)
    outputs = torch.tensor([[[0.75, 0.25], [0.25, 0.65]]])
    assert are_wrong(outputs, batch, 0.3).tolist() == [False, True]


def test_a_string_is_right_if_the_legal_symbols_are_the_most_active_everywhere() -> None:
    legal = torch.tensor([[[True, True, False]] * 3, [[False, False, True]] * 3])
    scored = torch.tensor([[True, True, True], [True, True, False]])
    outputs = torch.tensor(
        [
            [[0.4, 0.5, 0.3], [0.4, 0.3, 0.3], [0.4, 0.5, 0.3]],  # the second: 0.3 is not more than 0.3
            [[0.0, 0.1, 0.2], [0.0, 0.1, 0.2], [0.9, 0.1, 0.2]],  # the third has ended
        ]
    )
    batch = SequenceBatch(torch.zeros(2, 3, 3), legal.float(), scored, legal)
    assert are_wrong(outputs, batch, None).tolist() == [False, True, False]


def test_metrics_are_over_all_sequences_of_all_ranks() -> None:
    one, other, both = (SequenceMetrics(0.3) for _ in range(3))
    one.update(torch.tensor([[[0.9, 0.4]]]), ends([[1.0, 0.0]], steps=1))
    other.update(torch.tensor([[[0.8, 0.0], [1.0, 0.1]]]), ends([[1.0, 0.0], [1.0, 0.0]], steps=1))
    both.merge([one.state(), other.state()])
    squared, absolute = 0.01 + 0.16 + 0.04 + 0.01, 0.1 + 0.4 + 0.2 + 0.1
    assert both.compute() == pytest.approx(
        {"loss": squared / 2 / 3, "mean_error": absolute / 6, "wrong": 1 / 3}, rel=1e-5
    )


@pytest.mark.parametrize("problem", ["adding", "reber"])
def test_padding_changes_nothing(problem: Any) -> None:
    from compressnet.models.lstm_1997 import lstm_1997_network

    torch.manual_seed(0)
    data, task = Synthetic(problem).open("train", {}, 0), prepared(problem)
    model = lstm_1997_network(**{k: task.assets[k] for k in ("input_size", "output_size", "problem")})
    samples = [data[Key(0, 0, draw)] for draw in range(5)]
    alone = [task.loss(model, data.collate([sample]), ()) for sample in samples]
    together = task.loss(model, data.collate(samples), ())
    assert together.mean.item() == pytest.approx(sum(loss.mean.item() for loss in alone) / 5, rel=1e-5)
    assert together.count == 5


def test_files_of_numbers_and_of_symbols(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("0.5,-1\n0.25,1\n1,-1\n")
    (tmp_path / "text.txt").write_text("EabXcY\n")
    good, symbols = Source.of(tmp_path / "good.csv"), Source.of(tmp_path / "text.txt")
    sums = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    ((source, figures),) = prepared("adding").apply(Given(sums[..., 3:]), [good], {}, Silent())
    assert source == good
    assert figures == Figures({"output_0": 3.0})
    ((_, figures),) = prepared("temporal_order_6a").apply(Given(sums), [symbols], {}, Silent())
    assert isinstance(figures, Figures)
    assert list(figures.values) == ["output_XX", "output_XY", "output_YX", "output_YY"]
    assert list(figures.values.values()) == pytest.approx([1 / (1 + math.exp(-x)) for x in range(4)])


@pytest.mark.parametrize(
    ("problem", "content", "message"),
    [
        ("adding", b"", "no sequence can be read from it: it is empty"),
        ("adding", b"1,2\n3\n", "no sequence can be read"),
        ("adding", b"one,two\n", "no sequence can be read"),
        ("adding", b"\xff\xfe", "no sequence can be read"),
        ("adding", b"1,2,3\n", "has 3 numbers a line, the network takes 2"),
        ("reber", b"BTQ\n", r"\['Q'\] are none of the symbols BTPSXVE"),
    ],
)
def test_bad_files(tmp_path: Path, problem: str, content: bytes, message: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    ((_, error),) = prepared(problem).apply(Given(torch.zeros(1, 1, 1)), [Source.of(path)], {}, Silent())
    assert isinstance(error, CompressnetError)
    assert str(path) in str(error)
    with pytest.raises(CompressnetError, match=message):
        raise error


def test_output_units_can_be_chosen() -> None:
    train = Synthetic("adding").open("train", {}, 0)
    for chosen, expected in ((None, False), (True, True), (False, False)):
        assets, _ = SequenceRegression(chosen).prepare(train)
        assert assets["logistic"] is expected


def test_what_is_drawn() -> None:
    sample = Synthetic("adding").open("val", {}, 0)[Key(0, 0, 0)]
    ((name, text),) = prepared("adding").preview(Given(torch.full((1, 1, 1), 0.25)), [sample])
    assert name == "sequence"
    assert text == f"target {sample.targets[-1].item():.3f}, output 0.250"


def test_a_short_lag_is_learned(tmp_path: Path) -> None:
    """The two-sequence problem with lags of 7 to 8 steps, until none of 200 is wrong."""
    settings = ("data.problem=two_sequence", "data.steps=10", "data.val_count=200", "train.steps=6000")
    run = Run.create(Recipe.load(RECIPE, [*settings, "train.evaluate_every=500"]), tmp_path / "run")
    outcome = train(run, device=torch.device("cpu"))
    assert outcome.best == 0
    assert outcome.step < 6000
