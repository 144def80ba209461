"""What is loaded, what is left out, and what is said about it."""

from pathlib import Path

import pytest
import torch

from distcls.errors import UserError
from distcls.models import ImageClassifier, build_classifier
from distcls.models.common.blur_pool import BINOMIAL
from distcls.models.weights import Checkpoint, Report, load_checkpoint

VIT = {
    "type": "VisionTransformer",
    "arch": {"embed_dims": 16, "num_layers": 2, "num_heads": 2, "feedforward_channels": 32},
    "patch_size": 8,
}
SWIN = {"type": "SwinTransformer", "arch": {"embed_dims": 8, "depths": [2, 2], "num_heads": [1, 2]}, "patch_size": 2}


def resnet(classes: int = 10, seed: int = 0, **kwargs) -> ImageClassifier:
    torch.manual_seed(seed)
    backbone = {"type": "ResNet", "depth": 18, "stem_channels": 4, "base_channels": 4, **kwargs}
    head = {"type": "LinearClsHead", "num_classes": classes}
    block = {"backbone": backbone, "neck": {"type": "GlobalAveragePooling"}, "head": head}
    return build_classifier(block, (32, 32))


def vit(size: int | tuple[int, int] = 32, **kwargs) -> ImageClassifier:
    head = {"type": "VisionTransformerClsHead", "num_classes": 3}
    image_size = (size, size) if isinstance(size, int) else size
    return build_classifier({"backbone": {**VIT, "img_size": size, **kwargs}, "head": head}, image_size)


def swin(window: int) -> ImageClassifier:
    backbone = {**SWIN, "window_size": window, "img_size": 32, "out_indices": [1]}
    head = {"type": "LinearClsHead", "num_classes": 3}
    return build_classifier({"backbone": backbone, "neck": {"type": "GlobalAveragePooling"}, "head": head}, (32, 32))


def load(model: ImageClassifier, tensors: dict, **kwargs) -> Report:
    return load_checkpoint(model, Checkpoint(Path("x.pth"), tensors), **kwargs)


def test_everything_fits() -> None:
    source, model = resnet(), resnet(seed=1)
    report = load(model, source.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    )
    assert report.lines() == [
        "weights from x.pth (openmmlab): 122 entries loaded, 100.0% of the backbone's parameter elements"
    ]
    assert report.counts() == {
        "path": "x.pth", "source": "openmmlab", "match": 1.0,
        "loaded": 122, "renamed": 0, "resized": 0, "dropped": 0, "misfits": 0, "unused": 0, "missing": 0,
    }  # fmt: skip


def test_every_entry_is_accounted_for() -> None:
    tensors = dict(resnet(classes=1000).state_dict())
    del tensors["backbone.bn1.bias"]
    tensors["ema.step"] = torch.zeros(1)
    model = resnet(seed=1)
    fc = model.head.fc.weight.clone()
    report = load(model, tensors)
    assert torch.equal(model.head.fc.weight, fc)
    assert report.lines() == [
        "weights from x.pth (openmmlab): 119 entries loaded, 100.0% of the backbone's parameter elements",
        "  2 dropped, for another number of classes: head.fc.weight [1000, 32], not [10, 32], head.fc.bias [1000], not [10]",
        "  1 unused: ema.step",
        "  3 missing, kept as initialised: backbone.bn1.bias, head.fc.weight, head.fc.bias",
    ]
    assert len(report.loaded) + len(report.missing) == len(model.state_dict())
    assert len(report.loaded) + len(report.dropped) + len(report.unused) == len(tensors)


def test_a_bare_backbone_and_torchvision_s_names() -> None:
    source = resnet().state_dict()
    bare = {name.removeprefix("backbone."): entry for name, entry in source.items() if name.startswith("backbone.")}
    report = load(resnet(seed=1), bare)
    assert report.match == 1.0
    assert report.missing == ["head.fc.weight", "head.fc.bias"]
    report = load(resnet(seed=1), {**bare, "fc.weight": source["head.fc.weight"], "fc.bias": source["head.fc.bias"]})
    assert report.source == "torchvision"
    assert not report.missing
    assert report.renamed[0] == ("conv1.weight", "backbone.conv1.weight")
    report = load(resnet(seed=1), {**bare, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)})
    assert report.source == "torchvision", "also with a classifier that does not fit"
    assert [name for name, *_ in report.dropped] == ["head.fc.weight", "head.fc.bias"]


