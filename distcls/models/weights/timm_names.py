"""timm's names -> ours, by backbone."""

import re
from collections.abc import Iterable
from typing import Any

from distcls.models.weights.rules import DENSENET, Family, Rule, less_one, merged_patches, vgg_features

#: The parts of an inverted residual, by the name in timm; a block without expansion has no conv_pwl.
EXPANDED = {
    "conv_pw": "expand_conv.conv",
    "bn1": "expand_conv.bn",
    "conv_dw": "depthwise_conv.conv",
    "bn2": "depthwise_conv.bn",
    "conv_pwl": "linear_conv.conv",
    "bn3": "linear_conv.bn",
}
NARROW = {
    "conv_dw": "depthwise_conv.conv",
    "bn1": "depthwise_conv.bn",
    "conv_pw": "linear_conv.conv",
    "bn2": "linear_conv.bn",
}


def _resnet_d(names: Iterable[str], backbone: Any) -> list[Rule]:
    """V1c and V1d: three convolutions in the stem; without averaging, timm's shortcut still has an index for it."""
    rules: list[Rule] = [
        (r"^fc\.", "head.fc."),
        (r"^conv1\.([036])\.", lambda m: f"stem.{int(m[1]) // 3}.conv."),
        (r"^conv1\.([14])\.", lambda m: f"stem.{int(m[1]) // 3}.bn."),
        (r"^bn1\.", "stem.2.bn."),
    ]
    if "layer1.0.downsample.2.weight" in names:
        rules.append((r"^layer1\.0\.downsample\.(\d)", lambda m: f"layer1.0.downsample.{less_one(m[1])}"))
    return rules


def _mobilenet_v2(names: Iterable[str], backbone: Any) -> list[Rule]:
    def part(match: re.Match[str]) -> str:
        stage, block, name = match[1], match[2], match[3]
        order = NARROW if f"blocks.{stage}.{block}.conv_pwl.weight" not in names else EXPANDED
        kind = "bn" if name.startswith("bn") else "conv"
        return f"layer{int(stage) + 1}.{block}.conv.{list(order).index(name) // 2}.{kind}."

    return [
        (r"^classifier\.", "head.fc."),
        (r"^conv_stem\.", "conv1.conv."),
        (r"^bn1\.", "conv1.bn."),
        (r"^conv_head\.", "conv2.conv."),
        (r"^bn2\.", "conv2.bn."),
        (r"^blocks\.(\d+)\.(\d+)\.(conv_pwl|conv_pw|conv_dw|bn\d)\.", part),
    ]


def _inverted_residuals(names: Iterable[str], backbone: Any) -> list[Rule]:
    """Names within the blocks of EfficientNet and MobileNetV3; other rules map the blocks' positions."""

    def part(match: re.Match[str]) -> str:
        parts = EXPANDED if f"{match[1]}.conv_pwl.weight" in names else NARROW
        return f"{match[1]}.{parts[match[2]]}."

    return [
        (r"\.se\.conv_reduce\.", ".se.conv1.conv."),
        (r"\.se\.conv_expand\.", ".se.conv2.conv."),
        (r"^(blocks\.\d+\.\d+)\.(conv_pwl|conv_pw|conv_dw|bn\d)\.", part),
    ]


def _efficientnet(names: Iterable[str], backbone: Any) -> list[Rule]:
    """timm's stages 3 and 4, and 5 and 6, are one layer of ours each, because they share a resolution."""
    blocks = _stage_blocks(names)
    places: dict[tuple[int, int], str] = {}
    for stage, layer in enumerate((1, 2, 3, 4, 4, 5, 5)):
        before = len(blocks.get(stage - 1, ())) if stage in (4, 6) else 0
        places |= {(stage, block): f"layers.{layer}.{before + block}." for block in blocks.get(stage, ())}
    return [
        (r"^classifier\.", "head.fc."),
        (r"^conv_stem\.", "layers.0.conv."),
        (r"^bn1\.", "layers.0.bn."),
        (r"^conv_head\.", "layers.6.conv."),
        (r"^bn2\.", "layers.6.bn."),
        *_inverted_residuals(names, backbone),
        (r"^blocks\.(\d+)\.(\d+)\.", lambda m: places[int(m[1]), int(m[2])]),
    ]


def _mobilenet_v3(names: Iterable[str], backbone: Any) -> list[Rule]:
    """The blocks of all stages, numbered consecutively, are layer1, layer2, ...; the last stage is a convolution."""
    order = [(stage, block) for stage, blocks in sorted(_stage_blocks(names).items()) for block in sorted(blocks)]
    places = {place: f"layer{i + 1}." for i, place in enumerate(order)}
    return [
        (r"^conv_head\.", "head.layers.0.fc."),
        (r"^classifier\.", "head.layers.1.fc."),
        (r"^conv_stem\.", "layer0.conv."),
        (r"^bn1\.", "layer0.bn."),
        (rf"^blocks\.{order[-1][0] if order else 0}\.0\.(conv|bn)1?\.", rf"layer{len(order)}.\1."),
        *_inverted_residuals(names, backbone),
        (r"^blocks\.(\d+)\.(\d+)\.", lambda m: places[int(m[1]), int(m[2])]),
    ]


