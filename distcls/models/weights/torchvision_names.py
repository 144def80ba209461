"""torchvision's names -> ours, by backbone."""

import re
from collections.abc import Iterable
from typing import Any

from distcls.models.weights.rules import DENSENET, Family, Rule, less_one, merged_patches, vgg_features

PARTS = ("conv", "bn")  # of our ConvModule; torchvision's Conv2dNormActivation counts them 0 and 1


def _resnet(names: Iterable[str], backbone: Any) -> list[Rule]:
    """Also for ffcv-imagenet, which wraps a blurred convolution in a module together with its filter."""
    blurs = any(name.endswith(".blur_filter") for name in names)
    return [(r"^fc\.", "head.fc."), *([(r"\.conv\.weight$", ".weight")] if blurs else [])]


def _mobilenet_v2(names: Iterable[str], backbone: Any) -> list[Rule]:
    """features.1 to features.17 are the blocks of our layer1 to layer7."""
    places = [f"layer{i}.{j}" for i in range(1, 8) for j in range(len(getattr(backbone, f"layer{i}")))]
    last = len(places) + 1

    def block(match: re.Match[str]) -> str:
        number, conv, inner = int(match[1]), int(match[2]), match[3]
        # a block's last convolution is not in a Conv2dNormActivation, so its norm has the next index
        if inner is None and f"features.{number}.conv.{conv - 1}.0.weight" not in names:
            conv, part = conv - 1, "bn"
        else:
            part = PARTS[int(inner.rstrip(".") or 0)] if inner else "conv"
        return f"{places[number - 1]}.conv.{conv}.{part}."

    return [
        (r"^classifier\.1\.", "head.fc."),
        (r"^features\.0\.([01])\.", lambda m: f"conv1.{PARTS[int(m[1])]}."),
        (rf"^features\.{last}\.([01])\.", lambda m: f"conv2.{PARTS[int(m[1])]}."),
        (r"^features\.(\d+)\.conv\.(\d+)\.(\d+\.)?", block),
    ]


def _mobilenet_v3(names: Iterable[str], backbone: Any) -> list[Rule]:
    """A block is [expansion,] depthwise, [squeeze and excitation,] projection; parts in brackets are optional."""
    found = [re.match(r"features\.(\d+)\.block\.(\d+)\.(?:0\.weight|fc1\.weight)", name) for name in names]
    convs: dict[int, list[int]] = {}
    for match in filter(None, found):
        if match[0].endswith(".0.weight"):
            convs.setdefault(int(match[1]), []).append(int(match[2]))

    def conv(match: re.Match[str]) -> str:
        layers = sorted(convs[int(match[1])])
        kinds = ("expand_conv", "depthwise_conv", "linear_conv")[-len(layers) :]
        return f"layer{match[1]}.{kinds[layers.index(int(match[2]))]}.{PARTS[int(match[3])]}."

    return [
        (r"^classifier\.0\.", "head.layers.0.fc."),
        (r"^classifier\.3\.", "head.layers.1.fc."),
        (r"^features\.(\d+)\.block\.\d+\.fc([12])\.", r"layer\1.se.conv\2.conv."),
        (r"^features\.(\d+)\.block\.(\d+)\.([01])\.", conv),
        (r"^features\.(\d+)\.([01])\.", lambda m: f"layer{m[1]}.{PARTS[int(m[2])]}."),
    ]


def _shuffle_branch(match: re.Match[str]) -> str:
    """Convolutions are at 0, 2 (first branch) or 0, 3, 5 (second), each followed by its norm."""
    branch, number = match[1], int(match[2])
    starts = (0, 2) if branch == "1" else (0, 3, 5)
    index = max(i for i, start in enumerate(starts) if start <= number)
    return f".branch{branch}.{index}.{PARTS[number - starts[index]]}."


def _vgg(names: Iterable[str], backbone: Any) -> list[Rule]:
    return vgg_features(list(names), backbone)


TORCHVISION: dict[str, Family] = {
    "ResNet": Family(_resnet),  # ResNeXt and Wide ResNet too
    "RegNet": Family(
        (
            (r"^fc\.", "head.fc."),
            (r"^stem\.0\.", "conv1."),
            (r"^stem\.1\.", "bn1."),
            (r"^trunk_output\.block(\d+)\.block\d+-(\d+)\.", r"layer\1.\2."),
            (r"\.proj\.", ".downsample."),
            (r"\.f\.([abc])\.0\.", lambda m: f".conv{'abc'.index(m[1]) + 1}."),
            (r"\.f\.([abc])\.1\.", lambda m: f".bn{'abc'.index(m[1]) + 1}."),
        )
    ),
    "DenseNet": DENSENET,
    "MobileNetV2": Family(_mobilenet_v2),
    "MobileNetV3": Family(_mobilenet_v3),
    "ShuffleNetV2": Family(
        (
            (r"^fc\.", "head.fc."),
            (r"^conv1\.([01])\.", lambda m: f"conv1.{PARTS[int(m[1])]}."),
            (r"^conv5\.([01])\.", lambda m: f"layers.3.{PARTS[int(m[1])]}."),
            (r"^stage(\d+)\.", lambda m: f"layers.{int(m[1]) - 2}."),
            (r"\.branch([12])\.(\d+)\.", _shuffle_branch),
        )
    ),
    "VGG": Family(_vgg),
    "AlexNet": Family(()),
    "VisionTransformer": Family(
        (
            (r"^heads\.(head|pre_logits)\.", r"head.layers.\1."),
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.projection."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.ln\.", "ln1."),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"layers.\1."),
            (r"\.ln_([12])\.", r".ln\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(?:0|linear_1)\.", ".ffn.layers.0.0."),
            (r"\.mlp\.(?:3|linear_2)\.", ".ffn.layers.1."),
        )
    ),
    "SwinTransformer": Family(
        (
            (r"^head\.", "head.fc."),
            (r"^norm\.", "norm3."),
            (r"^features\.0\.0\.", "patch_embed.projection."),
            (r"^features\.0\.2\.", "patch_embed.norm."),
            (r"^features\.(\d*[13579])\.(\d+)\.", lambda m: f"stages.{less_one(m[1]) // 2}.blocks.{m[2]}."),
            (r"^features\.(\d*[02468])\.", lambda m: f"stages.{less_one(m[1]) // 2}.downsample."),
            (r"\.attn\.", ".attn.w_msa."),
            (r"\.mlp\.0\.", ".ffn.layers.0.0."),
            (r"\.mlp\.3\.", ".ffn.layers.1."),
        ),
        merged_patches,
    ),
    "ConvNeXt": Family(
        (
            (r"^classifier\.2\.", "head.fc."),
            (r"^classifier\.0\.", "norm3."),
            (r"^features\.(\d*[02468])\.", lambda m: f"downsample_layers.{int(m[1]) // 2}."),
            (r"^features\.(\d*[13579])\.(\d+)\.", lambda m: f"stages.{int(m[1]) // 2}.{m[2]}."),
            (r"\.layer_scale$", ".gamma"),
            (r"\.block\.0\.", ".depthwise_conv."),
            (r"\.block\.2\.", ".norm."),
            (r"\.block\.3\.", ".pointwise_conv1."),
            (r"\.block\.5\.", ".pointwise_conv2."),
        )
    ),
    "TorchvisionBackbone": Family(
        ((r"^(fc|classifier|head|heads)\.(?=weight|bias)", "head.fc."), (r"^(?!head\.)", "torchvision_model."))
    ),
}
