"""Several labels per image, from a list of files to weights: a tiny run that learns, and the refusals before it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distcls.engine.attempt.preparing import prepare
from distcls.recipe.errors import RecipeError
from distcls.tracking.jsonl import read_events, read_rows
from tests.engine.launching import PLAIN, launch

COLOURS = ["red", "green", "blue"]
RECIPE = """\
output_dir: {out}
model:
  backbone: {{type: ResNet_CIFAR, depth: 18, stem_channels: 4, base_channels: 4, out_indices: [3]}}
  neck: {{type: GlobalAveragePooling}}
  head: {{type: MultiLabelLinearClsHead, loss: [{{type: CrossEntropyLoss, use_sigmoid: true}}, {{type: AsymmetricLoss}}], num_classes: 3}}
data: {{train: {{path: {data}/train.beton}}, val: {{path: {data}/val.beton, crop_ratio: 1.0}}, resolution: 16, workers: 1}}
optimizer: {{type: SGD, lr: 0.05, momentum: 0.9}}
schedule: {{type: CosineWarmup, warmup_steps: 3}}
train: {{max_steps: 60, global_batch_size: 32, log_every_steps: 20, seed: 3}}
eval: {{every_epochs: 3, metrics: [precision, recall, f1, confusion, calibration, map]}}
tracking: {{mode: disabled}}
"""


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.beton (256 images) and val.beton (75): squares of those of three colours that are present."""
    from distcls.data.converting.convert import convert
    from distcls.data.converting.sources import open_source

    folder = tmp_path_factory.mktemp("coloured")
    generator = np.random.default_rng(0)
    for split, count in (("train", 256), ("val", 75)):
        rows = [["path", "labels"]]
        for number in range(count):
            pixels = generator.integers(60, 120, (16, 16, 3))
            present = generator.integers(0, 2, 3)
            for colour in np.flatnonzero(present):
                top, left = generator.integers(0, 10, 2)
                pixels[top : top + 6, left : left + 6, colour] = 250
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}_{number}.png")
            rows.append([f"{split}_{number}.png", ";".join(COLOURS[colour] for colour in np.flatnonzero(present))])
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        convert(open_source(folder / f"{split}.csv"), folder / f"{split}.beton", workers=1)
    return folder


@pytest.fixture
def recipe(coloured: Path, tmp_path: Path) -> Path:
    file = tmp_path / "coloured.yaml"
    file.write_text(RECIPE.format(out=tmp_path / "run", data=coloured))
    return file


@pytest.mark.slow
def test_a_multi_label_run_learns(recipe: Path, tmp_path: Path) -> None:
    code, output = launch(PLAIN, recipe)
    assert code == 0, output
    run = tmp_path / "run"
    train, last = [next(row for row in read_rows(run)[::-1] if f"{kind}/loss" in row) for kind in ("train", "val")]
    assert last["val/map"] > 0.9  # chance is 0.5
    assert last["best/val_map"] >= last["val/map"]
    assert {f"val/{name}" for name in ("precision", "recall", "f1", "f1_micro", "ece", "n")} <= set(last)
    parts = train["train/loss_CrossEntropyLoss"] + train["train/loss_AsymmetricLoss"]
    assert train["train/loss"] == pytest.approx(parts)

    whole = json.loads((run / "val_per_class.json").read_text())
    assert [row["name"] for row in whole["classes"]] == sorted(COLOURS)
    assert np.mean([row["ap"] for row in whole["classes"]]) == pytest.approx(last["val/map"])
    assert np.mean([row["f1"] for row in whole["classes"]]) == pytest.approx(last["val/f1"])
    assert all(np.sum(matrix) == 75 for matrix in whole["confusion"])
    assert [event["step"] for event in read_events(run) if event["kind"] == "val_per_class"] == [60]
    assert f"best map {last['best/val_map']:.4f}" in output


def refusal(recipe: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        prepare(recipe, overrides, world_size=1)
    return str(caught.value)


def test_a_head_for_one_label_is_refused(recipe: Path, coloured: Path) -> None:
    text = recipe.read_text().replace("MultiLabelLinearClsHead, loss: [", "LinearClsHead, loss: [")
    recipe.write_text(text)
    assert (
        f"{recipe}:5:10: model.head.type: does not fit the data: got LinearClsHead, for one label per image, expected a "
        f"head such as MultiLabelLinearClsHead: data.train ({coloured}/train.beton) holds any number of labels per image"
    ) in refusal(recipe)


def test_a_head_for_several_labels_is_refused(tiny_recipe: Path, tiny_data: Path) -> None:
    tiny_recipe.write_text(
        tiny_recipe.read_text().replace("LinearClsHead", "MultiLabelLinearClsHead").replace(", topk: [1, 3]", "")
    )
    assert (
        "model.head.type: does not fit the data: got MultiLabelLinearClsHead, for any number of labels per image, "
        f"expected a head such as LinearClsHead: data.train ({tiny_data}/train.beton) holds one label per image"
    ) in refusal(tiny_recipe)


def test_balanced_sampling_is_for_one_label(recipe: Path, coloured: Path) -> None:
    assert (
        f"data.sampler: balanced needs one label per image: {coloured}/train.beton holds any number of them; "
        "expected shuffle"
    ) in refusal(recipe, "data.sampler=balanced")


def test_validation_data_of_the_other_kind_is_refused(recipe: Path, coloured: Path, tiny_data: Path) -> None:
    assert (
        f"data.val.path: other labels than data.train: {tiny_data}/val.beton holds one label per image, "
        f"{coloured}/train.beton any number of labels per image"
    ) in refusal(recipe, f"data.val.path={tiny_data}/val.beton")


@pytest.mark.slow
def test_weights_and_sampling_for_uneven_data(tiny_recipe: Path, tmp_path: Path) -> None:
    tiny_recipe.write_text(
        tiny_recipe.read_text().replace("{type: CrossEntropyLoss}", "{type: CrossEntropyLoss, class_weight: auto}")
    )
    code, output = launch(
        PLAIN, tiny_recipe, "data.sampler=balanced", "train.epochs=null", "train.max_steps=4", "eval.metrics=[f1]"
    )
    assert code == 0, output
    [row] = [row for row in read_rows(tmp_path / "run") if "val/f1" in row]
    assert row["val/f1_micro"] == pytest.approx(row["val/top1"])
    import distcls

    assert not len(distcls.load(tmp_path / "run").head.loss_module.class_weight)  # they follow from a training set
