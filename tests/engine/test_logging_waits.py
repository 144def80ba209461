"""Logging may not make a step wait for the device: no value is read outside the flush."""

from contextlib import contextmanager

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.overrides import TorchFunctionMode

from distcls.engine.rows import Rows
from distcls.engine.run import train
from distcls.engine.stopping.agreement import Agreement

# Each of these makes the CPU wait until the device has computed the value. (`numpy` is refused for a GPU's tensors, and
# the loader uses it for the buffers that it decodes into.)
WAITING = {"item", "tolist", "cpu", "nonzero", "__float__", "__int__", "__bool__", "__index__"}


class Reads(TorchFunctionMode):
    """Notes every read of a tensor's value that is made where waiting is not allowed."""

    def __init__(self):
        super().__init__()
        self.allowed = True
        self.found, self.flushed = [], []

    def __torch_function__(self, function, types, arguments=(), named=None):
        if getattr(function, "__name__", "") in WAITING:
            (self.flushed if self.allowed else self.found).append(function.__name__)
        return function(*arguments, **(named or {}))

    @contextmanager
    def allowing(self):
        before, self.allowed = self.allowed, True
        yield
        self.allowed = before


@pytest.fixture
def allow(monkeypatch):
    """Lets a method of the loop read values: the flush itself, and what waits for all ranks anyway."""

    def let(cls, name, reads):
        method = getattr(cls, name)

        def allowed(*arguments, **named):
            with reads.allowing():
                return method(*arguments, **named)

        monkeypatch.setattr(cls, name, allowed)

    return let


OVERRIDES = ["train.epochs=1", "eval.every_epochs=9", "checkpoint.every_steps=1000", "train.log_every_steps=2"]


@pytest.mark.parametrize("clipping", ["null", "1.0"])
def test_no_value_is_read_between_flushes(tiny_recipe, monkeypatch, allow, clipping):
    reads = Reads()
    allow(Rows, "write", reads)  # reads what arrived LAG steps ago
    allow(Agreement, "update", reads)  # the same
    begin, write = Rows.begin, Rows.write

    def first_window_is_over(self, *arguments):
        reads.allowed = False  # from here on: set-up is done
        return begin(self, *arguments)

    def last_step(self, *, all_now):
        write(self, all_now=all_now)
        reads.allowed = reads.allowed or all_now  # evaluation and checkpoint at the end

    monkeypatch.setattr(Rows, "begin", first_window_is_over)
    monkeypatch.setattr(Rows, "write", last_step)
    with reads:
        train(tiny_recipe, [*OVERRIDES, f"train.clip_grad_norm={clipping}"])
    assert reads.found == []
    assert "tolist" in reads.flushed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_no_step_waits_for_the_gpu_between_flushes(tiny_recipe, monkeypatch, precision):
    """As torch sees it: any synchronising call between flushes raises."""
    begin, write = Rows.begin, Rows.write

    def begin_strictly(self, *arguments):
        begin(self, *arguments)
        torch.cuda.set_sync_debug_mode("error")

    def write_freely(self, *, all_now):
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        write(self, all_now=all_now)
        torch.cuda.set_sync_debug_mode("default" if all_now else before)

    monkeypatch.setattr(Rows, "begin", begin_strictly)
    monkeypatch.setattr(Rows, "write", write_freely)
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision otherwise
    try:
        outcome = train(tiny_recipe, [*OVERRIDES, f"train.precision={precision}"])
    finally:
        torch.cuda.set_sync_debug_mode("default")
        AcceleratorState._reset_state(reset_partial_state=True)
    assert outcome.status == "finished"
