"""Files all of whose needed tensors fit, and whose network computed something else nevertheless."""

from pathlib import Path

import pytest
import torch

from distcls.errors import UserError
from distcls.models import ImageClassifier
from distcls.models.common.blur_pool import BINOMIAL
from distcls.models.weights import Checkpoint, load_checkpoint
from tests.models.weights.test_load import load, resnet, vit

MORE = (
    "x.pth: its network has more than {} as it is here, and without that it computes something else: {} weights have no "
    "place in parts that both have: {}, .... {} `allow_low_match` takes it as it is"
)


def refused(model: ImageClassifier, tensors: dict) -> str:
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load(model, tensors)
    assert all(torch.equal(entry, before[name]) for name, entry in model.state_dict().items())
    return str(caught.value)


def blurred(*names: str) -> dict[str, torch.Tensor]:
    """ffcv-imagenet's file: plain names, the blurred convolutions in a module with their filter."""
    source = {name.partition(".")[2]: entry for name, entry in resnet().state_dict().items()}
    for name in names:
        if f"{name}.weight" in source:
            source[f"{name}.conv.weight"] = source.pop(f"{name}.weight")
        source[f"{name}.blur_filter"] = torch.tensor(BINOMIAL).expand(16, 1, 3, 3)
    return source


def test_a_deeper_network_of_the_same_widths() -> None:
    deeper = resnet(depth=34).state_dict()
    names = "backbone.layer1.2.conv1.weight, backbone.layer1.2.bn1.weight, backbone.layer1.2.bn1.bias"
    expected = MORE.format("ResNet", 80, names, "Is it deeper, or built with other arguments?")
    assert refused(resnet(), deeper) == expected
    report = load(resnet(), deeper, allow_low_match=True)
    assert report.warnings == [f"80 weights of the file's network have no place in this one: {names}, ..."]


def test_stages_that_the_recipe_leaves_out_are_no_mistake() -> None:
    shorter = resnet(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,))
    assert load(shorter, resnet().state_dict()).match == 1.0


def test_blurred_convolutions_name_the_setting_that_is_missing() -> None:
    names = ["layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1", "layer4.0.downsample.0"]
    filters = ", ".join(f"{name}.blur_filter" for name in names[:3])
    remedy = "It blurs before it strides: set `conv_cfg: {type: BlurPoolConv2d}` in the backbone."
    assert refused(resnet(), blurred(*names)) == MORE.format("ResNet", 4, filters, remedy)
    composer = "Its pooling blurs, too (Composer's BlurPool): no backbone here does"
    assert composer in refused(resnet(), blurred("maxpool", *names))
    model = resnet(conv_cfg={"type": "BlurPoolConv2d"})
    assert load(model, blurred("layer4.0.conv1", "layer4.0.downsample.0")).warnings == []
    other = blurred("layer4.0.conv1")
    other["layer4.0.conv1.blur_filter"] = torch.ones(16, 1, 3, 3) / 9
    assert refused(model, other).startswith("x.pth: its network has more than ResNet")


def test_weights_that_never_blurred_are_taken_with_a_warning() -> None:
    report = load(resnet(conv_cfg={"type": "BlurPoolConv2d"}), blurred())
    assert report.warnings == [
        "its network did not blur before it strode, as this one does (BlurPoolConv2d): it has to be trained on"
    ]


def test_scaled_branches() -> None:
    scaled, plain = vit(layer_scale_init_value=0.1), vit()
    names = [f"backbone.layers.{i}.{part}.weight" for i in (0, 1) for part in ("attn.gamma1", "ffn.gamma2")]
    remedy = "Its branches are scaled: set `layer_scale_init_value` in the backbone."
    found = refused(plain, scaled.state_dict())
    assert found == MORE.format("VisionTransformer", 4, ", ".join(names[:3]), remedy)
    report = load(scaled, plain.state_dict())
    listed = ", ".join(names[:3])
    assert report.warnings == [f"4 parameters of the backbone are not from the file but as initialised: {listed}, ..."]


def test_positions_for_other_tokens_before_the_patches() -> None:
    source = vit().state_dict()
    source["backbone.pos_embed"] = source["backbone.pos_embed"][:, 1:]
    assert refused(vit(), source) == (
        "x.pth: backbone.pos_embed [1, 16, 16] cannot be made [1, 17, 16]: expected the positions of a square grid, behind "
        "as many tokens as the model has before its patches. A class or distillation token that one has and the other "
        "has not? `allow_low_match` takes it as it is"
    )


def test_a_grid_that_is_not_square_is_mentioned() -> None:
    wide = vit((16, 64))
    report = load_checkpoint(wide, Checkpoint(Path("x.pth"), vit(32).state_dict()))
    assert report.warnings == [
        "backbone.pos_embed is taken as learned on 2 x 8 patches. If it was another grid of as many, set img_size to "
        "what that had: the model resizes it to its images"
    ]
    assert load(vit(32), vit(32).state_dict()).warnings == []
    assert load(wide, vit(64).state_dict()).warnings == [], "what was resized has been seen"
