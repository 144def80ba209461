"""What a training row reports about the time of its window."""

import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from distcls.engine.performance.bottleneck import Settings
from distcls.engine.performance.device_facts import DeviceFacts
from distcls.engine.rows import Rows
from distcls.engine.totals import Totals


def test_a_window_that_goes_over_the_end_of_an_epoch_counts_all_its_waits(monkeypatch):
    now, rows = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    job = MagicMock(rank=0, world_size=1, device=torch.device("cpu"), global_batch_size=8, learning_rates={})
    job.strategy.model, job.accelerator.scaler, job.log = nn.Identity(), None, rows.append
    job.position = lambda step: {"step": step}
    job.device_facts = DeviceFacts(job.device)
    job.train_loader = SimpleNamespace(mark=None, resolution_at=lambda step: 8)
    job.settings = Settings(2, 8, "fp32", False, 1, 8, 1.0, 100, gpu=False)
    timed = Rows(job, 0)
    window = Totals(job.device, 1)
    for step in range(1, 9):
        for phase, seconds in (("data", 1.0), ("compute", 3.0)):
            job.train_loader.mark(phase)
            now[0] += seconds
        window.add({"loss": torch.ones(())}, 8)
        if step % 4 == 0:
            timed.begin(step, window.reduce(), 1.0, None)
        if step % 3 == 0:
            timed.end_epoch(step)
        timed.write(all_now=step % 3 == 0)
    timed.write(all_now=True)
    assert [(row["step"], row["perf/data_wait_frac"]) for row in rows] == [(4, 0.25), (8, 0.25)]


def test_a_window_of_two_resolutions_has_the_flops_of_both():
    facts = DeviceFacts(torch.device("cpu"), peak_flops=1000.0, training_flops={8: 10.0, 16: 40.0, 24: None}, devices=2)
    assert facts.mfu(100.0, [8, 16]) == {"perf/mfu": pytest.approx(100 * 25 / 2000)}
    assert facts.mfu(100.0, [16, 24]) == {}
