"""Where a run's time goes: one line of marks, each of which ends the phase before it and begins its own.

data: waiting for decoded images. copy: the batch's way onto the device, and what the device does to its pixels.
compute: forward, backward and update, with whatever the interpreter needs in between. evaluation and checkpoint: what
training stands still for; evaluation includes copying the best weights. communication: the part of compute that no
computation hides.
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

    On a CPU a mark is a reading of the clock. On a GPU it is an event on the stream, so that what counts is what the
    GPU waits for: images that are late while it still has work cost nothing and count as nothing. Nothing here waits
    for the device.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._free: deque[torch.cuda.Event] = deque()
        self._marks: list[Mark] = []
        self.mark("compute")

    def mark(self, phase: str) -> None:
        """`phase` begins. A few microseconds."""
        self._marks.append((phase, self._now()))

    @property
    def now(self) -> str:
        """The phase that lasts."""
        return self._marks[-1][0]

    def take(self) -> list[Mark]:
        """The marks since the last call; what comes after them counts for the next one."""
        self.mark(self.now)
        taken, self._marks = self._marks, self._marks[-1:]
        return taken

    def seconds(self, taken: Sequence[Mark]) -> dict[str, float]:
        """Seconds in each phase, of marks that the device has reached: each LAG steps after it was made."""
        spent = dict.fromkeys(PHASES, 0.0)
        if self._on_gpu:
            taken[-1][1].synchronize()  # reached already, unless the run stands still or ends
        for (phase, began), (_, ended) in itertools.pairwise(taken):
            spent[phase] += began.elapsed_time(ended) / 1000 if self._on_gpu else ended - began
        if self._on_gpu:
            self._free.extend(event for _, event in taken[:-1])  # the last one opens the next stretch
        return spent

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = self._free.popleft() if self._free else torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Exchange:
    """Seconds of a step that DDP's exchange of gradients takes beyond what the backward pass hides.

    DDP measures the first steps and then every 100th itself: from the first bucket that is ready to the last one that
    has arrived, so waiting for a slower rank is part of it. Other strategies do not say.

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
        """Whether the model says anything about its exchange at all."""
        return self._ask is not None

    def look(self) -> None:
        """Take in DDP's newest measurement, if there is one since the last look."""
        if self._ask is None:
            return
        said = self._ask()
        ended = int(said.get("backward_comm_time_end", 0))
        if ended > self._newest:
            self._newest = ended
            hidden = int(said["backward_compute_comm_overlap_time"])
            self._found.append(max(0, int(said["backward_comm_time"]) - hidden) / 1e9)

    def take(self) -> float:
        """Mean of what was found since the last call; where that is nothing, the mean before."""
        if self._found:
            self._last = sum(self._found) / len(self._found)
            self._found = []
        return self._last
