import math

from distcls.engine.checkpoints.progress import Progress


def best_of(name: str, *values: float) -> int:
    """The step, from 1, whose evaluation is the best."""
    progress = Progress()
    for step, value in enumerate(values, start=1):
        progress.step = step
        progress.record({name: value, "n": 1})
    return int(progress.best["step"])


def test_the_first_of_the_best_is_the_best():
    assert best_of("top1", 0.1, 0.5, 0.5, 0.2) == 2
    assert best_of("loss", 3.0, 1.0, 1.0, 2.0) == 2


def test_a_loss_that_is_no_number_is_never_better():
    assert best_of("loss", math.nan, 2.0, math.nan, 3.0) == 2
    assert best_of("loss", math.inf, 2.0) == 2
