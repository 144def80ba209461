"""Precision, recall, F1, confusion, mAP and calibration: MMPretrain's numbers, and the same ones on two ranks."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision, binary_calibration_error

from distcls.engine.evaluation.class_metrics import ClassMetrics
from distcls.engine.evaluation.class_scores import average_precision, calibration_error
from distcls.models.heads import ClsHead, MultiLabelClsHead
from tests.engine.evaluation.two_ranks import on_two_ranks

FOLDER = Path(__file__).parent / "reference"
RECORDS = [case for case in json.loads((FOLDER / "metrics.json").read_text()) if case["op"] == "metric"]
ARRAYS = {
    name.removeprefix("in.").removesuffix("(-1)"): array for name, array in np.load(FOLDER / "metrics.npz").items()
}
NAMES = {"precision": "precision", "recall": "recall", "f1-score": "f1", "support": "support"}
ALL = ["precision", "recall", "f1", "confusion", "calibration", "map"]
CPU = torch.device("cpu")


class Given:
    """Makes a head's probabilities those of the record."""

    def scores(self, cls_score: torch.Tensor) -> torch.Tensor:
        return cls_score


class Single(Given, ClsHead):
    pass


class Multi(Given, MultiLabelClsHead):
    pass


def collector(head, rank: int = 0, world_size: int = 1) -> ClassMetrics:
    names = [f"class {number}" for number in range(6)]
    return ClassMetrics(ALL, head=head, class_names=names, device=CPU, world_size=world_size)


def add_share(metrics: ClassMetrics, scores, target, rank: int = 0, world_size: int = 1, batch: int = 7) -> None:
    """The batches that EvalLoader would give a rank: padded to the same number and size on every rank."""
    steps = -(-len(scores) // (batch * world_size))
    for step in range(steps):
        start = (step * world_size + rank) * batch
        index = torch.arange(start, start + batch)
        index[index >= len(scores)] = -1
        metrics.add(scores[index], target[index], index)


def measured(head, scores: str, target: str) -> tuple[dict, dict]:
    metrics = collector(head)
    add_share(metrics, torch.from_numpy(ARRAYS[scores]), torch.from_numpy(ARRAYS[target]))
    return metrics.result(), metrics.per_class


def expected(kind: str, **options) -> list[tuple[dict, dict]]:
    return [
        (case, case["out"])
        for case in RECORDS
        if case["cfg"]["type"] == kind and isinstance(case["out"], dict)
        if all(case["cfg"].get(key) == value for key, value in options.items())
    ]


def assert_equals(record: dict, whole: dict, per_class: dict) -> None:
    """MMPretrain's percentages with ours, by the record's names."""
    for key, value in record.items():
        item = key.split("/")[1]
        name = NAMES[item.split("_")[0]]
        if item.endswith("_classwise"):
            factor = 1 if name == "support" else 100
            assert [factor * row[name] for row in per_class["classes"]] == pytest.approx(value, rel=1e-6)
        elif name == "support":
            assert sum(row["support"] for row in per_class["classes"]) == value
        else:
            assert 100 * whole[name + ("_micro" if item.endswith("_micro") else "")] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("average", ["macro", "micro", None])
def test_single_label(average) -> None:
    whole, per_class = measured(Single(), "pred_score", "gt_label")
    cases = [out for case, out in expected("SingleLabelMetric", average=average) if "thrs" not in case["cfg"]]
    assert len(cases) == 2
    for out in cases:
        assert_equals(out, whole, per_class)


def test_confusion_matrix() -> None:
    _, per_class = measured(Single(), "pred_score", "gt_label")
    [_, (_, out)] = expected("ConfusionMatrix")
    assert per_class["confusion"] == out["confusion_matrix/result"]


@pytest.mark.parametrize("target", ["ml_gt", "ml_gt_difficult"])
@pytest.mark.parametrize("options", [{}, {"thr": 0.3}, {"topk": 2}, {"thr": 0.3, "topk": 2}], ids=str)
def test_multi_label(options, target) -> None:
    whole, per_class = measured(Multi(**options), "ml_score", target)
    asked = {"thr": None, "topk": None, **options}
    cases = [out for case, out in expected("MultiLabelMetric", **asked) if case["inputs"] == target]
    assert len(cases) == 3  # macro, micro, each class
    for out in cases:
        assert_equals(out, whole, per_class)


@pytest.mark.parametrize("target", ["ml_gt", "ml_gt_difficult"])
def test_average_precision_counts_a_class_without_positives_as_0(target) -> None:
    whole, per_class = measured(Multi(), "ml_score", target)
    macro, each = [out for case, out in expected("AveragePrecision") if case["inputs"] == target]
    assert 100 * whole["map"] == pytest.approx(macro["multi-label/mAP"], rel=1e-5)
    assert [100 * row["ap"] for row in per_class["classes"]] == pytest.approx(
        each["multi-label/AP_classwise"], rel=1e-5
    )
    assert per_class["classes"][5]["ap"] == 0


def test_equal_scores_make_one_point_of_the_curve() -> None:
    scores = torch.tensor([[0.5], [0.5], [0.5], [0.1]])
    for target in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]):
        assert average_precision(scores, torch.tensor(target)[:, None]).item() == pytest.approx(1 / 3)


