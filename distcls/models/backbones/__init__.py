"""Backbones: images (N, 3, H, W) -> a feature map, or a tuple of them."""

from distcls.models.backbones.resnet import ResNet, ResNetV1c, ResNetV1d
from distcls.models.backbones.resnet_cifar import ResNet_CIFAR

__all__ = ["ResNet", "ResNetV1c", "ResNetV1d", "ResNet_CIFAR"]
