"""Training rows on their way to the trackers: begun when a window closes, written when its sums have arrived."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distcls.engine.agreement import LAG
from distcls.engine.job import Job
from distcls.engine.metrics import Means


class Rows:
    """One row for each window of `train.log_every_steps` steps, on rank 0's trackers.

    Args:
        job: position, sizes and trackers.
        first_step: where the speed of the first row is measured from (a resumed run's first window is a shorter one).
    """

    def __init__(self, job: Job, first_step: int) -> None:
        self._job = job
        self._pending: deque[tuple[int, Means, dict[str, float], torch.Tensor | None]] = deque()
        self._newest = first_step
        self._mark(first_step)

    def begin(self, step: int, means: Means, rate: float, norm: torch.Tensor | None) -> None:
        """Close the window that ends with `step`. `norm` is the gradient's, before clipping, where it is known."""
        seconds = time.perf_counter() - self._began
        steps = step - self._first
        speed = {
            "optim/lr": rate,
            "perf/img_per_s": steps * self._job.global_batch_size / seconds,
            "perf/step_ms": 1000 * seconds / steps,
            "perf/data_wait_frac": (self._job.train_loader.wait_seconds - self._waited) / seconds,
        }
        if self._stall:
            speed["perf/checkpoint_stall_s"] = self._stall
        self._pending.append((step, means, speed, norm))
        self._mark(step)

    def write(self, *, all_now: bool) -> None:
        """Write the rows begun LAG or more calls ago, which have arrived without anyone waiting; or all of them."""
        self._newest += 1
        while self._pending and (all_now or self._pending[0][0] <= self._newest - LAG):
            step, means, speed, norm = self._pending.popleft()
            values = {f"train/{name}": value for name, value in means.read().items() if name != "n"}
            if norm is not None:
                values["optim/grad_norm"] = float(norm)
            self._job.log({**self._job.position(step), **values, **speed})

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Evaluation and checkpoints do not count as training time."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def add_stall(self, seconds: float) -> None:
        """Training stood still that long for a checkpoint; the next row says so."""
        self._stall += seconds

    def _mark(self, step: int) -> None:
        self._first = step
        self._stall = 0.0
        self._began = time.perf_counter()
        self._waited = self._job.train_loader.wait_seconds
