"""VisionTransformerClsHead against MMPretrain, and DeiTClsHead, of which there is no record."""

import json

import numpy as np
import pytest
import torch
from mmpretrain_reference import FOLDER, assert_close, fill

from distcls.errors import UserError
from distcls.models.heads import DeiTClsHead, VisionTransformerClsHead
from distcls.registry import HEADS

RECORDS = json.loads((FOLDER / "heads_necks.json").read_text())
ARRAYS = np.load(FOLDER / "heads_necks.npz")
CASES = [case for case in RECORDS if case["cfg"]["type"] == "VisionTransformerClsHead"]
TOKENS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"hidden={case['cfg'].get('hidden_dim')}")
def test_equal_to_mmpretrain(case: dict) -> None:
    head = HEADS.build(case["cfg"])
    assert [[key, list(entry.shape)] for key, entry in head.state_dict().items()] == [key[:2] for key in case["keys"]]
    fill(head, case["keys"])
    token = torch.from_numpy(ARRAYS[case["feats"][0]])
    for features in (token, (token,), ([torch.zeros(4, 8, 7, 7), token],)):
        assert_close(head(features), ARRAYS[case["logits"]])
        assert_close(head.pre_logits(features), ARRAYS[case["pre_logits"]])
    loss = head.loss(head(token), torch.tensor([1, 0, 2, 2]))["loss"]
    assert loss.item() == pytest.approx(case["loss[gt_label]"]["loss"], rel=1e-5)


@pytest.mark.parametrize("hidden_dim", [None, 6])
def test_deit_head_is_the_mean_of_two_heads(hidden_dim: int | None) -> None:
    head = DeiTClsHead(num_classes=3, in_channels=8, hidden_dim=hidden_dim)
    cls_token, dist_token = TOKENS, TOKENS.flip(0)
    features = (head.hidden(cls_token), head.hidden(dist_token))
    expected = (head.layers.head(features[0]) + head.layers.head_dist(features[1])) / 2
    for given in ((cls_token, dist_token), ((cls_token, dist_token),), ([torch.zeros(1), cls_token, dist_token],)):
        assert torch.equal(head(given), expected)
    assert head.state_dict().keys() >= {"layers.head.weight", "layers.head_dist.weight"}


def test_every_class_is_equally_likely_at_the_start() -> None:
    for head in (VisionTransformerClsHead(5, 8, hidden_dim=6), DeiTClsHead(num_classes=5, in_channels=8)):
        head.init_weights()
        assert torch.equal(head((TOKENS, TOKENS) if isinstance(head, DeiTClsHead) else TOKENS), torch.zeros(4, 5))


def test_a_map_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        VisionTransformerClsHead(3, 8)(torch.zeros(2, 8, 7, 7))
    assert str(caught.value) == (
        "VisionTransformerClsHead: got features of shape (2, 8, 7, 7), expected a class token (N, C): a backbone with out_type 'cls_token' gives one"
    )
