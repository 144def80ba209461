"""Measures where the time of a run goes: a sequence of marks, each of which ends one phase and begins the next.

data: waiting for decoded images. copy: copying the batch to the device, and augmenting its pixels there. compute:
forward, backward and update, with the Python code in between. evaluation and checkpoint: the time that training waits
for them; evaluation includes copying the best weights. communication: the part of compute in which gradients are
exchanged while nothing is computed.
"""

import itertools
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

PHASES = ("data", "copy", "compute", "communication", "evaluation", "checkpoint")
Mark = tuple[str, Any]


class Phases:
    """Marks of one rank.

    On a CPU a mark is a reading of the clock. On a GPU it is an event on the stream, so that only the time that the GPU
    waits is counted: images that are late while it still has work cost nothing. Nothing here waits for the device.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._free: deque[torch.cuda.Event] = deque()
        self._marks: list[Mark] = []
        self.mark("compute")

    def mark(self, phase: str) -> None:
        """Begin `phase`; takes a few microseconds."""
        self._marks.append((phase, self._now()))

    @property
    def now(self) -> str:
        """The current phase."""
        return self._marks[-1][0]

    def take(self) -> list[Mark]:
        """The marks since the last call, up to now."""
        self.mark(self.now)
        taken, self._marks = self._marks, self._marks[-1:]
        return taken

    def seconds(self, taken: Sequence[Mark]) -> dict[str, float]:
        """Seconds in each phase. Call it LAG steps later, when the device has reached the marks."""
        spent = dict.fromkeys(PHASES, 0.0)
        if self._on_gpu:
            taken[-1][1].synchronize()  # already reached, except at the end or before a pause
        for (phase, began), (_, ended) in itertools.pairwise(taken):
            spent[phase] += began.elapsed_time(ended) / 1000 if self._on_gpu else ended - began
        if self._on_gpu:
            self._free.extend(event for _, event in taken[:-1])  # the last mark begins the next period
        return spent

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = self._free.popleft() if self._free else torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Exchange:
    """Seconds per step that DDP's exchange of gradients takes beyond the part that overlaps with the backward pass.

    DDP measures this itself in the first steps and then in every 100th, from the first bucket that is ready to the last
    one that has arrived; waiting for a slower rank is included. Other strategies do not report it.

    Args:
        model: the wrapped model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._ask = getattr(model, "_get_ddp_logging_data", None)
        self._newest = 0
        self._found: list[float] = []
        self._last = 0.0

    @property
    def known(self) -> bool:
        """Whether the model reports its exchange at all."""
        return self._ask is not None

    def look(self) -> None:
        """Record DDP's newest measurement, if there is a new one."""
        if self._ask is None:
            return
        said = self._ask()
        ended = int(said.get("backward_comm_time_end", 0))
        if ended > self._newest:
            self._newest = ended
            hidden = int(said["backward_compute_comm_overlap_time"])
            self._found.append(max(0, int(said["backward_comm_time"]) - hidden) / 1e9)

    def take(self) -> float:
        """The mean of the measurements since the last call; without any, the mean before."""
        if self._found:
            self._last = sum(self._found) / len(self._found)
            self._found = []
        return self._last
