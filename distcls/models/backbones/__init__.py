"""Backbones: images (N, 3, H, W) -> a feature map, or a tuple of them."""

from distcls.models.backbones.alexnet import AlexNet
from distcls.models.backbones.convnext import ConvNeXt
from distcls.models.backbones.deit import DistilledVisionTransformer
from distcls.models.backbones.densenet import DenseNet
from distcls.models.backbones.efficientnet import EfficientNet
from distcls.models.backbones.lenet5 import LeNet5
from distcls.models.backbones.mobilenet_v2 import MobileNetV2
from distcls.models.backbones.mobilenet_v3 import MobileNetV3
from distcls.models.backbones.regnet import RegNet
from distcls.models.backbones.repvgg import RepVGG
from distcls.models.backbones.resnet import ResNet, ResNetV1c, ResNetV1d
from distcls.models.backbones.resnet_cifar import ResNet_CIFAR
from distcls.models.backbones.resnext import ResNeXt
from distcls.models.backbones.seresnet import SEResNet
from distcls.models.backbones.seresnext import SEResNeXt
from distcls.models.backbones.shufflenet_v2 import ShuffleNetV2
from distcls.models.backbones.swin_transformer import SwinTransformer
from distcls.models.backbones.timm_backbone import TimmBackbone
from distcls.models.backbones.torchvision_backbone import TorchvisionBackbone
from distcls.models.backbones.vgg import VGG
from distcls.models.backbones.vision_transformer import VisionTransformer

__all__ = [
    "VGG",
    "AlexNet",
    "ConvNeXt",
    "DenseNet",
    "DistilledVisionTransformer",
    "EfficientNet",
    "LeNet5",
    "MobileNetV2",
    "MobileNetV3",
    "RegNet",
    "RepVGG",
    "ResNeXt",
    "ResNet",
    "ResNetV1c",
    "ResNetV1d",
    "ResNet_CIFAR",
    "SEResNeXt",
    "SEResNet",
    "ShuffleNetV2",
    "SwinTransformer",
    "TimmBackbone",
    "TorchvisionBackbone",
    "VisionTransformer",
]
