"""Records the content of each batch as the model receives it, to prove that two runs saw the same samples."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distcls.data.stream import Batch

FOLDER = "batches"


class BatchRecord:
    """Appends one line per micro-batch to ``batches/rank00000.jsonl`` (by rank) in the run folder.

    A line has the step (counted from 1, as in the metrics), which of the equal parts of the global batch this is, and
    for each sample its index in the data set and a hash of its normalised pixels and target.

    Args:
        run: the run folder.
        first_step: number of steps completed before this attempt.
        rank, world_size, accumulation_steps: determine which parts this process gets.
        attempt: number of the attempt; lines of a later attempt replace those of an earlier one.
    """

    def __init__(
        self, run: Path, first_step: int, *, rank: int, world_size: int, accumulation_steps: int, attempt: int
    ) -> None:
        (run / FOLDER).mkdir(exist_ok=True)
        self._fd = os.open(run / FOLDER / f"rank{rank:05d}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(self._fd, b"\n")  # terminates a line that was cut short by a kill
        self._rank, self._world_size, self._accumulation = rank, world_size, accumulation_steps
        self._attempt = attempt
        self._micro = first_step * accumulation_steps

    def __call__(self, batch: Batch) -> None:
        step, micro = divmod(self._micro, self._accumulation)
        self._micro += 1
        place = {"part": micro * self._world_size + self._rank, "parts": self._accumulation * self._world_size}
        samples = [[index, print_] for index, print_ in zip(batch.index.tolist(), _prints(batch), strict=True)]
        line = {"step": step + 1, "attempt": self._attempt, **place, "samples": samples}
        os.write(self._fd, json.dumps(line).encode() + b"\n")  # one write: a kill can damage only the last line


def read_batches(run: Path) -> dict[int, list[tuple[int, str]]]:
    """Step -> (index in the data set, hash) of each sample of the global batch, in order; incomplete steps are omitted.

    Each step is taken from the last attempt that reached it.
    """
    lines = [line for file in sorted((run / FOLDER).glob("rank*.jsonl")) for line in _whole_lines(file)]
    last: dict[int, int] = {}
    for line in lines:
        last[line["step"]] = max(line["attempt"], last.get(line["step"], 0))
    steps: dict[int, dict[int, list]] = {}
    parts: dict[int, int] = {}
    for line in lines:
        if line["attempt"] == last[line["step"]]:
            steps.setdefault(line["step"], {})[line["part"]] = line["samples"]
            parts[line["step"]] = line["parts"]
    return {
        step: [(index, print_) for part in sorted(found) for index, print_ in found[part]]
        for step, found in sorted(steps.items())
        if len(found) == parts[step]
    }


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    found = []
    for line in file.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):  # cut short by a kill: that step was not completed
            found.append(json.loads(line))
    return found


def _prints(batch: Batch) -> list[str]:
    images, targets = _bytes_of(batch.images), _bytes_of(batch.target)
    return [
        hashlib.blake2b(i.tobytes() + t.tobytes(), digest_size=8).hexdigest()
        for i, t in zip(images, targets, strict=True)
    ]


def _bytes_of(values: torch.Tensor) -> np.ndarray:
    rows = values.detach().cpu().contiguous().reshape(len(values), -1)
    return rows.view(torch.uint8).numpy()
