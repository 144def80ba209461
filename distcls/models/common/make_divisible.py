"""make_divisible: rounds channel counts to multiples that suit the hardware."""


def make_divisible(value: float, divisor: int, min_value: int | None = None, min_ratio: float = 0.9) -> int:
    """The multiple of `divisor` nearest to `value`, or the next one up where rounding down loses too much.

    From the MobileNet authors' code, as in mmpretrain.models.utils.

    Args:
        min_value: at least this; None takes `divisor`.
        min_ratio: the least result / value.
    """
    nearest = int(value + divisor / 2) // divisor * divisor
    result = max(divisor if min_value is None else min_value, nearest)
    return result + divisor if result < min_ratio * value else result
