"""Writes docs/models.md from what is registered: `python docs/make_models.py`; --check only says whether it is stale.

Parameters and FLOPs are counted on torch's meta device, where nothing is computed. Every registered backbone needs an
example below.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from distcls.models import build_classifier
from distcls.registry import BACKBONES, HEADS, LOSSES, NECKS, Registry

PAGE = Path(__file__).with_name("models.md")
GAP = {"type": "GlobalAveragePooling"}
LINEAR = {"type": "LinearClsHead", "num_classes": 1000}
SCORES = {"type": "ClsHead"}  # behind a backbone that classifies itself
VIT = {"type": "VisionTransformerClsHead", "num_classes": 1000}
ANY_MODEL = {"TimmBackbone": "timm", "TorchvisionBackbone": "torchvision"}


@dataclass
class Example:
    """One line of the page.

    Args:
        backbone: its block. neck, head: what makes it a classifier.
        weights: models of torchvision and timm whose files load.
        image: (channels, height, width).
    """

    backbone: dict[str, Any]
    weights: str = ""
    neck: dict[str, Any] | None = field(default_factory=lambda: GAP)
    head: dict[str, Any] = field(default_factory=lambda: LINEAR)
    image: tuple[int, int, int] = (3, 224, 224)

    def counts(self) -> tuple[int, int]:
        """Parameters, and FLOPs for one image."""
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            block = {"backbone": self.backbone, "neck": self.neck, "head": self.head}
            model = build_classifier(block, self.image[1:]).eval()
            built = counter.get_total_flops()  # the dry run's
            model(torch.zeros(1, *self.image))
        return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() - built


def sizes(type: str, argument: str, values: list[tuple[Any, str]], **more: Any) -> list[Example]:
    return [Example({"type": type, argument: value}, weights, **more) for value, weights in values]


EXAMPLES = [
    Example({"type": "LeNet5", "num_classes": 10}, "", None, SCORES, (1, 32, 32)),
    Example({"type": "AlexNet", "num_classes": 1000}, "torchvision alexnet", None, SCORES),
    Example({"type": "VGG", "depth": 11, "num_classes": 1000}, "torchvision vgg11", None, SCORES),
    Example(
        {"type": "VGG", "depth": 16, "norm_cfg": {"type": "BN"}, "num_classes": 1000},
        "torchvision vgg16_bn, timm vgg16_bn",
        None,
        SCORES,
    ),
    *sizes("ResNet", "depth", [(k, f"torchvision resnet{k}, timm resnet{k}") for k in (18, 34, 50, 101)]),
    Example(
        {"type": "ResNet", "depth": 50, "base_channels": 128, "expansion": 2},
        "torchvision wide_resnet50_2, timm wide_resnet50_2",
    ),
    Example({"type": "ResNet_CIFAR", "depth": 18}, "", head={**LINEAR, "num_classes": 10}, image=(3, 32, 32)),
    *sizes("ResNetV1c", "depth", [(50, "timm resnet50c")]),
    *sizes("ResNetV1d", "depth", [(50, "timm resnet50d")]),
    Example(
        {"type": "ResNeXt", "depth": 50, "groups": 32, "width_per_group": 4},
        "torchvision resnext50_32x4d, timm resnext50_32x4d",
    ),
    *sizes("SEResNet", "depth", [(50, "timm seresnet50")]),
    Example({"type": "SEResNeXt", "depth": 50, "groups": 32, "width_per_group": 4}, "timm seresnext50_32x4d"),
    *sizes("RegNet", "arch", [("regnetx_400mf", "timm regnetx_004"), ("regnetx_800mf", "torchvision regnet_x_800mf")]),
    *sizes("RepVGG", "arch", [("A0", "timm repvgg_a0")]),
    *sizes("DenseNet", "arch", [("121", "torchvision densenet121, timm densenet121")]),
    *sizes("MobileNetV2", "widen_factor", [(1.0, "torchvision mobilenet_v2, timm mobilenetv2_100")]),
    *[
        Example(
            {"type": "MobileNetV3", "arch": arch},
            weights,
            head={**LINEAR, "type": "StackedLinearClsHead", "mid_channels": [width], "act_cfg": {"type": "HSwish"}},
        )
        for arch, width, weights in (
            ("small", 1024, "torchvision mobilenet_v3_small, timm mobilenetv3_small_100 (BatchNorm eps 1e-5)"),
            ("large", 1280, "torchvision mobilenet_v3_large"),
        )
    ],
    *sizes("ShuffleNetV2", "widen_factor", [(1.0, "torchvision shufflenet_v2_x1_0")]),
    *sizes("EfficientNet", "arch", [("b0", "timm tf_efficientnet_b0"), ("b1", "timm tf_efficientnet_b1")]),
    *sizes("ConvNeXt", "arch", [("atto", "timm convnext_atto"), ("tiny", "torchvision convnext_tiny")], neck=None),
    *sizes(
        "VisionTransformer",
        "arch",
        [("deit-small", "timm vit_small_patch16_224"), ("base", "torchvision vit_b_16")],
        neck=None,
        head=VIT,
    ),
    *sizes(
        "DistilledVisionTransformer",
        "arch",
        [("deit-tiny", "timm deit_tiny_distilled_patch16_224")],
        neck=None,
        head={**VIT, "type": "DeiTClsHead"},
    ),
    *sizes("SwinTransformer", "arch", [("tiny", "torchvision swin_t, timm swin_tiny_patch4_window7_224")]),
]

HEAD = """\
# Models

