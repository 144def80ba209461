"""TorchvisionBackbone: torchvision's classification models as a backbone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.backbones.library_weights import fetch_weights, load_own
from distcls.models.common import BaseModule
from distcls.registry import BACKBONES, did_you_mean


def _resnet(model: Any, x: Tensor) -> Tensor:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))


def _shufflenet(model: Any, x: Tensor) -> Tensor:
    return model.conv5(model.stage4(model.stage3(model.stage2(model.maxpool(model.conv1(x))))))


def _maxvit(model: Any, x: Tensor) -> Tensor:
    x = model.stem(x)
    for block in model.blocks:
        x = block(x)
    return x


def _vision_transformer(model: Any, x: Tensor) -> Tensor:
    """The patch tokens arranged as a map, without the class token."""
    rows, columns = (size // model.patch_size for size in x.shape[-2:])
    x = model._process_input(x)
    x = model.encoder(torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1))
    return x[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))


def _features(model: Any, x: Tensor) -> Tensor:
    return model.features(x)


#: torchvision's class -> function that computes its last map, and the later layers, which are removed.
MAPS: dict[str, tuple[Callable[[Any, Tensor], Tensor], tuple[str, ...]]] = {
    "ResNet": (_resnet, ("avgpool", "fc")),
    "RegNet": (lambda model, x: model.trunk_output(model.stem(x)), ("avgpool", "fc")),
    "ShuffleNetV2": (_shufflenet, ("fc",)),
    "DenseNet": (lambda model, x: nn.functional.relu(model.features(x)), ("classifier",)),
    "MNASNet": (lambda model, x: model.layers(x), ("classifier",)),
    "SwinTransformer": (
        lambda model, x: model.norm(model.features(x)).permute(0, 3, 1, 2),
        ("permute", "avgpool", "flatten", "head"),
    ),
    "MaxVit": (_maxvit, ("classifier",)),
    "VisionTransformer": (_vision_transformer, ("heads",)),
    **dict.fromkeys(
        ("AlexNet", "VGG", "MobileNetV2", "MobileNetV3", "EfficientNet", "ConvNeXt"),
        (_features, ("avgpool", "classifier")),
    ),
    "SqueezeNet": (_features, ("classifier",)),
}


@BACKBONES.register
class TorchvisionBackbone(BaseModule):
    """A classification model of torchvision up to its last feature map, without its pooling and classifier.

    Images (N, 3, H, W), normalised with ImageNet's mean and std -> a tuple with the map (N, C, h, w). The tokens of
    vision transformers are arranged as a map. `distcls models PATTERN` lists the names.

    Args:
        model_name: torchvision's: resnet50, efficientnet_v2_s, ...
        pretrained: start from torchvision's newest weights, from torch hub's cache or the network.
        checkpoint_path: start from a file of this model's weights instead; model.init does the same, with a report.
        kwargs: for torchvision: stochastic_depth_prob, image_size, ...

    Raises:
        UserError: no such model, one without a single feature map, or weights that cannot be had.
    """

    def __init__(self, model_name: str, pretrained: bool = False, checkpoint_path: str = "", **kwargs: Any) -> None:
        super().__init__()
        import torchvision.models as zoo  # takes seconds: only if it is used

        known = zoo.list_models(module=zoo)
        if model_name not in known:
            hint = did_you_mean(model_name, known)
            raise ArgumentError("TorchvisionBackbone.model_name", f"torchvision has no model {model_name!r}.{hint}")
        self.model_name = model_name
        self.pretrained, self.checkpoint_path = pretrained, checkpoint_path
        self._arguments = kwargs
        try:
            model = zoo.get_model(model_name, weights=None, **kwargs)
        except (TypeError, ValueError) as error:
            reason = f"torchvision cannot build {model_name!r} like this: {error}"
            raise ArgumentError("TorchvisionBackbone", reason) from error
        name = type(model).__name__
        if name not in MAPS:
            known = ", ".join(sorted(MAPS))
            raise ArgumentError(
                "TorchvisionBackbone",
                f"{name} has outputs beside its map, expected one of {known}; TimmBackbone may have it",
            )
        self._map, after = MAPS[name]
        for part in after:
            if hasattr(model, part):
                delattr(model, part)
        self.torchvision_model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self._map(self.torchvision_model, x),)

    def init_weights(self) -> None:
        """Load pretrained weights, if any; otherwise torchvision's own initialisation is kept. See TimmBackbone."""
        if self.checkpoint_path:
            load_own(self, Path(self.checkpoint_path), "torchvision")
        elif self.pretrained:
            import torchvision.models as zoo

            name = self.model_name
            twin = fetch_weights("torchvision", name, lambda: zoo.get_model(name, weights="DEFAULT", **self._arguments))
            self.torchvision_model.load_state_dict(twin.state_dict(), strict=False)
