"""Optimizers without torch's compiler: nothing of it is imported, and nothing else changes."""

import subprocess
import sys

import pytest
import torch

from distcls.optim.uncompiled import uncompiled

USE_ALL = """
import sys, torch
from distcls import optim
from distcls.registry import OPTIMIZERS
for name in OPTIMIZERS.names():
    model = torch.nn.Linear(3, 2)
    optimizer = OPTIMIZERS.build({"type": name, "lr": 0.1}, model=model)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""


def test_none_of_our_optimizers_imports_the_compiler():
    assert subprocess.run([sys.executable, "-c", USE_ALL]).returncode == 0


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_the_steps_are_torchs_own_with_hooks_and_without_gradients(kind):
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    images, seen = torch.randn(4, 3), []
    optimizers = [uncompiled(type("Ours", (kind,), {}))(ours.parameters(), lr=0.1), kind(theirs.parameters(), lr=0.1)]
    optimizers[0].register_step_post_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    for _ in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            model(images).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(ours.weight, theirs.weight)
    assert ours.weight.is_leaf
    assert seen == [True] * 3  # the hooks are around the step, as torch's
