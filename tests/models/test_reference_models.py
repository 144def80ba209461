"""Whole models against MMPretrain: entries, parameters, logits, and three steps of training."""

import json

import numpy as np
import pytest
import torch
from mmpretrain_reference import FOLDER, assert_close, assert_equal_to_reference, build, images

NAMES = [
    "resnet18",
    "resnet50",
    "resnetv1d50",
    "resnet18_cifar",
    "resnext50_32x4d",
    "seresnet50",
    "regnetx_400mf",
    "repvgg_a0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2",
    pytest.param("vgg11", marks=pytest.mark.slow),  # 133 million parameters to draw
    "densenet121",
    "efficientnet_b0",
    "alexnet",
    "lenet5",
]


@pytest.mark.parametrize("name", NAMES)
def test_entries_and_logits(name: str) -> None:
    assert_equal_to_reference(name)


def test_three_steps_of_training() -> None:
    record = json.loads((FOLDER / "train_step.json").read_text())
    expected = np.load(FOLDER / "train_step.npz")
    model, _ = build(record["model"])
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batch, labels = images((8, 3, 32, 32)), torch.tensor(record["labels"])
    for i, step in enumerate(record["steps"]):
        loss = model(batch, labels)["loss"]
        assert loss.item() == pytest.approx(step["loss"], rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = model.state_dict()
        assert state["backbone.bn1.num_batches_tracked"] == step["num_batches_tracked"]
        for key in expected.files:
            if key.startswith(f"{i}."):
                assert_close(state[key.removeprefix(f"{i}.")], expected[key], 1e-4)
