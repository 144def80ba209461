"""No augmentation reads a value back or asks how many there are: on a GPU the training step behind it would wait.

test_pixels_gpu.py asks the same of torch itself, where there is a GPU; here an operator tells by its name.
"""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distcls.data.augmenting.mix import CutMix, Mixing, Mixup
from distcls.data.augmenting.pixels import PixelStage
from tests.data.augmenting.test_pixels_gpu import NORMAL, PIXEL_TRANSFORMS

NUMBER, SIZE = 16, 24
WAITING = (
    "_local_scalar_dense",
    "item",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "unique",
    "repeat_interleave",
)


class Waits(TorchDispatchMode):
    """Notes every operator for which the CPU waits until the device has computed the values."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(one, torch.Tensor) and one.dtype == torch.bool
            for indices in arguments
            if isinstance(indices, list | tuple)
            for one in indices
        )
        if name in WAITING or by_mask:
            self.found.append(name)
        return function(*arguments, **(named or {}))


def images():
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(0, 256, (NUMBER, 3, SIZE, SIZE), generator=generator).float()
    return whole.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", PIXEL_TRANSFORMS)
def test_pixels(name):
    stage = PixelStage(PIXEL_TRANSFORMS[name], seed=3, dtype=torch.float32, **NORMAL)
    apply, start = stage.draw(1, np.arange(NUMBER), SIZE), images()
    with Waits() as waits:
        apply(start)
    assert waits.found == []


@pytest.mark.parametrize("mix", [Mixup(0.4), CutMix(1.0)], ids=["Mixup", "CutMix"])
def test_mixing(mix):
    """Of labels that are shares already: one_hot looks at the numbers of classes, but on a CPU alone."""
    draw, start, target = Mixing([mix], seed=1, num_classes=10).draw(3, SIZE), images(), torch.eye(NUMBER, 10)
    with Waits() as waits:
        draw(start, target)
    assert waits.found == []


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool((x > 0).any()),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_waits_is_seen(wait):
    x = torch.ones(4)
    with Waits() as waits:
        wait(x)
    assert waits.found
