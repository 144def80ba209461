"""AlexNet: the network that won ImageNet in 2012, in its one-GPU form."""

from torch import Tensor, nn

from distcls.models.common import BaseModule, FlattenMap
from distcls.registry import BACKBONES


@BACKBONES.register
class AlexNet(BaseModule):
    """Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

    https://arxiv.org/abs/1404.5997. Argument and state_dict names are MMPretrain 1.2's and torchvision's.

    Images (N, 3, H, W) -> the map (N, 256, H / 32 - 1, W / 32 - 1) in a tuple; with num_classes images of 224 x 224
    pixels -> the scores (N, num_classes) in a tuple, and a ClsHead without neck follows.

    Args:
        num_classes: 0 or less leaves the classifier out.

    Raises:
        UserError: in forward, images that the classifier cannot take.
    """

    def __init__(self, num_classes: int = -1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        if num_classes > 0:
            self.flatten = FlattenMap(6, image_size=224, owner="AlexNet")
            self.classifier = nn.Sequential(
                nn.Dropout(),
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Linear(4096, num_classes),
            )

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.features(x)
        return (self.classifier(self.flatten(x)) if self.num_classes > 0 else x,)
