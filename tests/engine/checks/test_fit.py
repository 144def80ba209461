"""Mistakes that only a built model reveals, reported at their place in the recipe; tests/recipe has the others."""

from pathlib import Path

import pytest
import torch

from distcls.engine.building.model import build_model
from distcls.engine.checks.plugins import import_parts
from distcls.recipe.errors import RecipeError
from distcls.recipe.schema import check
from distcls.recipe.source import read

TIMM = "{type: TimmBackbone, model_name: vit_tiny_patch16_224, img_size: 16, patch_size: 4, depth: 1, pooled: true"
RAMP = "data.resolution={start: 8, end: 16, ramp: [0, 2], multiple_of: 4}"


def build(recipe: Path, *overrides: str):
    import_parts()
    source = read(recipe, overrides)
    return build_model(check(source), source)[0]


def refusal(recipe: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        build(recipe, *overrides)
    return str(caught.value)


@pytest.fixture
def fixed(tiny_recipe: Path) -> Path:
    """The tiny recipe with a model that accepts only images of 16 pixels."""
    text = tiny_recipe.read_text()
    begin, end = text.index("{type: ResNet_CIFAR"), text.index("\n", text.index("{type: ResNet_CIFAR"))
    tiny_recipe.write_text(
        (text[:begin] + TIMM + "}" + text[end:]).replace("neck: {type: GlobalAveragePooling}", "neck: null")
    )
    return tiny_recipe


def test_a_model_for_grey_images_is_refused(tiny_recipe: Path) -> None:
    assert (
        "command line: model.backbone.in_channels: got 1, expected 3: all images are RGB here, grey ones with three "
        "equal channels"
    ) in refusal(tiny_recipe, "model.backbone.in_channels=1")


def test_a_model_of_one_size_is_refused_under_a_schedule(fixed: Path) -> None:
    assert (
        "command line: data.resolution: the model does not take every size of this schedule: got 8 (AssertionError: "
        "Input height (8) doesn't match model (16).), expected one size, or a model for any size, such as timm's with "
        "dynamic_img_size: true"
    ) in refusal(fixed, RAMP)


def test_a_model_of_one_size_is_refused_for_another_in_evaluation(fixed: Path) -> None:
    fixed.write_text(fixed.read_text().replace("crop_ratio: 1.0", "crop_ratio: 1.0, resolution: 20"))
    column = fixed.read_text().splitlines()[7].index("resolution: 20") + 1
    assert (
        f"{fixed}:8:{column}: data.val.resolution: the model does not take this size: got 20 (AssertionError: Input height (20) "
        "doesn't match model (16).), expected that of data.resolution, or a model for any size"
    ) in refusal(fixed)


def test_a_model_for_any_size_follows_a_schedule(fixed: Path) -> None:
    fixed.write_text(fixed.read_text().replace("pooled: true", "pooled: true, dynamic_img_size: true"))
    assert build(fixed, RAMP).training


def test_a_loss_for_class_numbers_is_refused_under_mixing(tiny_recipe: Path) -> None:
    seesaw = ["model.head.loss={type: SeesawLoss, num_classes: 5}"]
    build(tiny_recipe, *seesaw)
    assert (
        "command line: data.mix: the labels that it mixes are not for this head or its loss (SeesawLoss: "
        "got targets (1, 5), expected class numbers (N,)): expected a loss for targets (N, C), such as CrossEntropyLoss"
    ) in refusal(tiny_recipe, *seesaw, "data.mix=[{type: Mixup}]")


@pytest.mark.parametrize(
    "loss",
    [
        "{type: CrossEntropyLoss, class_weight: auto}",
        "{type: CrossEntropyLoss, use_sigmoid: true}",
        "{type: LabelSmoothLoss, label_smooth_val: 0.1}",
    ],
)
def test_losses_for_soft_labels_mix_and_trying_leaves_no_trace(tiny_recipe: Path, loss: str) -> None:
    plain = build(tiny_recipe, f"model.head.loss={loss}")
    mixing = build(tiny_recipe, f"model.head.loss={loss}", "data.mix=[{type: Mixup}]", RAMP)
    assert mixing.training
    for name, value in plain.state_dict().items():
        assert torch.equal(value, mixing.state_dict()[name]), name