def test_too_little_matches() -> None:
    model = resnet(seed=1)
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    tensors = {name: entry for name, entry in resnet().state_dict().items() if "layer4" not in name}
    tensors["backbone.layer1.0.conv1.weight"] = torch.zeros(8, 4, 3, 3)
    tensors["backbone.layer5.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as caught:
        load(model, tensors)
    assert str(caught.value) == (
        "x.pth: only 25.8% of the parameter elements of ResNet are in it (read with openmmlab names), expected 90%. "
        "Missing: backbone.layer4.0.conv1.weight, backbone.layer4.0.bn1.weight, backbone.layer4.0.bn1.bias, .... "
        "Of another shape: backbone.layer1.0.conv1.weight [8, 4, 3, 3], not [4, 4, 3, 3]. "
        "Without a place: backbone.layer5.weight. "
        "Is it another architecture? `map` and `prefix` say how to read names; `allow_low_match` takes it as it is"
    )
    assert all(torch.equal(entry, before[name]) for name, entry in model.state_dict().items())
    report = load(model, tensors, allow_low_match=True)
    assert torch.equal(model.backbone.conv1.weight, tensors["backbone.conv1.weight"])
    assert (
        "  1 not loaded, of another shape: backbone.layer1.0.conv1.weight [8, 4, 3, 3], not [4, 4, 3, 3]"
        in report.lines()
    )


def test_a_map_that_there_is_not() -> None:
    with pytest.raises(UserError) as caught:
        load(lenet(), {}, map="timm")
    assert str(caught.value) == "no timm model has the layers of LeNet5: expected map none, openmmlab or distcls"


def lenet() -> ImageClassifier:
    block = {"backbone": {"type": "LeNet5", "num_classes": 10}, "head": {"type": "ClsHead"}}
    return build_classifier(block, (32, 32))


def test_map_none_changes_no_name() -> None:
    bare = {name.removeprefix("backbone."): entry for name, entry in resnet().state_dict().items()}
    with pytest.raises(UserError, match=r"only 0\.0% .* \(read with none names\)"):
        load(resnet(), bare, map="none")


@pytest.mark.parametrize(
    ("small", "large", "name"), [(vit(32), vit(64), "pos_embed"), (swin(4), swin(8), "bias_table")]
)
def test_what_depends_on_the_size_is_resized(small: ImageClassifier, large: ImageClassifier, name: str) -> None:
    report = load(large, small.state_dict())
    assert report.match == 1.0
    assert report.resized
    assert all(one.endswith(name) for one in report.resized)
    assert not report.missing
    tensors = {key: entry for key, entry in small.state_dict().items() if not key.endswith("_index")}
    assert not load(swin(4) if "table" in name else vit(32), tensors).missing


def test_swin_s_old_name_of_its_norm() -> None:
    tensors = {name.replace("backbone.norm1.", "backbone.norm."): entry for name, entry in swin(4).state_dict().items()}
    tensors["backbone.stages.0.blocks.1.attn.attn_mask"] = torch.zeros(1)
    report = load(swin(4), tensors)
    assert report.renamed == [(f"backbone.norm.{one}", f"backbone.norm1.{one}") for one in ("weight", "bias")]
    assert report.unused == ["backbone.stages.0.blocks.1.attn.attn_mask"]


def test_a_classifier_inside_the_backbone_is_dropped_like_one_in_the_head() -> None:
    source = lenet().state_dict()
    source["backbone.classifier.2.weight"], source["backbone.classifier.2.bias"] = torch.zeros(7, 84), torch.zeros(7)
    report = load(lenet(), source)
    assert [name for name, *_ in report.dropped] == ["backbone.classifier.2.weight", "backbone.classifier.2.bias"]
    assert report.match == 1.0


@pytest.mark.parametrize("shape", [(4, 36), (4, 4, 9), (1, 4, 4, 3, 3)])
def test_numbers_stay_in_their_places(shape: tuple[int, ...]) -> None:
    """As many numbers in other places would be other weights."""
    source = resnet().state_dict()
    source["backbone.layer1.0.conv1.weight"] = source["backbone.layer1.0.conv1.weight"].reshape(shape)
    report = load(resnet(seed=1), source)
    assert [name for name, *_ in report.misfits] == ["backbone.layer1.0.conv1.weight"] * (1 not in shape)


def test_the_prefix_below_which_the_weights_lie_is_named() -> None:
    """As Lightning's files have it, and self-supervised models: which of two encoders is meant, a person says."""
    tensors = {f"model.{name}": entry for name, entry in resnet().state_dict().items()}
    with pytest.raises(UserError) as caught:
        load(resnet(), tensors)
    assert str(caught.value).endswith(". What begins with 'model.' would do: set `prefix: model.`")
    below = Checkpoint(Path("x.pth"), {f"student.{name}": entry for name, entry in tensors.items()}, (), "ema.")
    with pytest.raises(UserError, match="Is it another architecture"):
        load_checkpoint(resnet(), below)
    below = Checkpoint(Path("x.pth"), tensors, (), "ema.student.")
    with pytest.raises(UserError, match=r"set `prefix: ema\.student\.model\.`"):
        load_checkpoint(resnet(), below)


def test_ffcv_imagenet_s_blurred_convolutions() -> None:
    """It wraps each of them in a module, beside its filter."""
    model = resnet(seed=1, conv_cfg={"type": "BlurPoolConv2d"})
    source = {
        name.partition(".")[2]: entry
        for name, entry in resnet(conv_cfg={"type": "BlurPoolConv2d"}).state_dict().items()
    }
    blurred = ("layer4.0.conv1", "layer4.0.downsample.0")
    for name in blurred:
        source[f"{name}.conv.weight"] = source.pop(f"{name}.weight")
        source[f"{name}.blur_filter"] = torch.tensor(BINOMIAL).expand(16, 1, 3, 3)
    report = load(model, source)
    assert (report.source, report.match, report.missing) == ("torchvision", 1.0, [])
    assert torch.equal(model.backbone.layer4[0].conv1.weight, source["layer4.0.conv1.conv.weight"])
    assert [name for name in report.unused if "blur" in name] == [f"{name}.blur_filter" for name in blurred]
