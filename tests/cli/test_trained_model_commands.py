"""`distcls eval` and `distcls predict`, with the weights of a small run."""

import csv
import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from accelerate.state import AcceleratorState
from typer.testing import CliRunner

import distcls
from distcls.cli.main import app
from distcls.errors import UserError
from tests.conftest import TINY_RECIPE


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of eight steps."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "tiny.yaml"
    recipe.write_text(TINY_RECIPE.format(out=folder / "run", data=tiny_data))
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision otherwise
    try:
        return distcls.train(recipe, ["train.epochs=null", "train.max_steps=8", "train.precision=bf16"]).folder
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    return done.output


def test_eval_finds_the_numbers_that_the_run_logged(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    last = run / "weights" / "last.safetensors"
    said = invoke("eval", last, "-o", tmp_path / "found")
    assert said.startswith(f"{last} on {tiny_data}/val.beton: 103 images at 16 pixels, crop ratio 1.0, on a cpu\nloss ")
    logged = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    expected = [row for row in logged if "val/loss" in row][-1]
    found = json.loads((tmp_path / "found" / "val_per_class.json").read_text())
    assert {name: found[name] for name in ("loss", "top1", "top3", "n")} == {
        name: expected[f"val/{name}"] for name in ("loss", "top1", "top3", "n")
    }
    right = sum(row[number] for number, row in enumerate(found["confusion"]))
    assert right == round(found["top1"] * 103)
    assert re.search(r"class_0 +21 +\d\.\d{4} +\d\.\d{4} +\d\.\d{4}", said)
    assert (tmp_path / "found" / "pictures" / "confusion.png").is_file()


def test_eval_refuses_data_of_other_classes(run: Path, tmp_path: Path) -> None:
    from distcls.data.converting.convert import convert
    from distcls.data.converting.sources import open_source
    from tests.data.test_single_images import save

    save(tmp_path / "images" / "cat" / "a.png", 24, 24)
    convert(open_source(tmp_path / "images"), tmp_path / "cats.beton", workers=1)
    with pytest.raises(UserError) as caught:
        invoke("eval", run, tmp_path / "cats.beton")
    assert str(caught.value) == (
        f"{tmp_path}/cats.beton: other classes than the model's: got cat, expected class_0, class_1, class_2, class_3, "
        "... (5)"
    )


def test_predict_names_the_classes_of_each_image_and_what_it_cannot_read(
    run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    image, broken = tiny_data / "val" / "class_1" / "0001.png", tmp_path / "broken.png"
    broken.write_text("no image")
    assert re.fullmatch(
        rf"{re.escape(str(image))}: class_\d \d\.\d{{4}}, class_\d \d\.\d{{4}}\n",
        invoke("predict", run, image, "--top", 2),
    )
    with pytest.raises(UserError) as caught:
        invoke("predict", run, broken, tiny_data / "val", "-o", tmp_path / "new" / "found.csv")
    assert str(caught.value) == (
        f"1 of the images left out:\n{broken}: cannot be read as an image: cannot identify image file '{broken}'. "
        "Mend it or move it away."
    )
    with (tmp_path / "new" / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "class1", "score1", "class2", "score2", "class3", "score3"]
    assert len(rows) == 103
    assert float(rows[0]["score1"]) >= float(rows[0]["score2"])
    # a .beton of JPEGs was evaluated, the files are PNGs: almost all are seen alike
    hits = sum(row["class1"] == Path(row["path"]).parent.name for row in rows)
    logged = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(row["val/top1"] for row in logged if "val/top1" in row)
    assert abs(hits / 103 - best) < 0.05


def test_eval_of_a_recipe_looks_at_the_weights_that_it_would_begin_with(
    run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """Weights of another program: only a recipe says what model they are of."""
    plain, recipe = tmp_path / "plain.pth", run.parent / "tiny.yaml"
    state = safetensors.torch.load_file(run / "weights" / "last.safetensors")
    torch.save({"state_dict": state}, plain)
    with pytest.raises(UserError) as caught:
        invoke("eval", plain)
    assert str(caught.value) == (
        f"{plain}: not written by distcls: expected a run folder, or a file of its weights/. Weights of another program "
        f"need a recipe that describes their model: distcls eval RECIPE.yaml model.init.checkpoint={plain}"
    )
    init, bf16 = f"model.init.checkpoint={plain}", "train.precision=bf16"
    said = invoke("eval", recipe, init, bf16, tiny_data / "train.beton", "--batch-size", 32)
    ours = invoke("eval", run / "weights" / "last.safetensors", tiny_data / "train.beton", "--batch-size", 32)
    heading, first, *rest = said.splitlines()
    assert heading.startswith(f"weights from {plain} (openmmlab): {len(state)} entries loaded, 100.0%")
    assert first.startswith(f"{plain} on {tiny_data}/train.beton: 320 images at 16 pixels, crop ratio 1.0, on a cpu")
    assert rest == ours.splitlines()[1:]


def test_eval_of_a_recipe_needs_all_weights(run: Path, tmp_path: Path) -> None:
    recipe, plain = run.parent / "tiny.yaml", tmp_path / "plain.pth"
    with pytest.raises(UserError) as caught:
        invoke("eval", recipe)
    assert str(caught.value) == (
        f"1 mistake in {recipe}\n{recipe}:2:1: model.init.checkpoint: missing key: expected the weights to evaluate; "
        "for those of a run give its folder"
    )
    state = safetensors.torch.load_file(run / "weights" / "last.safetensors")
    torch.save({name: entry for name, entry in state.items() if not name.startswith("head.")}, plain)
    with pytest.raises(UserError) as caught:
        invoke("eval", recipe, f"model.init.checkpoint={plain}")
    assert str(caught.value) == (
        f"1 mistake in {recipe}\ncommand line: model.init.checkpoint: {plain}: 2 entries of the model are not in it: "
        "head.fc.weight, head.fc.bias: nothing to evaluate"
    )
