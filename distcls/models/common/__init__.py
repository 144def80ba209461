"""Building blocks that backbones, necks and heads share, under mmcv's and mmengine's names."""

from distcls.models.common.activation import build_activation_layer
from distcls.models.common.activation_checkpoint import run_checkpointed
from distcls.models.common.attention import MultiheadAttention, split_heads
from distcls.models.common.base_module import BaseModule
from distcls.models.common.conv import build_conv_layer
from distcls.models.common.conv_module import ConvModule
from distcls.models.common.drop_path import DropPath, DropRate, drop_path_rates
from distcls.models.common.ffn import FFN
from distcls.models.common.flatten_map import FlattenMap
from distcls.models.common.inverted_residual import InvertedResidual, LinearResidual, inverted_layers
from distcls.models.common.layer_norm_2d import LayerNorm2d
from distcls.models.common.make_divisible import make_divisible
from distcls.models.common.norm import build_norm_layer
from distcls.models.common.patch_embed import PatchEmbed, PatchMerging, pair
from distcls.models.common.se_layer import SELayer
from distcls.models.common.weight_init import (
    CONVOLUTIONAL,
    NORM_LAYERS,
    LinearInit,
    constant_init,
    init_layers,
    init_linear_layers,
    kaiming_init,
    normal_init,
    trunc_normal_init,
    uniform_init,
    xavier_init,
)

__all__ = [
    "CONVOLUTIONAL",
    "FFN",
    "NORM_LAYERS",
    "BaseModule",
    "ConvModule",
    "DropPath",
    "DropRate",
    "FlattenMap",
    "InvertedResidual",
    "LayerNorm2d",
    "LinearInit",
    "LinearResidual",
    "MultiheadAttention",
    "PatchEmbed",
    "PatchMerging",
    "SELayer",
    "build_activation_layer",
    "build_conv_layer",
    "build_norm_layer",
    "constant_init",
    "drop_path_rates",
    "init_layers",
    "init_linear_layers",
    "inverted_layers",
    "kaiming_init",
    "make_divisible",
    "normal_init",
    "pair",
    "run_checkpointed",
    "split_heads",
    "trunc_normal_init",
    "uniform_init",
    "xavier_init",
]
