"""Backbones: images (N, 3, H, W) -> a feature map, or a tuple of them."""

from distcls.models.backbones.regnet import RegNet
from distcls.models.backbones.resnet import ResNet, ResNetV1c, ResNetV1d
from distcls.models.backbones.resnet_cifar import ResNet_CIFAR
from distcls.models.backbones.resnext import ResNeXt
from distcls.models.backbones.seresnet import SEResNet
from distcls.models.backbones.seresnext import SEResNeXt

__all__ = ["RegNet", "ResNeXt", "ResNet", "ResNetV1c", "ResNetV1d", "ResNet_CIFAR", "SEResNeXt", "SEResNet"]
