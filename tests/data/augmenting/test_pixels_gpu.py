"""On a GPU: python -m pytest tests/data/augmenting/test_pixels_gpu.py: each augmentation and mixing against its result on the CPU."""

import numpy as np
import pytest
import torch

from distcls.data.augmenting.auto_augment import AutoAugment, RandAugment, TrivialAugmentWide
from distcls.data.augmenting.color_jitter import ColorJitter, ThreeAugment
from distcls.data.augmenting.mix import CutMix, Mixing, Mixup
from distcls.data.augmenting.pixels import PixelStage
from distcls.data.augmenting.random_erasing import RandomErasing

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

NORMAL = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
NUMBER, SIZE = 256, 48
PIXEL_TRANSFORMS = {
    "RandAugment": [RandAugment(mstd=0.5)],
    "RandAugment, bilinear": [RandAugment(interpolation="bilinear", fill=(10.0, 100.0, 200.0))],
    "AutoAugment": [AutoAugment()],
    "TrivialAugmentWide": [TrivialAugmentWide()],
    "ThreeAugment": [ThreeAugment()],
    "ColorJitter": [ColorJitter(0.4, 0.4, 0.4, 0.1)],
    "all of it": [RandAugment(), ColorJitter(0.3), RandomErasing(p=1.0)],
}


def images(seed=0):
    """(NUMBER, 3, SIZE, SIZE) whole numbers 0..255, in channels-last memory as the loader gives them."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (NUMBER, 3, 6, 6), generator=generator).float()
    large = torch.nn.functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear").round()
    return large.to(memory_format=torch.channels_last)


def both(transforms, dtype=torch.float32):
    stage = PixelStage(transforms, seed=3, dtype=dtype, **NORMAL)
    apply = stage.draw(2, np.arange(NUMBER), SIZE)
    start = images() if stage.takes_raw else images() / 255
    # Beside each other, so that neither works on what the other has overwritten.
    return apply(start.clone()), apply(start.cuda()).cpu()


def levels(one):
    scale, shift = (torch.tensor(NORMAL[key]).view(1, 3, 1, 1) for key in ("std", "mean"))
    return (one.float() * scale + shift) * 255


@pytest.mark.parametrize("name", PIXEL_TRANSFORMS)
def test_pixels_are_the_cpus(name):
    """Up to rounding: where a sum lies on the border of two levels, and at the border of a warp's pixels."""
    cpu, gpu = both(PIXEL_TRANSFORMS[name])
    assert gpu.is_contiguous(memory_format=torch.channels_last)
    difference = (levels(cpu) - levels(gpu)).abs()
    assert difference.mean() < 0.05
    assert (difference > 1.01).float().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_last(dtype):
    whole, half = both([ThreeAugment()])[1], both([ThreeAugment()], dtype)[1]
    assert half.dtype == dtype
    assert torch.equal(whole.to(dtype), half)


@pytest.mark.parametrize("value", [0.0, (0.5, -1.0, 2.0), "random"])
def test_erased_boxes_are_the_cpus(value):
    cpu, gpu = both([RandomErasing(p=0.8, value=value)])
    assert (cpu - gpu).abs().max() < 1e-4
    assert (gpu != images() / 255).any()


@pytest.mark.parametrize("mix", [Mixup(0.4), CutMix(1.0)], ids=["Mixup", "CutMix"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_mixed_images_and_labels_are_the_cpus(mix, dtype):
    target = torch.arange(NUMBER) % 10
    for step in range(5):
        draw = Mixing([mix], seed=1, num_classes=10).draw(step, SIZE)
        start = (images() / 255).to(dtype)
        cpu, labels = draw(start.clone(), target)
        gpu, labels_there = draw(start.cuda(), target.cuda())
        assert gpu.is_contiguous(memory_format=torch.channels_last)
        assert (cpu.float() - gpu.cpu().float()).abs().max() < (1e-6 if dtype == torch.float32 else 2e-3)
        assert torch.equal(labels, labels_there.cpu())


@pytest.mark.parametrize("name", PIXEL_TRANSFORMS)
def test_nothing_waits_for_the_gpu(name):
    """An augmentation that read a value back would stall the training step behind it."""
    stage = PixelStage(PIXEL_TRANSFORMS[name], seed=3, dtype=torch.float16, **NORMAL)
    start = images().cuda()
    stage.draw(0, np.arange(NUMBER), SIZE)(start.clone())
    torch.cuda.set_sync_debug_mode("error")
    try:
        stage.draw(1, np.arange(NUMBER), SIZE)(start)
    finally:
        torch.cuda.set_sync_debug_mode("default")