def test_average_precision_is_torchmetrics() -> None:
    """Of scores of few values, entries that do not count, and classes without positives and without images."""
    generator = torch.Generator().manual_seed(0)
    scores = (torch.rand(60, 7, generator=generator) * 12).round() / 12
    target = torch.randint(-1, 2, (60, 7), generator=generator)
    target[:, 3], target[:, 4], scores[:, 5] = -1, 0, 0.25
    found = average_precision(scores, target)
    for number in (0, 1, 2, 5, 6):
        theirs = binary_average_precision(scores[:, number], target[:, number], ignore_index=-1)
        assert found[number].item() == pytest.approx(theirs.item(), rel=1e-6)
    assert found[3:5].tolist() == [0, 0]
    assert average_precision(scores[:0], target[:0]).tolist() == [0] * 7


def test_confusion_of_each_class_of_a_multi_label_head() -> None:
    metrics = collector(Multi())
    scores = torch.zeros(4, 6)
    scores[:, 0] = torch.tensor([0.9, 0.8, 0.1, 0.2])
    target = torch.zeros(4, 6)
    target[:, 0] = torch.tensor([1, 0, 1, 0])
    metrics.add(scores, target, torch.arange(4))
    metrics.result()
    assert metrics.per_class["confusion"][0] == [[1, 1], [1, 1]]
    assert metrics.per_class["confusion"][1] == [[4, 0], [0, 0]]


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: 0.81 and 0.82 share one (accuracy 1/2), 0.99 is alone and right.
    confidence, right = torch.tensor([0.81, 0.82, 0.99]), torch.tensor([True, False, True])
    assert calibration_error(confidence, right) == pytest.approx(2 / 3 * (0.815 - 0.5) + 1 / 3 * 0.01, abs=1e-6)


def test_confidence_1_shares_the_last_bin() -> None:
    confidence, right = torch.tensor([1.0, 0.94]), torch.tensor([False, True])
    assert calibration_error(confidence, right) == pytest.approx(0.97 - 0.5)


def test_scores_that_are_not_numbers_rank_nothing() -> None:
    target = torch.tensor([[1], [0], [0], [0]])
    assert average_precision(torch.full((4, 1), torch.nan), target).item() == pytest.approx(1 / 4)
    assert math.isnan(calibration_error(torch.tensor([torch.nan, 0.5]), torch.tensor([True, False])))


def test_calibration_of_one_label_is_that_of_the_highest_score() -> None:
    whole, _ = measured(Single(), "pred_score", "gt_label")
    scores, label = torch.from_numpy(ARRAYS["pred_score"]), torch.from_numpy(ARRAYS["gt_label"])
    confidence, best = scores.max(dim=1)
    assert whole["ece"] == calibration_error(confidence, best == label)
    theirs = binary_calibration_error(confidence, (best == label).long(), n_bins=15)  # no confidence is 1 here
    assert whole["ece"] == pytest.approx(theirs.item(), abs=1e-6)


def test_one_evaluation_after_another_starts_from_nothing() -> None:
    metrics = collector(Single())
    results = []
    for _ in range(2):
        add_share(metrics, torch.from_numpy(ARRAYS["pred_score"]), torch.from_numpy(ARRAYS["gt_label"]))
        results.append((metrics.result(), metrics.per_class))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("head", "scores", "target"), [(Single(), "pred_score", "gt_label"), (Multi(), "ml_score", "ml_gt")]
)
def test_two_ranks_give_the_same_bits(head, scores, target, tmp_path) -> None:
    """40 images in batches of 7: the second rank's last batch is padding alone."""

    def on_rank(rank):
        metrics = collector(head, world_size=2)
        add_share(metrics, torch.from_numpy(ARRAYS[scores]), torch.from_numpy(ARRAYS[target]), rank, 2)
        return metrics.result(), metrics.per_class

    assert on_two_ranks(on_rank, tmp_path) == [measured(head, scores, target)] * 2
