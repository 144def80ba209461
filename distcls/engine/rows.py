"""Training rows for the trackers: a row begins when its logging window closes, and is written LAG steps later.

By then the device has computed everything that the row reads, so that logging never waits for the device.
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
    """A row that is not written yet; without `means` it is the row that ends an epoch."""

    step: int
    marks: list[Mark]
    values: dict[str, float]
    means: Means | None = None
    seconds: float = 0.0
    scalars: tuple[list[str], SumOverRanks] | None = None


class Rows:
    """A row for each window of `train.log_every_steps` steps, and one per epoch with the shares of where time went.

    Every rank keeps the same windows; only rank 0 measures time and has trackers.

    Args:
        first_step: where the speed of the first row is measured from; the first window of a resumed run is shorter.
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
        self._waited = 0.0  # for data in this window, in which an epoch may end
        self._mark(first_step)

    def begin(self, step: int, means: Means, factor: float, norm: torch.Tensor | None) -> None:
        """Close the window that ends with `step`.

        Args:
            factor: of the schedule, for all learning rates.
            norm: of the gradient before clipping, if it was measured.
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
        """Close the epoch, or the part of it that this attempt trained, after its evaluation and checkpoint."""
        self._pending.append(_Row(step, self._phases.take(), {}))

    def write(self, *, all_now: bool) -> None:
        """Write the rows that began at least LAG steps ago, which takes no waiting; or all of them."""
        self._newest += 1
        while self._pending and (all_now or self._pending[0].step <= self._newest - LAG):
            row = self._pending.popleft()
            if self._job.rank == 0:
                self._write(row)

    @contextmanager
    def standing_still(self, phase: str) -> Iterator[None]:
        """Time a phase, evaluation or checkpoint, that does not count as training time."""
        began, before = time.perf_counter(), self._phases.now
        self._phases.mark(phase)
        yield
        self._phases.mark(before)
        self._began += time.perf_counter() - began

    def add_stall(self, seconds: float) -> None:
        """Note that training waited this long for a checkpoint; the next row reports it."""
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
        elif job.world_size > 1:  # the model cannot tell it from compute
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
    """Start copying the gradient's norm and fp16's loss scale to the CPU."""
    found = {} if norm is None else {"optim/grad_norm": norm}
    if scaler is not None and scaler._scale is not None:  # get_scale() would wait for the device
        found["optim/loss_scale"] = scaler._scale
    if not found:
        return None
    return list(found), SumOverRanks(torch.stack([value.detach().double().reshape(()) for value in found.values()]), 1)
