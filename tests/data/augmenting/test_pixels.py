from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.augmenting.auto_augment import AutoAugment, RandAugment, TrivialAugmentWide
from distcls.data.augmenting.color_jitter import ColorJitter, ThreeAugment
from distcls.data.augmenting.draws import Draws
from distcls.data.augmenting.pixels import PixelStage, apply_layers
from distcls.data.augmenting.random_erasing import RandomErasing
from distcls.errors import UserError
from tests.data.conftest import train_loader
from tests.data.decoding.test_packed import pack

ALL = [ColorJitter(0.4, 0.4, 0.4, 0.1), RandAugment(mstd=0.5), TrivialAugmentWide(), AutoAugment(), ThreeAugment()]


def draws(number, seed=0):
    return Draws(seed, 0, np.arange(number), 0)


def stage(transforms, seed=0):
    return PixelStage(transforms, seed=seed, mean=[0.0] * 3, std=[1 / 255] * 3, dtype=torch.float32)


def picture(size=16):
    return torch.from_numpy(np.random.default_rng(3).integers(20, 200, (3, size, size)).astype(np.uint8))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (ColorJitter(0.4, 0.4, 0.4, 0.1), v2.ColorJitter(0.4, 0.4, 0.4, 0.1)),
        (ColorJitter(brightness=(0.2, 0.5)), v2.ColorJitter(brightness=(0.2, 0.5))),
        (RandAugment(), v2.RandAugment()),
        (RandAugment(num_ops=1, magnitude=5, num_magnitude_bins=11), v2.RandAugment(1, 5, 11)),
        (TrivialAugmentWide(), v2.TrivialAugmentWide()),
        (AutoAugment(), v2.AutoAugment()),
    ],
    ids=lambda one: type(one).__name__,
)
def test_images_have_torchvisions_distribution(mine, theirs):
    """Mean and spread, over many draws for one image, of its mean, of each channel's and of one pixel."""
    number = 1200
    image = picture()
    ours = apply_layers(image.float().expand(number, -1, -1, -1).clone(), mine.layers(draws(number), 16))
    torch.manual_seed(0)
    reference = torch.stack([theirs(image) for _ in range(number)]).float()
    for figure in (
        lambda x: x.mean((1, 2, 3)),
        lambda x: x[:, 0].mean((1, 2)),
        lambda x: x.std((1, 2, 3)),
        lambda x: x[:, 2, 4, 11],
        lambda x: x[:, :, 0].mean((1, 2)),
    ):
        a, b = figure(ours), figure(reference)
        error = ((a.var() + b.var()) / number).sqrt()
        assert abs(a.mean() - b.mean()) < 4.5 * error + 0.05
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.25, abs=0.5)


def test_random_erasing_has_torchvisions_distribution():
    number, size = 3000, 32
    boxes = RandomErasing(p=0.6).draw_boxes(draws(number), size)
    erased = boxes[:, 2] > 0
    assert erased.mean() == pytest.approx(0.6, abs=0.04)
    torch.manual_seed(0)
    reference = v2.RandomErasing(p=1.0)
    found = [reference.make_params([torch.zeros(3, size, size)]) for _ in range(number)]
    for column, name in enumerate("ijhw"):
        expected = np.array([one[name] for one in found])
        error = expected.std() * np.sqrt(1 / number + 1 / erased.sum())
        assert abs(boxes[erased, column].mean() - expected.mean()) < 4.5 * error, name
        assert boxes[erased, column].std() == pytest.approx(expected.std(), rel=0.07), name


def test_random_erasing_fills_its_box_alone():
    for value, check in (
        (0.0, lambda box: (box == 0).all()),
        ((1.0, 2.0, 3.0), lambda box: (box == torch.tensor([1.0, 2.0, 3.0]).view(3, 1)).all()),
        ("random", lambda box: len(box.unique()) == box.numel()),
    ):
        transform = RandomErasing(p=0.5, value=value)
        images = torch.full((20, 3, 24, 24), 9.0).to(memory_format=torch.channels_last)
        stage([transform]).draw(0, np.arange(20), 24)(images)
        boxes = transform.draw_boxes(draws(20), 24)
        for image, (top, left, height, width) in zip(images, boxes, strict=True):
            box = image[:, top : top + height, left : left + width]
            assert height == 0 or check(box.flatten(1))
            assert (image == 9).sum() == 3 * (24 * 24 - height * width)


def test_erasing_noise_is_standard_normal():
    images = torch.zeros(400, 3, 32, 32)
    stage([RandomErasing(p=1.0, scale=(0.2, 0.3), value="random")]).draw(0, np.arange(400), 32)(images)
    noise = images[images != 0]
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert ((noise.abs() < 1).float().mean().item()) == pytest.approx(0.6827, abs=0.005)
    assert len(noise.unique()) > 0.9 * len(noise)


def test_three_augment_takes_each_in_a_third_of_the_images():
    first = ThreeAugment().layers(draws(3000), 16)[0]
    counts = Counter(first.ops.tolist())
    assert all(counts[name] == pytest.approx(1000, abs=120) for name in ("Gray", "Solarize", "GaussianBlur"))
    sigma = first.values[first.ops == "GaussianBlur", 0]
    assert (sigma.min(), sigma.max()) == (pytest.approx(0.1, abs=0.01), pytest.approx(2.0, abs=0.01))


