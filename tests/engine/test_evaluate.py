"""Evaluation with flip test-time augmentation: the mean of two logits, each image counted once; what it leaves in a run."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from distcls.data.augmenting.draws import AUGMENT_VERSION
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.jpeg_window import window_decoder
from distcls.data.loader import EvalLoader
from distcls.data.sampling.order import ORDER_VERSION
from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.engine.evaluate import evaluate
from distcls.models import build_classifier
from distcls.tracking.jsonl import read_events, read_rows
from tests.engine.launching import PLAIN, launch

BLOCK = {
    "backbone": {"type": "ResNet_CIFAR", "depth": 18, "stem_channels": 4, "base_channels": 4},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {"type": "LinearClsHead", "num_classes": 5, "topk": [1, 3]},
}


def test_flip_is_the_mean_of_both_logits_over_each_image_once(tiny_data: Path) -> None:
    """103 images in batches of 40: the last one is padded."""
    torch.manual_seed(0)
    model = build_classifier(BLOCK, (16, 16)).double()
    torch.nn.init.normal_(model.head.fc.weight, std=3)
    loader = EvalLoader(
        BetonDataset(tiny_data / "val.beton"),
        resolution=16,
        crop_ratio=0.9,
        batch_size=40,
        workers=1,
        device="cpu",
        dtype=torch.float64,
    )
    shape = {"device": torch.device("cpu"), "world_size": 1, "autocast": nullcontext}
    plain, flipped = (evaluate(model, model, loader, tta=tta, **shape) for tta in (None, "flip"))

    model.eval()
    with loader.batches() as batches, torch.no_grad():
        every = [(batch.images[: batch.count].clone(), batch.target[: batch.count]) for batch in batches]
        images, target = (torch.cat(parts) for parts in zip(*every, strict=True))
        logits = torch.stack([model(images), model(images.flip(-1))]).mean(0)
    assert flipped["n"] == plain["n"] == 103
    assert flipped["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item(), rel=1e-9)
    assert flipped["top1"] * 103 == pytest.approx((logits.argmax(1) == target).sum().item())
    assert flipped["loss"] != plain["loss"]


@pytest.mark.slow
def test_a_run_says_how_it_was_evaluated(tiny_recipe: Path, tmp_path: Path) -> None:
    code, output = launch(PLAIN, tiny_recipe, "train.epochs=1", "eval.tta=flip", "train.ema={decay: 0.9}")
    assert code == 0, output
    run = tmp_path / "run"
    [attempt] = json.loads((run / "run.json").read_text())["attempts"]
    assert attempt["versions"]["jpeg"] == window_decoder().name
    assert (attempt["versions"]["order"], attempt["versions"]["augment"]) == (f"{ORDER_VERSION}", f"{AUGMENT_VERSION}")
    row = read_rows(run)[-1]
    assert row["val/n"] == row["val_ema/n"] == 103
    protocol = {"resolution": 16, "crop_ratio": 1.0, "tta": "flip"}
    [event] = [event for event in read_events(run) if event["kind"] == "evaluation"]
    assert protocol.items() <= event.items()
    for name in ("best", "last"):
        metadata = load_weights(run / f"weights/{name}.safetensors")[1]
        assert protocol.items() <= json.loads(metadata["evaluation"]).items()
