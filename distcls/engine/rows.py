"""Training rows on their way to the trackers: begun when a window closes, written when its sums have arrived.

Between the two lie LAG steps, after which everything that a row reads lies in the device's past: nothing waits.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from distcls.engine.job import Job
from distcls.engine.performance.bottleneck import verdict
from distcls.engine.performance.phases import PHASES, Exchange, Mark, Phases
from distcls.engine.ranks.reduction import SumOverRanks
from distcls.engine.stopping.agreement import LAG
from distcls.engine.totals import Means


@dataclass
class _Row:
    """What a row needs until it is written; `means` is None for that of an epoch."""

    step: int
    marks: list[Mark]
    values: dict[str, float]
    means: Means | None = None
    seconds: float = 0.0
    scalars: tuple[list[str], SumOverRanks] | None = None


class Rows:
    """One row for each window of `train.log_every_steps` steps, and one of time's shares for each epoch.

    Every rank keeps the same windows; rank 0 alone has trackers, and alone measures.

    Args:
        job: position, sizes and trackers.
        first_step: where the speed of the first row is measured from (a resumed run's first window is a shorter one).
    """

    def __init__(self, job: Job, first_step: int) -> None:
        self._job = job
        self._phases = Phases(job.device)
        self._exchange = Exchange(job.strategy.model)
        if job.rank == 0:
            job.train_loader.mark = self._phases.mark
        self._pending: deque[_Row] = deque()
        self._newest = first_step
        self._epoch_began = first_step
        self._spent = dict.fromkeys(PHASES, 0.0)
        self._waited = 0.0  # for data, in the window: an epoch may end within it
        self._mark(first_step)

    def begin(self, step: int, means: Means, factor: float, norm: torch.Tensor | None) -> None:
        """Close the window that ends with `step`.

        Args:
            factor: the schedule's, of the learning rates.
            norm: of the gradient, before clipping.
        """
        job, seconds = self._job, time.perf_counter() - self._began
        steps = step - self._first
        speed = steps * job.global_batch_size / seconds
        values = {
            **{name: rate * factor for name, rate in job.learning_rates.items()},
            "perf/img_per_s": speed,
            "perf/img_per_s_per_gpu": speed / job.world_size,
            "perf/step_ms": 1000 * seconds / steps,
            **job.device_facts.mfu(speed, [job.train_loader.resolution_at(one) for one in range(self._first, step)]),
        }
        if self._stall:
            values["perf/checkpoint_stall_s"] = self._stall
        self._pending.append(
            _Row(step, self._phases.take(), values, means, seconds, _scalars(norm, job.accelerator.scaler))
        )
        self._mark(step)

    def end_epoch(self, step: int) -> None:
        """Close the epoch, or what this attempt did of it: its evaluation and checkpoint are done."""
        self._pending.append(_Row(step, self._phases.take(), {}))

    def write(self, *, all_now: bool) -> None:
        """Write the rows begun LAG or more calls ago, which have arrived without anyone waiting; or all of them."""
        self._newest += 1
        while self._pending and (all_now or self._pending[0].step <= self._newest - LAG):
            row = self._pending.popleft()
            if self._job.rank == 0:
                self._write(row)

    @contextmanager
    def standing_still(self, phase: str) -> Iterator[None]:
        """Evaluation and checkpoints do not count as training time."""
        began, before = time.perf_counter(), self._phases.now
        self._phases.mark(phase)
        yield
        self._phases.mark(before)
        self._began += time.perf_counter() - began

    def add_stall(self, seconds: float) -> None:
        """Training stood still that long for a checkpoint; the next row says so."""
        self._stall += seconds

    def _write(self, row: _Row) -> None:
        spent = self._phases.seconds(row.marks)
        for phase, seconds in spent.items():
            self._spent[phase] += seconds
        self._waited += spent["data"]
        if row.means is None:
            self._write_epoch(row.step)
            return
        self._exchange.look()
        values = {f"train/{name}": value for name, value in row.means.read().items() if name != "n"}
        if row.scalars is not None:
            names, arrived = row.scalars
            values |= dict(zip(names, arrived.result().tolist(), strict=True))
        values |= {**row.values, "perf/data_wait_frac": self._waited / row.seconds, **self._job.device_facts.now()}
        self._job.log({**self._job.position(row.step), **values})
        self._waited = 0.0

    def _write_epoch(self, step: int) -> None:
        job, spent = self._job, self._spent
        total = sum(spent.values())
        if self._exchange.known and job.world_size > 1:
            spent["communication"] = min(self._exchange.take() * (step - self._epoch_began), spent["compute"])
            spent["compute"] -= spent["communication"]
        elif job.world_size > 1:  # not told apart from compute
            del spent["communication"]
        shares = {phase: seconds / total for phase, seconds in spent.items()}
        found = verdict(shares, job.settings)
        job.trackers.log({**job.position(step), **{f"perf/share_{phase}": share for phase, share in shares.items()}})
        job.trackers.event(
            "bottleneck", step=step, bottleneck=found.bottleneck, share=round(found.share, 4), advice=found.advice
        )
        job.console.note(found.line(shares))
        self._spent, self._epoch_began = dict.fromkeys(PHASES, 0.0), step

    def _mark(self, step: int) -> None:
        self._first = step
        self._stall = 0.0
        self._began = time.perf_counter()


def _scalars(norm: torch.Tensor | None, scaler: torch.amp.GradScaler | None) -> tuple[list[str], SumOverRanks] | None:
    """The gradient's norm and fp16's loss scale on their way to the CPU."""
    found = {} if norm is None else {"optim/grad_norm": norm}
    if scaler is not None and scaler._scale is not None:  # get_scale() would wait for the device
        found["optim/loss_scale"] = scaler._scale
    if not found:
        return None
    return list(found), SumOverRanks(torch.stack([value.detach().double().reshape(()) for value in found.values()]), 1)
