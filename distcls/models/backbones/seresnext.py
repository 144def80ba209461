"""SEResNeXt: ResNeXt with squeeze and excitation in its blocks."""

from distcls.models.backbones.resnext import ResNeXt
from distcls.models.backbones.seresnet import SEResNet
from distcls.registry import BACKBONES


@BACKBONES.register
class SEResNeXt(SEResNet, ResNeXt):
    """SEResNet's blocks with ResNeXt's groups. Hu et al., "Squeeze-and-Excitation Networks", 2017, table 2.

    Arguments (depth, se_ratio, groups, width_per_group and ResNet's) and state_dict names are MMPretrain 1.2's.
    """
