"""What was in each batch, as the model got it: for proofs that two runs have seen the same."""

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
    """Appends one line for each micro-batch to ``batches/rank00000.jsonl`` of the run folder.

    A line has the step (as in the metrics, 1 for the first), which of the global batch's equal parts this is, and for
    each sample its position in the data set and a hash of its normalised pixels and of its target.

    Args:
        run: the run folder.
        first_step: how many steps lie behind.
        rank, world_size, accumulation_steps: which parts this process gets.
        attempt: of the run; a later one's lines replace an earlier one's.
    """

    def __init__(
        self, run: Path, first_step: int, *, rank: int, world_size: int, accumulation_steps: int, attempt: int
    ) -> None:
        (run / FOLDER).mkdir(exist_ok=True)
        self._fd = os.open(run / FOLDER / f"rank{rank:05d}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(self._fd, b"\n")  # ends a line that a kill tore
        self._rank, self._world_size, self._accumulation = rank, world_size, accumulation_steps
        self._attempt = attempt
        self._micro = first_step * accumulation_steps

    def __call__(self, batch: Batch) -> None:
        step, micro = divmod(self._micro, self._accumulation)
        self._micro += 1
        place = {"part": micro * self._world_size + self._rank, "parts": self._accumulation * self._world_size}
        samples = [[index, print_] for index, print_ in zip(batch.index.tolist(), _prints(batch), strict=True)]
        line = {"step": step + 1, "attempt": self._attempt, **place, "samples": samples}
        os.write(self._fd, json.dumps(line).encode() + b"\n")  # in one piece: a kill tears no more than the last line


def read_batches(run: Path) -> dict[int, list[tuple[int, str]]]:
    """Step -> (position in the data set, hash) of every sample of the global batch, in order; steps cut short left out.

    Every part counts as the last attempt that reached its step saw it.
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
        with contextlib.suppress(ValueError):  # torn by a kill: that step was not reached
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
