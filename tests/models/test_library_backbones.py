"""TimmBackbone and TorchvisionBackbone: maps of every form, features as the library pools them, weights from files."""

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from distcls.errors import UserError
from distcls.models import ImageClassifier, build_classifier
from distcls.models.weights import load_checkpoint, read_checkpoint
from distcls.registry import BACKBONES

GAP = {"type": "GlobalAveragePooling"}


def build(backbone: dict, size: int = 64, neck: dict | None = GAP) -> ImageClassifier:
    torch.manual_seed(0)
    head = {"type": "LinearClsHead", "num_classes": 10}
    return build_classifier({"backbone": backbone, "neck": neck, "head": head}, (size, size))


def timm_block(model_name: str, **kwargs) -> dict:
    return {"type": "TimmBackbone", "model_name": model_name, **kwargs}


def torchvision_block(model_name: str, **kwargs) -> dict:
    return {"type": "TorchvisionBackbone", "model_name": model_name, **kwargs}


@pytest.mark.parametrize(
    ("block", "size", "shape"),
    [
        (timm_block("resnet18"), 64, (512, 2, 2)),
        (timm_block("convnextv2_atto"), 64, (320, 2, 2)),
        (timm_block("mobilenetv3_small_050"), 64, (1024, 2, 2)),
        (timm_block("vit_tiny_patch16_224", img_size=64), 64, (192, 4, 4)),
        (timm_block("swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1, 1, 1)), 64, (768, 2, 2)),
        (torchvision_block("resnet18"), 64, (512, 2, 2)),
        (torchvision_block("regnet_y_400mf"), 64, (440, 2, 2)),
        (torchvision_block("shufflenet_v2_x0_5"), 64, (1024, 2, 2)),
        (torchvision_block("densenet121"), 64, (1024, 2, 2)),
        (torchvision_block("mnasnet0_5"), 64, (1280, 2, 2)),
        (torchvision_block("swin_t"), 64, (768, 2, 2)),
        (torchvision_block("vit_b_32", image_size=64), 64, (768, 2, 2)),
        (torchvision_block("squeezenet1_1"), 64, (512, 3, 3)),
        (torchvision_block("convnext_tiny"), 64, (768, 2, 2)),
    ],
    ids=lambda one: one.get("model_name") if isinstance(one, dict) else None,
)
def test_a_map_and_a_gradient_for_every_parameter(block: dict, size: int, shape: tuple[int, ...]) -> None:
    model = build(block, size)
    images = torch.randn(2, 3, size, size)
    [found] = model.backbone(images)
    assert found.shape == (2, *shape)
    assert model.head.in_channels == shape[0]
    model(images, torch.tensor([0, 1]))["loss"].backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_the_patches_of_a_vit_lie_in_their_places() -> None:
    """An image whose one half changes: with the attention off, the map changes there alone."""
    backbone = BACKBONES.build(timm_block("vit_tiny_patch16_224", img_size=64)).eval()
    for block in backbone.timm_model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    image = torch.zeros(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 32:] = 1
    differs = (backbone(image)[0] != backbone(changed)[0]).any(dim=1)[0]
    assert differs.tolist() == [[False, False, True, True]] * 4


def test_maps_of_all_stages() -> None:
    maps = BACKBONES.build(timm_block("resnet18", features_only=True, out_indices=(1, 4))).eval()(
        torch.zeros(1, 3, 64, 64)
    )
    assert [tuple(one.shape[1:]) for one in maps] == [(64, 16, 16), (512, 2, 2)]


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"])
def test_pooled_gives_timm_s_own_logits(name: str, tmp_path: Path) -> None:
    arguments = {"img_size": 64} if "vit" in name else {}
    torch.manual_seed(1)
    source = timm.create_model(name, num_classes=10, **arguments).eval()
    safetensors.torch.save_file(source.state_dict(), tmp_path / "x.safetensors")
    model = build(timm_block(name, pooled=True, **arguments), neck=None).eval()
    report = load_checkpoint(model, read_checkpoint(tmp_path / "x.safetensors"))
    assert (report.source, report.match, report.missing, report.unused) == ("timm", 1.0, [], [])
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(model(images), source(images), atol=1e-5)


def test_torchvision_s_own_logits(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = torchvision.models.shufflenet_v2_x0_5(num_classes=10).eval()
    torch.save(source.state_dict(), tmp_path / "x.pth")
    model = build(torchvision_block("shufflenet_v2_x0_5")).eval()
    report = load_checkpoint(model, read_checkpoint(tmp_path / "x.pth"))
    assert (report.source, report.match, report.missing, report.unused) == ("torchvision", 1.0, [], [])
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(model(images), source(images), atol=1e-5)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_checkpoint_path_is_read_with_the_initial_weights_alone(library: str, tmp_path: Path) -> None:
    """A model that is about to be filled from elsewhere, after a kill or by `distcls.load`, needs no file."""
    torch.manual_seed(1)
    source = timm.create_model("resnet18") if library == "timm" else torchvision.models.resnet18()
    torch.save(source.state_dict(), tmp_path / "x.pth")
    make = timm_block if library == "timm" else torchvision_block
    inner = f"{library}_model"
    found = getattr(build(make("resnet18", checkpoint_path=str(tmp_path / "x.pth"))).backbone, inner)
    assert torch.equal(found.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    missing = make("resnet18", checkpoint_path=str(tmp_path / "none.pth"))
    head = {"type": "LinearClsHead", "num_classes": 10}
    build_classifier({"backbone": missing, "neck": GAP, "head": head}, (64, 64), init_weights=False)
    with pytest.raises(UserError, match=r"none\.pth: cannot be read: No such file"):
        build(missing)


def test_pretrained_weights_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_, pretrained: bool = False, **__):
        if pretrained:
            raise OSError("cannot find the requested files in the cache")
        return torch.nn.Identity()

    backbone = BACKBONES.build(timm_block("resnet18", pretrained=True))
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError) as caught:
        backbone.init_weights()
    assert str(caught.value) == (
        "the pretrained weights of timm's resnet18 cannot be had: cannot find the requested files in the cache. "
        "Where there is no network, fetch them elsewhere and name the file in model.init.checkpoint"
    )


def test_pretrained_weights_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    cached, create = timm.create_model("resnet18", num_classes=0, global_pool=""), timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda pretrained=False, **kw: cached if pretrained else create(**kw))
    model = build(timm_block("resnet18", pretrained=True))
    assert torch.equal(model.backbone.timm_model.conv1.weight, cached.conv1.weight)


def test_layer_depths_are_timm_s() -> None:
    backbone = BACKBONES.build(timm_block("vit_tiny_patch16_224", img_size=64))
    names = [
        "cls_token",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.11.mlp.fc1.weight",
        "norm.weight",
    ]
    depths = [backbone.get_layer_depth(f"backbone.timm_model.{name}", "backbone.") for name in names]
    assert [depth for depth, _ in depths] == [0, 0, 1, 12, 12]
    assert backbone.get_layer_depth("head.fc.weight", "backbone.") == (13, 14)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (timm_block("resnet81"), f"TimmBackbone.model_name: timm {timm.__version__} has no model 'resnet81'. Did you mean 'resnet18'?"),
        (timm_block("resnet18", pooled=True, features_only=True), "TimmBackbone: features_only gives maps and pooled gives none: set one of them"),
        (timm_block("resnet18", foo=1), "TimmBackbone: timm cannot build 'resnet18' like this: ResNet.__init__() got an unexpected keyword argument 'foo'"),
        (torchvision_block("resnet81"), "TorchvisionBackbone.model_name: torchvision has no model 'resnet81'. Did you mean 'resnet18'?"),
        (torchvision_block("googlenet", init_weights=False), "TorchvisionBackbone: GoogLeNet has outputs beside its map, expected one of AlexNet, ConvNeXt, DenseNet, EfficientNet, MNASNet, MaxVit, MobileNetV2, MobileNetV3, RegNet, ResNet, ShuffleNetV2, SqueezeNet, SwinTransformer, VGG, VisionTransformer; TimmBackbone may have it"),
    ],
)  # fmt: skip
def test_messages(block: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        BACKBONES.build(block)
    assert str(caught.value) == message