Backbones, necks, heads and losses for recipes. Generated by `python docs/make_models.py`: do not edit.
`distcls models PATTERN` searches backbones by name, including those of timm and torchvision. `distcls recipe schema`
writes a JSON schema with which editors complete all arguments; the docstring of a class explains them.

## Backbones

Names, arguments and state_dict keys are MMPretrain's, so OpenMMLab's checkpoints load without renaming. The last
column names models of torchvision and timm whose weights load too (tests/models/weights checks equal logits for each
family). Parameters and FLOPs are for the whole classifier (1000 classes; 10 for 32 x 32 pixels) and one image. A
multiplication with its addition counts as two FLOPs; convolutions, linear layers and attention are counted.
"""


def page() -> str:
    """The text of models.md.

    Raises:
        SystemExit: a registered backbone has no example.
    """
    missing = set(BACKBONES.names()) - {example.backbone["type"] for example in EXAMPLES} - set(ANY_MODEL)
    if missing:
        raise SystemExit(f"docs/make_models.py has no example of {', '.join(sorted(missing))}: add one to EXAMPLES")
    lines = [HEAD]
    lines += table(
        ("Backbone", "Image", "Parameters", "GFLOPs", "Reference", "Weights of"), [row(example) for example in EXAMPLES]
    )
    lines += [
        f"\n`{{type: {name}, model_name: NAME}}`: any classification model of {library}; {library}'s weights load."
        for name, library in ANY_MODEL.items()
        if name in BACKBONES
    ]
    for title, registry in (("Necks", NECKS), ("Heads", HEADS), ("Losses", LOSSES)):
        lines += ["", f"## {title}", ""]
        entries = [(f"`{name}`", cell(summary(registry[name])), reference(registry, name)) for name in registry.names()]
        lines += table((title[:-1].replace("Losse", "Loss"), "What it does", "Reference"), entries)
    return "\n".join(lines) + "\n"


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (titles, ("---",) * len(titles), *rows)]


def row(example: Example) -> tuple[str, ...]:
    parameters, flops = example.counts()
    block = ", ".join(f"{key}: {yaml(value)}" for key, value in example.backbone.items())
    channels, height, width = example.image
    image = f"{height} x {width}" + ("" if channels == 3 else f", {channels} channel")
    about = reference(BACKBONES, example.backbone["type"])
    return f"`{{{block}}}`", image, f"{parameters:,}", f"{flops / 1e9:.3g}", about, example.weights or "-"


def yaml(value: Any) -> str:
    return (
        "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
        if isinstance(value, dict)
        else str(value)
    )


def summary(cls: type) -> str:
    """The first sentences of the docstring without what the other column says; or of its file's, if that is all."""
    words = " ".join((cls.__doc__ or "").partition("\n\n")[0].split())
    paper = r"[A-Z]\w+ et al\., \"[^\"]+\"[^.]*\."
    words = re.sub(rf"\s*(Follows MMPretrain 1\.2\.|{paper})", "", words)
    return words or (sys.modules[cls.__module__].__doc__ or "").split(": ", 1)[-1]


def reference(registry: Registry, name: str) -> str:
    """The paper that the class, or the nearest of its bases that does, names in its docstring."""
    for cls in registry[name].__mro__:
        text = " ".join((vars(cls).get("__doc__") or "").split())
        paper = re.search(r"([A-Z]\w+(?: et al\.| and \w+)?), \"([^\"]{8,})\", (\d{4})", text)
        if paper and cls.__module__.startswith("distcls."):
            link = re.search(r"https://arxiv\.org/abs/[\d.]*\d", text[paper.end() :])
            said = cell(f"{paper[1]}, {paper[2]}, {paper[3]}")
            return f"[{said}]({link[0]})" if link else said
    return "-"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE} is stale: run python docs/make_models.py")
    PAGE.write_text(text)
