"""What counts as the best evaluation."""

import math

from distcls.engine.checkpoints.progress import Progress


def test_a_first_evaluation_that_is_not_a_number_does_not_stay_the_best():
    progress = Progress(step=10)
    progress.record({"loss": math.nan})
    progress.step = 20
    progress.record({"loss": 0.5})
    progress.step = 30
    progress.record({"loss": math.nan})
    assert progress.best == {"loss": 0.5, "step": 20}
