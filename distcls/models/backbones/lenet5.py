"""LeNet5: handwritten digits, 1998."""

from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.common import BaseModule
from distcls.registry import BACKBONES


@BACKBONES.register
class LeNet5(BaseModule):
    """LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998.

    Argument and state_dict names are MMPretrain 1.2's.

    Images (N, in_channels, H, W) -> the map (N, 120, H / 4 - 7, W / 4 - 7) in a tuple; with num_classes images of
    32 x 32 pixels -> the scores (N, num_classes) in a tuple, and a ClsHead without neck follows.

    Args:
        num_classes: 0 or less leaves the classifier out.
        in_channels: of the images; 3 for grey images that are stored as RGB. MMPretrain has no such argument.

    Raises:
        UserError: in forward, images of another size where there is a classifier.
    """

    def __init__(self, num_classes: int = -1, in_channels: int = 1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5),
            nn.Tanh(),
            nn.AvgPool2d(kernel_size=2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.Tanh(),
            nn.AvgPool2d(kernel_size=2),
            nn.Conv2d(16, 120, kernel_size=5),
            nn.Tanh(),
        )
        if num_classes > 0:
            self.classifier = nn.Sequential(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, num_classes))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        if self.num_classes <= 0:
            return (self.features(x),)
        height, width = x.shape[2:]
        if (height, width) != (32, 32):
            raise ArgumentError("LeNet5", f"with num_classes it takes images of 32 x 32 pixels, got {height} x {width}")
        return (self.classifier(self.features(x).flatten(1)),)
