"""Heads and necks against MMPretrain: entries, logits, losses, pooled features."""

import json

import numpy as np
import pytest
import torch
from mmpretrain_reference import FOLDER, assert_close, draw, fill

from distcls.errors import UserError
from distcls.registry import HEADS, NECKS

TYPES = ("LinearClsHead", "GlobalAveragePooling")
RECORDS = json.loads((FOLDER / "heads_necks.json").read_text())
ARRAYS = np.load(FOLDER / "heads_necks.npz")
CASES = [case for case in RECORDS if case["cfg"]["type"] in TYPES]
TARGETS = {"gt_label": torch.tensor([1, 0, 2, 2]), "gt_score": torch.from_numpy(ARRAYS["in.gt_score"])}


def name(case: dict) -> str:
    return "-".join(f"{key}={value}" for key, value in case["cfg"].items())


@pytest.mark.parametrize("case", [case for case in CASES if case["op"] == "head"], ids=name)
def test_head(case: dict) -> None:
    # accuracy beside the loss is MMPretrain's option cal_acc; here it is always counted
    head = HEADS.build({key: value for key, value in case["cfg"].items() if key != "cal_acc"})
    assert [[key, list(entry.shape)] for key, entry in head.state_dict().items()] == [key[:2] for key in case["keys"]]
    fill(head, case["keys"])
    features = tuple(torch.from_numpy(ARRAYS[key]) for key in case["feats"])
    logits = head(features)
    assert_close(logits, ARRAYS[case["logits"]])
    assert_close(head.pre_logits(features), ARRAYS[case["pre_logits"]])
    for kind, target in TARGETS.items():
        expected = case[f"loss[{kind}]"]
        if isinstance(expected, dict):
            assert head.loss(logits, target)["loss"].item() == pytest.approx(expected["loss"], rel=1e-5)
        elif "cal_acc" not in case["cfg"]:
            with pytest.raises(UserError, match="needs a target per class"):
                head.loss(logits, target)


@pytest.mark.parametrize("case", [case for case in CASES if case["op"] == "neck"], ids=name)
def test_neck(case: dict) -> None:
    neck = NECKS.build(case["cfg"])
    maps = tuple(torch.from_numpy(draw(key, shape)).float() for key, shape in case["feats"])
    outputs = neck(maps)
    assert isinstance(outputs, tuple)
    for found, expected in zip(outputs, case["out"], strict=True):
        assert_close(found, ARRAYS[expected])
    assert torch.equal(neck(maps[0]), outputs[0])


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
        "LinearClsHead takes features (N, C), got (2, 4, 7, 7): "
        "add a neck that pools them, such as neck: {type: GlobalAveragePooling}"
    )
