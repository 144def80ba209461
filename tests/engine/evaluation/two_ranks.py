"""The same work on two ranks that meet through gloo, each in a process of its own."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def on_two_ranks(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `work(rank)` gives on either rank, whichever is ready first."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def answer(rank: int) -> None:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
        answers.put(work(rank))
        torch.distributed.destroy_process_group()

    ranks = [context.Process(target=answer, args=(rank,)) for rank in range(2)]
    for process in ranks:
        process.start()
    got = [answers.get(timeout=180) for _ in ranks]
    for process in ranks:
        process.join(10)
    return got
