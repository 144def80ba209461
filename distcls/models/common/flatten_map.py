"""FlattenMap: a feature map of one fixed size -> a vector, for the fully connected layers of the older networks."""

from torch import Tensor, nn

from distcls.errors import ArgumentError


class FlattenMap(nn.Module):
    """(N, C, size, size) -> (N, C * size * size).

    Args:
        size: height and width of the map, in positions.
        image_size: height and width of the images that give this map, in pixels, for the message.
        owner: class whose classifier needs it, for the message.

    Raises:
        UserError: in forward, a map of another size.
    """

    def __init__(self, size: int, image_size: int, owner: str) -> None:
        super().__init__()
        self.size = size
        self.image_size = image_size
        self.owner = owner

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if (height, width) != (self.size, self.size):
            raise ArgumentError(
                self.owner,
                f"with num_classes it takes images of {self.image_size} x {self.image_size} pixels, "
                f"whose last map is {self.size} x {self.size}; got one of {height} x {width}",
            )
        return x.flatten(1)
