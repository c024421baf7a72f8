"""Figures of segmentation: the reference case, Cityscapes' own evaluation, small counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from compressnet.data.label_classes import LabelClasses, label_classes
from compressnet.data.label_image import WholeBatch
from compressnet.tasks.segmentation_metrics import SegmentationMetrics

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "miou.npz"
SMALL = LabelClasses(("a", "b", "c"), (0, 1, 2), ((1, 0, 0), (2, 0, 0), (3, 0, 0)))


def measured(
    classes: LabelClasses, truth: np.ndarray, guess: np.ndarray, instances: np.ndarray | None = None
) -> SegmentationMetrics:
    """Maps of outputs, uint8 (N, H, W)."""
    made = SegmentationMetrics(classes)
    for number in range(len(truth)):
        objects = None if instances is None else torch.from_numpy(instances[number])
        batch = WholeBatch([], [torch.from_numpy(truth[number])], [objects], ["x"])
        made.update([torch.from_numpy(guess[number])], batch)
    return made


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the reference cases are not here")
def test_the_reference_case_is_met_exactly() -> None:
    golden = np.load(GOLDEN)
    classes = label_classes("cityscapes", Path())
    made = measured(classes, golden["gt"], golden["pred"])
    assert (made.confusion[:, :-1] == golden["confusion"]).all()
    figures = made.compute()
    assert figures["mIoU"] == pytest.approx(float(golden["cityscapes_miou"]), abs=1e-15)
    assert figures["category_mIoU"] == pytest.approx(float(golden["cityscapes_category_miou"]), abs=1e-15)
    assert figures["pixel_accuracy"] == float(golden["pixel_acc"])
    assert figures["class_accuracy"] == pytest.approx(float(golden["mean_class_acc"]), abs=1e-15)
    ious = [figures[f"IoU/{name}"] for name in classes.names]
    np.testing.assert_array_equal(ious, golden["cityscapes_iou"])


def test_counts_by_hand() -> None:
    truth = np.array([[[0, 0, 1, 1, 255, 0]]], np.uint8)
    guess = np.array([[[0, 1, 1, 255, 0, 0]]], np.uint8)  # the fourth was taken for "ignored"
    made = measured(SMALL, truth, guess)
    figures = made.compute()
    assert figures["IoU/a"] == 2 / 3
    assert figures["IoU/b"] == 1 / 3  # one found, one missed, one false alarm
    assert "IoU/c" not in figures  # neither there nor predicted
    assert figures["mIoU"] == pytest.approx(1 / 2)
    assert figures["pixel_accuracy"] == 3 / 5
    assert figures["class_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert [figures[f"pixels/{name}"] for name in "abc"] == [3, 2, 0]
    assert made.details()["confusion"]["counts"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert made.details()["confusion"]["ignored"] == [0, 1, 0]
    (name, picture), *_ = made.pictures()
    assert (name, picture.mode) == ("confusion", "RGB")


def test_a_class_that_is_only_predicted_counts_as_a_miss() -> None:
    made = measured(SMALL, np.zeros((1, 1, 4), np.uint8), np.array([[[0, 0, 0, 2]]], np.uint8))
    figures = made.compute()
    assert (figures["IoU/a"], figures["IoU/c"]) == (3 / 4, 0)
    assert figures["mIoU"] == 3 / 8
    assert figures["class_accuracy"] == 3 / 4  # of classes that are there


def test_processes_are_summed() -> None:
    random = np.random.default_rng(0)
    truth, guess = random.integers(0, 3, (2, 4, 8, 8)).astype(np.uint8)
    whole = measured(SMALL, truth, guess)
    halves = [measured(SMALL, truth[part], guess[part]) for part in (slice(1), slice(1, 4))]
    both = SegmentationMetrics(SMALL)
    both.merge([half.state() for half in halves])
    assert both.compute() == whole.compute()


def test_everything_ignored() -> None:
    made = measured(SMALL, np.full((1, 2, 2), 255, np.uint8), np.zeros((1, 2, 2), np.uint8))
    figures = made.compute()
    assert all(np.isnan(figures[name]) for name in ("mIoU", "pixel_accuracy", "class_accuracy"))
    assert [figures[f"pixels/{name}"] for name in "abc"] == [0, 0, 0]


def test_objects_are_scored_as_cityscapes_scores_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official script on the same maps, with pixels that were taken for "ignored", a class that is in
    neither, and one that is only predicted."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # gone in numpy 2.4; the script calls it
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    classes = label_classes("cityscapes", Path())
    ids = np.array(classes.ids)
    random = np.random.default_rng(3)
    truths, guesses, objects, files = [], [], [], []
    for number in range(2):
        blocks = random.integers(0, 34, (8, 16))
        blocks[blocks == 27] = 26  # no truck
        label_ids = np.kron(blocks, np.ones((8, 8), int)).astype(np.uint8)
        with_objects = np.isin(label_ids, range(24, 34))
        numbers = np.kron(random.integers(0, 3, (16, 32)), np.ones((4, 4), int))
        instances = np.where(with_objects, label_ids.astype(np.int32) * 1000 + numbers, label_ids)
        groups = with_objects & (random.random(label_ids.shape) < 0.05)  # objects that nobody told apart
        instances = np.where(groups, label_ids, instances).astype(np.int32)
        known = np.where(np.isin(label_ids, ids), label_ids, 26)
        predicted = np.where(random.random(label_ids.shape) < 0.6, known, random.choice(ids, label_ids.shape))
        predicted = np.where(random.random(label_ids.shape) < 0.05, 0, predicted).astype(np.uint8)
        names = [f"a_{number:06}_000000_gtFine_labelIds.png", f"a_{number:06}_000000_gtFine_instanceIds.png"]
        Pillow.fromarray(label_ids).save(tmp_path / names[0])
        Pillow.fromarray(instances.astype(np.uint16)).save(tmp_path / names[1])
        Pillow.fromarray(predicted).save(tmp_path / f"a_{number:06}_000000_pred.png")
        files.append((str(tmp_path / f"a_{number:06}_000000_pred.png"), str(tmp_path / names[0])))
        outputs = np.full(256, 255, np.uint8)
        outputs[ids] = np.arange(len(ids))
        truths.append(outputs[label_ids])
        guesses.append(outputs[predicted])
        objects.append(instances)
    monkeypatch.setattr(official.args, "quiet", True)
    monkeypatch.setattr(official.args, "JSONOutput", False)
    monkeypatch.setattr(official.args, "evalInstLevelScore", True)
    wanted = official.evaluateImgLists(*map(list, zip(*files, strict=True)), official.args)
    figures = measured(classes, np.stack(truths), np.stack(guesses), np.stack(objects)).compute()
    for name in classes.names:
        assert figures.get(f"IoU/{name}", np.nan) == pytest.approx(wanted["classScores"][name], nan_ok=True)
    for ours, theirs in (
        ("mIoU", "averageScoreClasses"),
        ("category_mIoU", "averageScoreCategories"),
        ("iIoU", "averageScoreInstClasses"),
        ("category_iIoU", "averageScoreInstCategories"),
    ):
        assert figures[ours] == pytest.approx(wanted[theirs], abs=1e-12), ours
