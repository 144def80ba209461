"""Launch configuration of the kernels: tiles, partial sums, warps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_ROWS, _CHANNELS = 16, 128  # tile size


@dataclass(frozen=True)
class Tuning:
    """Tuning parameters, compared by benchmarks/ceiling.py. Only the parts affect results, by the order of additions.

    Attributes:
        parts: approximate number of programs that share a sum; 528 is four per multiprocessor of an H100, as many as
            its registers allow.
        parts_of_two: the same for sums that also read a normalised shortcut, which takes more registers: of 528
            programs, a quarter would run in a second wave that leaves the GPU half idle.
        warps: per program that sums. Sums wait for memory, and more warps wait concurrently.
        stages: tiles that such a program prefetches through shared memory; 1: no prefetching.
        descending: write results from the map's end, so that the next layer finds its beginning in the L2 cache.
    """

    parts: int = 528
    parts_of_two: int = 396
    warps: int = 8
    stages: int = 1
    descending: bool = False


TUNING = Tuning()


class Launches:
    """A map viewed as rows x channels, the partition of its sums, and kernel launches over it.

    Args:
        x: (N, C, H, W), channels-last.
        two: sums also read a shortcut that has its own norm.
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