def test_mstd_spreads_the_magnitude_and_p_leaves_images_out():
    transform = RandAugment(num_ops=1, magnitude=9, num_magnitude_bins=11, mstd=0.5, p=0.5)
    [layer] = transform.layers(draws(20_000), 16)
    solarized = 10 * (1 - layer.values[layer.ops == "Solarize", 0] / 255)
    assert solarized.max() == 10
    assert np.median(solarized) == pytest.approx(9, abs=0.05)
    assert np.quantile(solarized, 0.1587) == pytest.approx(8.5, abs=0.05)
    assert (layer.ops == "Identity").mean() == pytest.approx(0.5 + 0.5 / 14, abs=0.02)


@pytest.mark.parametrize("transform", [*ALL, RandomErasing(value="random")], ids=lambda one: type(one).__name__)
def test_a_sample_is_changed_alike_in_any_batch(transform):
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (24, 3, 16, 16)).astype(np.float32))
    images = images.to(memory_format=torch.channels_last)
    whole = stage([transform]).draw(2, np.arange(24), 16)(images.clone())
    part = stage([transform]).draw(2, np.arange(8, 18), 16)(images[8:18].clone())
    assert torch.equal(whole[8:18], part)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(whole, stage([transform]).draw(3, np.arange(24), 16)(images.clone()))
    assert not torch.equal(whole, stage([transform], seed=1).draw(2, np.arange(24), 16)(images.clone()))


def batches(dataset, transforms, first=0, last=3, **shape):
    with train_loader(dataset, transforms=transforms, **shape).stream(first, last) as stream:
        return list(stream)


def test_the_loader_augments_then_normalises(mixed):
    geometric = [RandomResizedCrop(), RandomHorizontalFlip()]
    plain = batches(mixed, geometric)
    mean, std = torch.tensor(mixed.mean).view(3, 1, 1), torch.tensor(mixed.std).view(3, 1, 1)
    # An operation that changes nothing shows the way there and back.
    for one, two in zip(plain, batches(mixed, [*geometric, RandAugment(magnitude=0, num_ops=0)]), strict=True):
        assert torch.allclose(one.images, two.images, atol=1e-5)
    dark = batches(mixed, [*geometric, ColorJitter(brightness=(0.5, 0.5))])
    for one, two in zip(plain, dark, strict=True):
        expected = ((one.images * std + mean) * 255).round().mul(0.5).floor() / 255
        assert torch.allclose(two.images, (expected - mean) / std, atol=1e-4)
        assert two.images.is_contiguous(memory_format=torch.channels_last)


def test_pixels_are_the_same_on_any_ranks_and_from_any_step(mixed):
    transforms = [RandomResizedCrop(), *ALL, RandomErasing(value="random")]
    whole = [batch.images for batch in batches(mixed, transforms)]
    assert torch.equal(batches(mixed, transforms, 2)[0].images, whole[2])
    parts = [batch.images for batch in batches(mixed, transforms, accumulation_steps=3)]
    assert all(torch.equal(one, torch.cat(parts[3 * i : 3 * i + 3])) for i, one in enumerate(whole))
    ranks = [batches(mixed, transforms, rank=rank, world_size=2)[1].images for rank in (0, 1)]
    assert torch.equal(torch.cat(ranks), whole[1])


def test_half_precision_is_rounded_last(mixed):
    one = batches(mixed, [TrivialAugmentWide()])
    two = batches(mixed, [TrivialAugmentWide()], dtype=torch.bfloat16)
    assert all(torch.equal(a.images.bfloat16(), b.images) for a, b in zip(one, two, strict=True))


def test_packed_batches_are_augmented_too(raw):
    """Raw images at their own size: the way of a GPU gives the very pixels of the CPU's."""
    transforms = [RandomHorizontalFlip(), *ALL]
    expected = batches(raw, transforms)
    loader = train_loader(raw, transforms=transforms)
    pack(loader)
    for slot in loader.slots:
        slot._mean, slot._std = (0.0, 0.0, 0.0), (1 / 255,) * 3
    with loader.stream(0, 3) as stream:
        for one, two in zip(expected, stream, strict=True):
            assert torch.allclose(one.images, two.images, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ColorJitter(hue=0.6),
            "ColorJitter.hue: got 0.6, expected 0 to 0.5, or two numbers in -0.5..0.5",
        ),
        (
            lambda: ColorJitter(brightness=(1, 0.5)),
            "ColorJitter.brightness: got [1, 0.5], expected 0 or more, or two numbers from 0 upward",
        ),
        (lambda: RandAugment(num_ops=-1), "RandAugment.num_ops: got -1, expected 0 or more operations"),
        (
            lambda: RandAugment(magnitude=31),
            "RandAugment.magnitude: got 31, expected 0 to 30, num_magnitude_bins - 1",
        ),
        (lambda: RandAugment(mstd=-1), "RandAugment.mstd: got -1, expected 0 or more"),
        (lambda: TrivialAugmentWide(1), "TrivialAugmentWide.num_magnitude_bins: got 1, expected 2 or more"),
        (lambda: ThreeAugment(-1), "ThreeAugment.color_jitter: got -1, expected 0 or more"),
        (
            lambda: RandomErasing(scale=(0.5, 0.1)),
            "RandomErasing.scale: got [0.5, 0.1], expected 0 <= smallest <= largest <= 1",
        ),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message
