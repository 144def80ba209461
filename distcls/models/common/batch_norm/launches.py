"""How the kernels are laid over a map: tiles, the parts of a sum, warps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_ROWS, _CHANNELS = 16, 128  # of a tile


@dataclass(frozen=True)
class Tuning:
    """What benchmarks/ceiling.py tries. Only the parts, by the order of additions, have a share in what is computed.

    Attributes:
        parts: about so many programs share a sum; 528 are four a multiprocessor of an H100, as many as its registers
            hold. parts_of_two: the same where a normalised shortcut is summed beside it, which takes more registers:
            with a fourth of them left over for a second round, the GPU would be half idle in it.
        warps: of a program that sums. Sums wait for memory, and more of them wait at once.
        stages: tiles that such a program reads ahead, through shared memory; 1 reads none.
        descending: results are written from the map's end, so that the next layer finds its beginning in the L2.
    """

    parts: int = 528
    parts_of_two: int = 396
    warps: int = 8
    stages: int = 1
    descending: bool = False


TUNING = Tuning()


class Launches:
    """A map as rows x channels, how its sums are parted, and the launch of a kernel over it.

    Args:
        x: (N, C, H, W), channels-last.
        two: a sum also reads a shortcut that has a norm of its own.
    """

    def __init__(self, x: Tensor, *, two: bool = False) -> None:
        images, self.channels, self.height, self.width = x.shape
        self.rows = images * self.height * self.width
        self.block = min(_CHANNELS, 1 << (self.channels - 1).bit_length())
        self.columns = -(-self.channels // self.block)
        tile = _ROWS * _CHANNELS // self.block
        self.tile = {"BLOCK_ROWS": tile, "BLOCK_CHANNELS": self.block}
        programs = TUNING.parts_of_two if two else TUNING.parts
        parts = min(max(1, programs // self.columns), -(-self.rows // tile))
        self.rows_each = -(-self.rows // parts)
        self.parts = -(-self.rows // self.rows_each)
        self.sums = {"BLOCK_PARTS": 64, "BLOCK_CHANNELS": min(self.block, 32)}
        self.direction = {"DESCENDING": TUNING.descending}
        self.pooled = ((self.height - 1) // 2 + 1, (self.width - 1) // 2 + 1)

    def over_parts(self, kernel: Any) -> Callable[..., None]:
        options = {"STAGES": TUNING.stages, "num_warps": TUNING.warps, **self.tile}
        return lambda *values, **kind: kernel[(self.parts, self.columns)](*values, **kind, **options)

    def over_channels(self, kernel: Any) -> Callable[..., None]:
        grid = (1, -(-self.channels // self.sums["BLOCK_CHANNELS"]))
        return lambda *values: kernel[grid](*values, **self.sums)

    def over_rows(self, kernel: Any, rows: int) -> Callable[..., None]:
        grid = (-(-rows // self.tile["BLOCK_ROWS"]), self.columns)
        return lambda *values, **kind: kernel[grid](*values, **kind, **self.tile)
