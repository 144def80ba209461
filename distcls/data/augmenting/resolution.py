"""The side of training images as a function of the epoch: progressive resizing (Howard 2018, FFCV's recipes)."""

from distcls.errors import ArgumentError


class Resolution:
    """`start` pixels up to epoch ramp[0], `end` from epoch ramp[1] on, and a straight line in between.

    The rule is ffcv-imagenet's; epochs count from 0.

    Args:
        start, end: pixels a side.
        ramp: the last epoch of `start`, and the first of `end`.
        multiple_of: pixels; the line is rounded to multiples of this.

    Raises:
        UserError: a ramp that ends before it begins.
    """

    def __init__(self, *, start: int, end: int, ramp: tuple[int, int], multiple_of: int = 32) -> None:
        if ramp[0] > ramp[1]:
            raise ArgumentError("data.resolution.ramp", f"got {list(ramp)}, expected its first epoch before its last")
        self.start = start
        self.end = end
        self.ramp = ramp
        self.multiple_of = multiple_of

    @classmethod
    def constant(cls, side: int) -> "Resolution":
        """The same side in every epoch."""
        return cls(start=side, end=side, ramp=(0, 0))

    @property
    def largest(self) -> int:
        return max(self.start, self.end)

    def sides(self) -> set[int]:
        """Every side that some epoch has."""
        return {self.at(epoch) for epoch in range(self.ramp[0], self.ramp[1] + 1)}

    def at(self, epoch: int) -> int:
        """Pixels per side in an epoch."""
        first, last = self.ramp
        if epoch <= first:
            return self.start
        if epoch >= last:
            return self.end
        line = self.start + (self.end - self.start) * (epoch - first) / (last - first)
        rounded = round(line / self.multiple_of) * self.multiple_of
        return min(max(rounded, min(self.start, self.end)), self.largest)
