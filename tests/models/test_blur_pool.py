"""Networks with BlurPoolConv2d are ffcv-imagenet's: a binomial blur before every strided convolution of 16 channels."""

import torch
import torch.nn.functional as F

from distcls.models.backbones.resnet import ResNet
from distcls.models.common.blur_pool import BlurPoolConv2d

BLUR = {"type": "BlurPoolConv2d"}


def test_a_strided_convolution_blurs_first():
    torch.manual_seed(0)
    conv, x = BlurPoolConv2d(16, 4, 3, stride=2, padding=1), torch.randn(2, 16, 9, 9)
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    rows = F.conv2d(x.flatten(0, 1)[:, None], line.view(1, 1, 3, 1), padding=(1, 0))
    blurred = F.conv2d(rows, line.view(1, 1, 1, 3), padding=(0, 1)).view_as(x)
    torch.testing.assert_close(conv(x), F.conv2d(blurred, conv.weight, conv.bias, stride=2, padding=1))


def test_others_do_not():
    x = torch.randn(1, 16, 8, 8)
    for conv, given in ((BlurPoolConv2d(16, 4, 3), x), (BlurPoolConv2d(15, 4, 3, stride=2), x[:, :15])):
        assert torch.equal(conv(given), F.conv2d(given, conv.weight, conv.bias, conv.stride))


def test_where_a_resnet50_blurs():
    with torch.device("meta"):
        plain, blurred = ResNet(50), ResNet(50, conv_cfg=BLUR)
    assert blurred.state_dict().keys() == plain.state_dict().keys(), "files of plain ResNets no longer load"
    blurs = [name for name, layer in blurred.named_modules() if getattr(layer, "blurs", False)]
    assert blurs == [f"layer{i}.0.{name}" for i in (2, 3, 4) for name in ("conv2", "downsample.0")]
