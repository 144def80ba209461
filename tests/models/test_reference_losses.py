"""Losses against MMPretrain: values, gradients, reductions, avg_factor, and what is refused."""

import json

import numpy as np
import pytest
import torch
from mmpretrain_reference import FOLDER, assert_close
from timm.loss import BinaryCrossEntropy

from distcls.errors import UserError
from distcls.models.losses import l1_loss, weighted_loss
from distcls.registry import LOSSES

TYPES = ("CrossEntropyLoss", "LabelSmoothLoss", "FocalLoss", "AsymmetricLoss", "SeesawLoss")
RECORDS = json.loads((FOLDER / "losses.json").read_text())
ARRAYS = np.load(FOLDER / "losses.npz")
CASES = [case for case in RECORDS if case["op"] == "loss" and case["cfg"]["type"] in TYPES]


def name(case: dict) -> str:
    options = [f"{key}={value}" for key, value in case["cfg"].items() if key != "type"]
    return "-".join([case["cfg"]["type"], *options, case["target"], *case["call"]])


def call(case: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores, and the loss that the case's call gives for them."""
    loss = LOSSES.build(case["cfg"])
    scores = torch.from_numpy(ARRAYS["in.cls_score"]).requires_grad_()
    target = torch.from_numpy(ARRAYS[f"in.{case['target']}"])
    arguments = dict(case["call"])
    if "weight" in arguments:
        arguments["weight"] = torch.from_numpy(ARRAYS["in.weight"])
    return scores, loss(scores, target, **arguments)


@pytest.mark.parametrize("case", [case for case in CASES if "out" in case], ids=name)
def test_value_and_gradient(case: dict) -> None:
    scores, loss = call(case)
    assert list(loss.shape) == case["shape"]
    assert_close(loss, ARRAYS[case["out"]])
    loss.sum().backward()
    assert_close(scores.grad, ARRAYS[case["grad_of_sum"]])


def takes_class_numbers(case: dict) -> bool:
    """Cross entropy with targets per class, of class numbers: ours means one yes among noes."""
    per_class = case["cfg"].get("use_sigmoid") or case["cfg"].get("use_soft")
    return per_class is True and case["target"] == "label" and "ValueError" not in case["raises"]


REFUSED = [case for case in CASES if "raises" in case and not takes_class_numbers(case)]


@pytest.mark.parametrize("case", REFUSED, ids=name)
def test_what_mmpretrain_refuses_is_refused(case: dict) -> None:
    if case["raises"].startswith("ValueError"):
        with pytest.raises(ValueError, match=case["raises"].removeprefix("ValueError: ")):
            call(case)
    else:  # an AssertionError or a broadcasting error there: mistakes in a recipe, and here a message
        with pytest.raises(UserError):
            call(case)


def test_every_case_is_covered() -> None:
    losses = [case for case in RECORDS if case["op"] == "loss"]
    assert len([case for case in CASES if "out" in case or "raises" in case]) == len(losses)


def test_seesaw_counts_what_it_has_seen() -> None:
    [sequence] = [case for case in RECORDS if case["op"] == "loss.sequence"]
    loss = LOSSES.build(sequence["cfg"])
    assert list(loss.state_dict()) == sequence["state_dict"]
    scores = torch.from_numpy(ARRAYS["in.cls_score"])
    for step in sequence["steps"]:
        assert loss(scores, torch.tensor(step["label"])).item() == pytest.approx(step["out"], rel=1e-5)
        assert loss.cum_samples.tolist() == step["cum_samples"]
    loss.eval()(scores, torch.tensor([4] * 6))
    assert loss.cum_samples.tolist() == step["cum_samples"]  # evaluation does not count


@pytest.mark.parametrize("case", [case for case in RECORDS if case["op"] == "weighted_loss(l1)"], ids=str)
def test_weighted_loss(case: dict) -> None:
    arguments = dict(case["call"])
    if "weight" in arguments:
        arguments["weight"] = torch.tensor(arguments["weight"])
    pred, target = (torch.tensor(case[key], dtype=torch.float32) for key in ("pred", "target"))
    if isinstance(case["out"], str):
        with pytest.raises(ValueError, match=case["out"].removeprefix("ValueError: ")):
            l1_loss(pred, target, **arguments)
    else:
        assert l1_loss(pred, target, **arguments).tolist() == pytest.approx(case["out"])


@pytest.mark.parametrize("label", [torch.tensor([2, 0]), torch.tensor([[0.3, 0.0, 0.7], [0.5, 0.5, 0.0]])])
def test_sigmoid_cross_entropy_takes_class_numbers_and_mixed_labels(label: torch.Tensor) -> None:
    scores = torch.tensor([[0.5, -1.0, 2.0], [1.0, 3.0, -2.0]])
    each = torch.nn.functional.one_hot(label, 3).float() if label.ndim == 1 else label
    chance = scores.sigmoid()
    expected = -(each * chance.log() + (1 - each) * (1 - chance).log()).sum() / 2
    loss = LOSSES.build({"type": "CrossEntropyLoss", "use_sigmoid": True})
    assert loss(scores, label, avg_factor=2).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("class_weight", [None, [1.0, 2.0, 0.5]])
def test_soft_cross_entropy_takes_class_numbers(class_weight: list[float] | None) -> None:
    """A recipe that mixes only some batches, and every evaluation, has them."""
    scores, label = torch.tensor([[0.5, -1.0, 2.0], [1.0, 3.0, -2.0]]), torch.tensor([2, 0])
    soft, plain = (
        LOSSES.build({"type": "CrossEntropyLoss", "use_soft": use_soft, "class_weight": class_weight})
        for use_soft in (True, False)
    )
    torch.testing.assert_close(soft(scores, label), plain(scores, label))


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2, 0.5])
@pytest.mark.parametrize("kind", ["mixed", "class numbers"])
def test_target_threshold_is_timms(kind: str, threshold: float | None) -> None:
    """Images mixed in any shares, an image with itself and one below the threshold among them."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(64, 7, generator=generator)
    one, two = torch.randint(7, (2, 64), generator=generator)
    share = torch.rand(64, 1, generator=generator)
    share[:3, 0] = torch.tensor([0.2, 0.8, 1.0])
    mixed = share * torch.nn.functional.one_hot(one, 7) + (1 - share) * torch.nn.functional.one_hot(two, 7)
    target = mixed if kind == "mixed" else one
    loss = LOSSES.build({"type": "CrossEntropyLoss", "use_sigmoid": True, "target_threshold": threshold})
    theirs = BinaryCrossEntropy(smoothing=0.0, target_threshold=threshold)
    torch.testing.assert_close(loss(scores, target), theirs(scores, target))
    if kind == "mixed" and threshold == 0.2:
        assert not loss(scores, target).isclose(BinaryCrossEntropy(smoothing=0.0)(scores, target), rtol=1e-3)


@pytest.mark.parametrize(
    ("block", "label", "message"),
    [
        (
            {"type": "CrossEntropyLoss", "use_soft": True},
            torch.zeros(2, 4),
            "CrossEntropyLoss.use_soft: needs a target per class, got targets (2, 4) for scores (2, 3)",
        ),
        (
            {"type": "CrossEntropyLoss", "use_sigmoid": True},
            torch.zeros(2, 4),
            "CrossEntropyLoss.use_sigmoid: needs a target per class, got targets (2, 4) for scores (2, 3)",
        ),
        (
            {"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0]},
            torch.zeros(2, dtype=torch.int64),
            "CrossEntropyLoss.class_weight: got 2 values, expected one for each of 3 classes",
        ),
        (
            {"type": "LabelSmoothLoss", "label_smooth_val": 0.1, "num_classes": 5},
            torch.zeros(2, dtype=torch.int64),
            "LabelSmoothLoss.num_classes: got 5, but the head has 3",
        ),
        (
            {"type": "L1Loss"},
            torch.zeros(2, 4),
            "L1Loss: got targets (2, 4), expected the scores' shape (2, 3)",
        ),
        (
            {"type": "FocalLoss"},
            torch.zeros(2, 1),
            "FocalLoss: got targets (2, 1), expected the scores' shape (2, 3)",
        ),
        (
            {"type": "SeesawLoss", "num_classes": 5},
            torch.zeros(2, dtype=torch.int64),
            "SeesawLoss.num_classes: got 5, but the head has 3",
        ),
        (
            {"type": "SeesawLoss", "num_classes": 3},
            torch.zeros(2, 3),
            "SeesawLoss: got targets (2, 3), expected class numbers (N,)",
        ),
    ],
)
def test_message_for_a_target_that_does_not_fit(block: dict, label: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError) as caught:
        LOSSES.build(block)(torch.zeros(2, 3), label)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"type": "CrossEntropyLoss", "use_soft": True, "use_sigmoid": True},
            "CrossEntropyLoss: use_sigmoid and use_soft exclude each other",
        ),
        (
            {"type": "CrossEntropyLoss", "pos_weight": [1.0]},
            "CrossEntropyLoss.pos_weight: weighs the positives of a sigmoid loss, expected use_sigmoid: true",
        ),
        (
            {"type": "CrossEntropyLoss", "target_threshold": 0.2},
            "CrossEntropyLoss.target_threshold: makes the targets of a sigmoid loss 0 or 1, expected use_sigmoid: true",
        ),
        (
            {"type": "CrossEntropyLoss", "use_sigmoid": True, "target_threshold": 1},
            "CrossEntropyLoss.target_threshold: got 1, expected 0 or more and below 1",
        ),
        (
            {"type": "LabelSmoothLoss", "label_smooth_val": 1.0},
            "LabelSmoothLoss.label_smooth_val: got 1.0, expected 0 <= value < 1",
        ),
        (
            {"type": "LabelSmoothLoss", "label_smooth_val": 0.1, "mode": "multi_label", "use_sigmoid": False},
            "LabelSmoothLoss.use_sigmoid: got False, but mode multi_label is a sigmoid loss",
        ),
    ],
)
def test_message_for_arguments_that_do_not_fit(block: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        LOSSES.build(block)
    assert str(caught.value) == message


def test_l1_as_the_tutorial_specifies_it() -> None:
    scores = torch.tensor([[0.0, 2.0, 3.0]], requires_grad=True)
    target = torch.ones(1, 3)
    l1 = LOSSES.build({"type": "L1Loss", "loss_weight": 2.0})
    assert l1(scores, target).item() == pytest.approx(2 * (1 + 1 + 2) / 3)
    assert l1(scores, target, reduction_override="sum").item() == 8
    assert l1(scores, target, reduction_override="none").tolist() == [[2, 2, 4]]
    weight = torch.tensor([[1.0, 0.0, 1.0]])
    assert l1(scores, target, weight, avg_factor=2).item() == 3
    assert l1(scores, torch.tensor([1]), reduction_override="none").tolist() == [[0, 2, 6]]
    l1(scores, target).backward()
    assert torch.allclose(scores.grad, torch.tensor([[-2.0, 2.0, 2.0]]) / 3)


def test_weighted_loss_passes_keywords_on_and_keeps_the_name() -> None:
    @weighted_loss
    def power_loss(pred: torch.Tensor, target: torch.Tensor, power: int = 1) -> torch.Tensor:
        return (pred - target) ** power

    assert power_loss.__name__ == "power_loss"
    assert power_loss(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 1.0]), power=2).item() == 2.5
    with pytest.raises(ValueError, match='avg_factor can not be used with reduction="sum"'):
        power_loss(torch.ones(2), torch.ones(2), avg_factor=2, reduction="sum")


def test_smoothed_labels_keep_their_precision_for_bfloat16_scores() -> None:
    loss = LOSSES.build({"type": "LabelSmoothLoss", "label_smooth_val": 0.1})
    target = loss.smooth_label(torch.tensor([0]), torch.zeros(1, 1000, dtype=torch.bfloat16))
    assert target.dtype == torch.float32
    assert target.sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "FocalLoss", "gamma": 0.5},
        {"type": "AsymmetricLoss", "gamma_neg": 0.5},
        {"type": "AsymmetricLoss", "gamma_pos": 0.5, "clip": 0.0},
    ],
    ids=str,
)
def test_certain_scores_have_gradients_with_exponents_below_one(block: dict) -> None:
    """The root has no derivative at 0, where an image is that is surely right, or a negative that is forgotten."""
    scores = torch.tensor([[40.0, -40.0, -4.0, 0.5]], requires_grad=True)
    loss = LOSSES.build(block)(scores, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()
    assert scores.grad[0, 3] > 0


def test_losses_in_float64() -> None:
    loss = LOSSES.build({"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0, 0.5]}).double()
    assert loss(torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 1])).dtype == torch.float64


@pytest.mark.parametrize("block", [{"type": "CrossEntropyLoss"}, {"type": "LabelSmoothLoss", "label_smooth_val": 0.0}])
def test_class_weights_from_the_training_set(block: dict) -> None:
    loss = LOSSES.build({**block, "class_weight": "auto"})
    scores, label = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1])
    with pytest.raises(UserError) as caught:
        loss(scores, label)
    assert str(caught.value) == f"{block['type']}.class_weight: auto needs the training set's counts: set_class_counts"
    [weighing] = [part for part in loss.modules() if hasattr(part, "set_class_counts")]
    weighing.set_class_counts([30, 10, 0])
    weights = [40 / (2 * 30), 40 / (2 * 10), 0.0]  # 30 images of the first and 10 of the second: 1 in the mean
    assert weighing.class_weight.tolist() == pytest.approx(weights)
    expected = LOSSES.build({**block, "class_weight": weights})
    assert loss(scores, label).item() == pytest.approx(expected(scores, label).item())
    assert "class_weight" not in "".join(loss.state_dict())


def test_class_weights_from_the_training_set_in_float64() -> None:
    """They are known only when the model has its type and lies on its device."""
    loss = LOSSES.build({"type": "CrossEntropyLoss", "class_weight": "auto"}).double()
    loss.set_class_counts([30, 10, 0])
    assert loss.class_weight.dtype == torch.float64
    assert loss(torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 1])).isfinite()


def test_class_weights_that_are_written_stay() -> None:
    loss = LOSSES.build({"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0]})
    loss.set_class_counts([3, 1])
    assert loss.class_weight.tolist() == [1.0, 2.0]
