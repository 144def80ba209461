"""model.init and model.freeze in a run: where mistakes are reported, what is printed, and that a resumed run needs no file."""

import json
from pathlib import Path

import pytest
import torch

from distcls.data.dataset import BetonDataset
from distcls.engine.attempt.preparing import prepare
from distcls.engine.building.datasets import Datasets
from distcls.engine.building.initial_weights import InitialWeights
from distcls.engine.building.model import build_model
from distcls.engine.checkpoints.export import metadata
from distcls.engine.checkpoints.tensor_file import load_weights, save_weights
from distcls.engine.checks.plugins import import_parts
from distcls.recipe.errors import RecipeError
from distcls.recipe.schema import check
from distcls.recipe.source import read
from distcls.tracking.jsonl import read_events
from tests.engine.launching import PLAIN, launch


def built(recipe: Path, *overrides: str):
    import_parts()
    source = read(recipe, overrides)
    checked = check(source)
    init = InitialWeights(checked.model.init, source) if checked.model.init else None
    return build_model(checked, source, init)


def with_1000_classes(recipe: Path, tmp_path: Path) -> Path:
    """Weights of the recipe's backbone, as OpenMMLab saves them, with another classifier."""
    model, _ = built(recipe, "train.seed=9")
    state = {f"module.{name}": entry for name, entry in model.state_dict().items()}
    state["module.head.fc.weight"], state["module.head.fc.bias"] = torch.zeros(1000, 32), torch.zeros(1000)
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, tmp_path / "big.pth")
    return tmp_path / "big.pth"


def test_fine_tuning_from_a_checkpoint_with_1000_classes(tiny_recipe: Path, tmp_path: Path) -> None:
    file = with_1000_classes(tiny_recipe, tmp_path)
    init, freeze = f"model.init.checkpoint={file}", "model.freeze=[backbone.conv1, backbone.bn1, backbone.layer1]"
    code, output = launch(PLAIN, tiny_recipe, init, freeze, "train.epochs=1", "checkpoint.every_steps=1000")
    assert code == 0, output
    assert f"weights from {file} (openmmlab): 120 entries loaded, 100.0% of the backbone's parameter elements" in output
    assert "2 dropped, for another number of classes: head.fc.weight [1000, 32], not [5, 32], head.fc.bias" in output
    run = tmp_path / "run"
    [event] = [event for event in read_events(run) if event["kind"] == "initial_weights"]
    assert (event["loaded"], event["dropped"], event["match"]) == (120, 2, 1.0)
    trained, _ = load_weights(run / "weights/last.safetensors")
    start = torch.load(file, weights_only=True)["state_dict"]
    same = {name for name, entry in trained.items() if torch.equal(entry, start[f"module.{name}"])}
    assert same == {name for name in trained if name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))}

    # the run goes on, and another one starts from it, without the file
    file.unlink()
    prepare(tiny_recipe, [init, freeze, "train.epochs=1"], 1)
    fresh, report = built(tiny_recipe, f"model.init.checkpoint={run}")
    assert report.match == 1.0
    assert torch.equal(fresh.head.fc.weight, load_weights(run / "weights/best.safetensors")[0]["head.fc.weight"])


def test_what_a_file_of_ours_says_of_its_network_and_its_images(
    tiny_recipe: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """A blur before the strides, a norm's eps and mean and std leave no trace in the tensors."""
    blur = "model.backbone.conv_cfg={type: BlurPoolConv2d}"
    model, _ = built(tiny_recipe, blur)
    recipe, data = (
        check(read(tiny_recipe, [blur, "model.backbone.norm_eval=true"])),
        BetonDataset(tiny_data / "train.beton"),
    )
    identity = Datasets(data, data).identity(recipe)
    identity["mean"] = [0.485, 0.456, 0.406]
    file = tmp_path / "blurred.safetensors"
    save_weights(file, model.state_dict(), metadata(identity, 1, {}))
    source = read(tiny_recipe, [f"model.init.checkpoint={file}"])
    checked = check(source)
    assert checked.model.init is not None
    init = InitialWeights(checked.model.init, source)
    _, report = build_model(checked, source, init)
    assert (report.match, report.warnings, report.notes) == (1.0, [], ())
    init.compare(report, checked, data)
    assert report.warnings == [
        'its run had model.backbone.conv_cfg {"type": "BlurPoolConv2d"}, this one has null',
    ]
    here = ", ".join(f"{value:.3f}" for value in data.mean)
    assert report.notes == (f"its run normalised images with the mean 0.485, 0.456, 0.406, this one with {here}",)


def test_a_missing_file_is_found_before_anything_starts(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        prepare(tiny_recipe, [f"model.init={json.dumps({'checkpoint': str(tmp_path / 'none.pth')})}"], 1)
    assert str(caught.value) == (
        f"1 mistake in {tiny_recipe}\n"
        f"command line: model.init.checkpoint: {tmp_path}/none.pth: cannot be read: No such file or directory"
    )


def test_another_architecture_and_a_pattern_that_names_nothing(tiny_recipe: Path, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(RecipeError, match=r"only 0.0% of the parameter elements of ResNet_CIFAR are in it"):
        built(tiny_recipe, f"model.init.checkpoint={tmp_path}/other.pt")
    with pytest.raises(RecipeError) as caught:
        built(tiny_recipe, "model.freeze=[backbone.layer9]")
    assert str(caught.value).endswith(
        "model.freeze: no module or parameter has the name 'backbone.layer9'. Did you mean 'backbone.layer4'?"
    )
