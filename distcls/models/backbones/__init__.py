"""Backbones: images (N, 3, H, W) -> a feature map, or a tuple of them."""

from distcls.models.backbones.convnext import ConvNeXt
from distcls.models.backbones.deit import DistilledVisionTransformer
from distcls.models.backbones.resnet import ResNet, ResNetV1c, ResNetV1d
from distcls.models.backbones.resnet_cifar import ResNet_CIFAR
from distcls.models.backbones.swin_transformer import SwinTransformer
from distcls.models.backbones.vision_transformer import VisionTransformer

__all__ = [
    "ConvNeXt",
    "DistilledVisionTransformer",
    "ResNet",
    "ResNetV1c",
    "ResNetV1d",
    "ResNet_CIFAR",
    "SwinTransformer",
    "VisionTransformer",
]
