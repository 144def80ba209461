"""A model of milliseconds for scripts that run on two ranks: two blocks between two layers, one bias frozen."""

from collections.abc import Callable

from torch import nn


class SmallModel(nn.Module):
    """Rows (N, 5) -> scores (N, 3).

    Args:
        block: makes a block of width 7.
    """

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(5, 7), block(), block())
        self.backbone[0].bias.requires_grad_(False)
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        return self.head(self.backbone(x))
