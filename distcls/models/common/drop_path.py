"""DropPath: stochastic depth per image."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

#: A drop probability; below 1, where nothing would be left.
DropRate = Annotated[float, Field(ge=0, lt=1)]


class DropPath(nn.Module):
    """In training, zero an image's whole input with probability `drop_prob`; the others are divided by 1 - drop_prob.

    On a residual branch this skips the block for that image. Huang et al., "Deep Networks with Stochastic Depth", 2016.

    Args:
        drop_prob: 0 <= drop_prob < 1.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    @property
    def acts(self) -> bool:
        """Whether it has an effect: in training, with a positive probability."""
        return self.drop_prob > 0.0 and self.training

    def forward(self, x: Tensor) -> Tensor:
        if not self.acts:
            return x
        keep_prob = 1.0 - self.drop_prob
        keep = x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(keep_prob)
        return x * keep.div_(keep_prob)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


def drop_path_rates(drop_path_rate: float, num_blocks: int) -> list[float]:
    """The rate of each block: from 0 linearly to `drop_path_rate` at the last. A single block gets 0."""
    return [drop_path_rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]
