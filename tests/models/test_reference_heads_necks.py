"""Heads and necks against MMPretrain: entries, logits, losses, pooled features."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain_reference import FOLDER, assert_close, draw, fill
from torch import nn

from distcls.errors import UserError
from distcls.models import ImageClassifier
from distcls.registry import HEADS, NECKS

TYPES = (
    "LinearClsHead",
    "StackedLinearClsHead",
    "MultiLabelLinearClsHead",
    "ArcFaceClsHead",
    "GlobalAveragePooling",
    "GeneralizedMeanPooling",
    "LinearNeck",
)
RECORDS = json.loads((FOLDER / "heads_necks.json").read_text())
ARRAYS = np.load(FOLDER / "heads_necks.npz")
CASES = [case for case in RECORDS if case["cfg"]["type"] in TYPES]
TARGETS = {
    "gt_label": torch.tensor([1, 0, 2, 2]),
    "multi_gt_label": torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]),
    "gt_score": torch.from_numpy(ARRAYS["in.gt_score"]),
}


def name(case: dict) -> str:
    return "-".join(f"{key}={value}" for key, value in case["cfg"].items())


@pytest.mark.parametrize("case", [case for case in CASES if case["op"] == "head"], ids=name)
def test_head(case: dict) -> None:
    # accuracy beside the loss is MMPretrain's option cal_acc; here it is always counted
    head = HEADS.build({key: value for key, value in case["cfg"].items() if key != "cal_acc"})
    assert [[key, list(entry.shape)] for key, entry in head.state_dict().items()] == [key[:2] for key in case["keys"]]
    fill(head, case["keys"])
    head.eval()  # dropout
    features = tuple(torch.from_numpy(ARRAYS[key]) for key in case["feats"])
    logits = head(features)
    assert_close(logits, ARRAYS[case["logits"]])
    assert_close(head.pre_logits(features), ARRAYS[case["pre_logits"]])
    assert_close(head.scores(logits), ARRAYS[case["pred_score"]])
    if head.multi_label:
        predicted = [row.nonzero()[:, 0].tolist() for row in head.decide(head.scores(logits))]
        assert predicted == [sorted(labels) for labels in case["pred_label"]]
    for kind in set(TARGETS) & {key[5:-1] for key in case if key.startswith("loss[")}:
        expected = case[f"loss[{kind}]"]
        if isinstance(expected, dict):
            loss = head.forward_train(features, TARGETS[kind])["loss"]
            assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
        elif "cal_acc" not in case["cfg"]:
            # MMPretrain refuses class numbers where the loss has targets per class; ours are a yes for one class
            one_hot = torch.nn.functional.one_hot(TARGETS[kind], head.num_classes).float()
            expected = head.forward_train(features, one_hot)["loss"]
            assert torch.equal(head.forward_train(features, TARGETS[kind])["loss"], expected)


@pytest.mark.parametrize("case", [case for case in CASES if case["op"] == "neck"], ids=name)
def test_neck(case: dict) -> None:
    neck = NECKS.build(case["cfg"]).eval()
    assert [[key, list(entry.shape)] for key, entry in neck.state_dict().items()] == [key[:2] for key in case["keys"]]
    fill(neck, [key for key in case["keys"] if not key[4].startswith("as built")])
    maps = tuple(torch.from_numpy(draw(key, shape)).float() for key, shape in case["feats"])
    outputs = neck(maps)
    assert isinstance(outputs, tuple)
    for found, expected in zip(outputs, case["out"], strict=True):
        assert_close(found, ARRAYS[expected])
    assert torch.equal(neck(maps[0]), outputs[0])
    outputs[0].sum().backward() if any(p.requires_grad for p in neck.parameters()) else None
    assert all(p.grad is not None for p in neck.parameters() if p.requires_grad)


def test_the_exponent_of_generalized_mean_pooling_is_learned_where_asked() -> None:
    assert NECKS.build({"type": "GeneralizedMeanPooling"}).p.requires_grad
    assert not NECKS.build({"type": "GeneralizedMeanPooling", "p_trainable": False}).p.requires_grad


def test_several_losses_are_summed_with_their_weights() -> None:
    smooth = {"type": "LabelSmoothLoss", "label_smooth_val": 0.1}
    focal = {"type": "FocalLoss", "loss_weight": 0.5}
    scores, label = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]), torch.tensor([1, 0])
    head = HEADS.build({"type": "ClsHead", "loss": [smooth, focal, focal]})
    alone = [HEADS.build({"type": "ClsHead", "loss": block}).loss(scores, label)["loss"] for block in (smooth, focal)]
    entries = head.loss(scores, label)
    assert list(entries) == ["loss_LabelSmoothLoss", "loss_FocalLoss", "loss_FocalLoss_2", "top1"]
    whole = ImageClassifier(backbone=nn.Identity(), head=head).loss(scores, label)
    assert whole["loss"].item() == pytest.approx((alone[0] + 2 * alone[1]).item())


def test_arcface_margin_is_for_training_alone() -> None:
    head = HEADS.build({"type": "ArcFaceClsHead", "num_classes": 2, "in_channels": 2, "num_subcenters": 2, "scale": 10})
    with torch.no_grad():
        head.norm_product.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]))
    x, label = torch.tensor([[3.0, 0.0]]), torch.tensor([0])
    assert head(x).tolist() == [[10.0, 0.0]]  # the nearest of two directions
    cosine = torch.cos(torch.tensor(0.5))
    expected = F.cross_entropy(torch.tensor([[10 * cosine, 0.0]]), label)
    trained = head.forward_train(x, label)
    assert trained["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert head.loss(head(x), label)["loss"] < trained["loss"]
    assert trained["top1"] == 1
    trained["loss"].backward()
    assert torch.isfinite(head.norm_product.weight.grad).all()


def test_top_k_counts() -> None:
    head = HEADS.build({"type": "ClsHead", "topk": [1, 2]})
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 5.0, 2.0]])
    entries = head.loss(scores, torch.tensor([0, 1, 2, 1]))
    assert list(entries) == ["loss", "top1", "top2"]
    assert (entries["top1"].item(), entries["top2"].item()) == (2, 3)
    assert entries["top1"].shape == ()
    assert not entries["top1"].requires_grad


def test_top_k_counts_of_soft_labels_follow_the_larger_weight() -> None:
    head = HEADS.build({"type": "ClsHead"})
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    soft = torch.tensor([[0.7, 0.3, 0.0], [0.6, 0.0, 0.4]])
    assert head.loss(scores, soft)["top1"].item() == 1


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"type": "LinearClsHead", "num_classes": 0, "in_channels": 4},
            "LinearClsHead.num_classes: got 0, expected a positive number",
        ),
        (
            {"type": "LinearClsHead", "num_classes": 3},
            "LinearClsHead.in_channels: got None, expected a positive number",
        ),
        ({"type": "ClsHead", "topk": [0]}, "ClsHead.topk: got (0,), expected numbers of at least 1"),
        ({"type": "ClsHead", "topk": []}, "ClsHead.topk: got (), expected numbers of at least 1"),
        ({"type": "ClsHead", "loss": []}, "ClsHead.loss: got an empty list, expected one block at least"),
        (
            {"type": "MultiLabelLinearClsHead", "num_classes": -1, "in_channels": 4},
            "MultiLabelLinearClsHead.num_classes: got -1, expected a positive number",
        ),
        (
            {"type": "StackedLinearClsHead", "num_classes": 2, "in_channels": 4, "mid_channels": []},
            "StackedLinearClsHead.mid_channels: got [], expected a list of positive widths",
        ),
        (
            {"type": "ArcFaceClsHead", "num_classes": 3, "in_channels": 4, "margins": [0.1, 0.2]},
            "ArcFaceClsHead.margins: got 2 values, expected one, or one for each of 3 classes",
        ),
        (
            {"type": "ClsHead", "loss": {"type": "CrossEntropyLoss", "reduction": "sum"}},
            "ClsHead.loss.reduction: got 'sum', expected 'mean': the head's loss is a mean over images",
        ),
    ],
)
def test_messages(block: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        HEADS.build(block)
    assert str(caught.value) == message


def test_linear_head_without_a_pooling_neck_says_what_is_missing() -> None:
    head = HEADS.build({"type": "LinearClsHead", "num_classes": 3, "in_channels": 4})
    with pytest.raises(UserError) as caught:
        head(torch.zeros(2, 4, 7, 7))
    assert str(caught.value) == (
        "LinearClsHead: got features of shape (2, 4, 7, 7), expected (N, C): "
        "add a neck that pools them, such as neck: {type: GlobalAveragePooling}"
    )


def test_stacked_layers_start_as_linear_cls_head_s() -> None:
    torch.manual_seed(0)
    head = HEADS.build({"type": "StackedLinearClsHead", "num_classes": 50, "in_channels": 60, "mid_channels": [40]})
    head.init_weights()
    for layer in head.layers:
        assert layer.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not layer.fc.bias.any()