def _stage_blocks(names: Iterable[str]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for match in filter(None, (re.match(r"blocks\.(\d+)\.(\d+)\.", name) for name in names)):
        found.setdefault(int(match[1]), set()).add(int(match[2]))
    return found


def _vgg(names: Iterable[str], backbone: Any) -> list[Rule]:
    return [
        (r"^pre_logits\.fc1\.", "classifier.0."),
        (r"^pre_logits\.fc2\.", "classifier.3."),
        (r"^head\.fc\.", "classifier.6."),
        *vgg_features(list(names), backbone),
    ]


def _swin(names: Iterable[str], backbone: Any) -> list[Rule]:
    """Since timm 0.9 patch merging begins the next stage; in the authors' files it ends a stage, as in ours."""
    late = any(name.startswith("layers.0.downsample.") for name in names)
    return [
        (r"^head\.(?:fc\.)?", "head.fc."),
        (r"^norm\.", "norm3."),
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^layers\.(\d+)\.downsample\.", lambda m: f"stages.{int(m[1]) - (not late)}.downsample."),
        (r"^layers\.(\d+)\.", r"stages.\1."),
        (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    ]


def _own_model(names: Iterable[str], backbone: Any) -> list[Rule]:
    """TimmBackbone wraps timm's model unchanged; only the classifier has another name."""
    classifiers = getattr(backbone.timm_model, "pretrained_cfg", {}).get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    rules: list[Rule] = [(rf"^{re.escape(name)}\.(weight|bias)$", r"head!fc.\1") for name in classifiers]
    return [*rules, (r"^(?!head!)", "timm_model."), (r"^head!", "head.")]


VIT: tuple[Rule, ...] = (
    (r"^(head|head_dist)\.", r"head.layers.\1."),
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^norm_pre\.", "pre_norm."),
    (r"^norm\.", "ln1."),
    (r"^fc_norm\.", "ln2."),
    (r"^blocks\.", "layers."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"\.(?:ls1\.gamma|gamma_1)$", ".attn.gamma1.weight"),
    (r"\.(?:ls2\.gamma|gamma_2)$", ".ffn.gamma2.weight"),
)
RESNET: tuple[Rule, ...] = ((r"^fc\.", "head.fc."), (r"\.se\.fc([12])\.", r".se_layer.conv\1.conv."))

TIMM: dict[str, Family] = {
    "ResNet": Family(RESNET),
    "SEResNet": Family(RESNET),
    "ResNetV1c": Family(_resnet_d),
    "ResNetV1d": Family(_resnet_d),
    "RegNet": Family(
        (
            (r"^stem\.(conv|bn)\.", r"\g<1>1."),
            (r"^s(\d)\.b(\d+)\.", lambda m: f"layer{m[1]}.{less_one(m[2])}."),
            (r"\.conv(\d)\.conv\.", r".conv\1."),
            (r"\.conv(\d)\.bn\.", r".bn\1."),
            (r"\.downsample\.conv\.", ".downsample.0."),
            (r"\.downsample\.bn\.", ".downsample.1."),
        )
    ),
    "DenseNet": DENSENET,
    "MobileNetV2": Family(_mobilenet_v2),
    "MobileNetV3": Family(_mobilenet_v3),
    "EfficientNet": Family(_efficientnet),
    "VGG": Family(_vgg),
    "RepVGG": Family(
        (
            (r"^stages\.(\d)\.", lambda m: f"stage_{int(m[1]) + 1}."),
            (r"\.conv_kxk\.", ".branch_3x3."),
            (r"\.conv_1x1\.", ".branch_1x1."),
            (r"\.identity\.", ".branch_norm."),
            (r"\.bn\.", ".norm."),
        )
    ),
    "VisionTransformer": Family(VIT),
    "SwinTransformer": Family(_swin, merged_patches),
    "ConvNeXt": Family(
        (
            (r"^head\.norm\.|^norm\.", "norm3."),
            (r"^head\.(?:fc\.)?", "head.fc."),
            (r"^stem\.", "downsample_layers.0."),
            (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
            (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
            (r"\.(?:conv_dw|dwconv)\.", ".depthwise_conv."),
            (r"\.(?:mlp\.fc|pwconv)([12])\.", r".pointwise_conv\1."),
            (r"\.mlp\.grn\.weight$", ".grn.gamma"),
            (r"\.mlp\.grn\.bias$", ".grn.beta"),
        )
    ),
    "TimmBackbone": Family(_own_model),
}
