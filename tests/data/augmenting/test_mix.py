import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from distcls.data.augmenting.mix import CutMix, Mixing, Mixup
from distcls.data.loader import TrainLoader
from distcls.errors import UserError
from tests.data.conftest import train_loader
from tests.data.test_loader import hashes

SIZE = 8


def marked(number=4, resolution=SIZE):
    """Image i and label i, all pixels of image i being i."""
    images = torch.arange(number).float().view(-1, 1, 1, 1).repeat(1, 3, resolution, resolution)
    return images.to(memory_format=torch.channels_last), torch.arange(number)


def own_weights(mixes, steps, resolution=SIZE, seed=0):
    """For each step the weight of image 0's own label."""
    mixing = Mixing(mixes, seed=seed, num_classes=2)
    return np.array([mixing.draw(step, resolution)(*marked(2, resolution))[1][0, 0].item() for step in range(steps)])


def test_mixup_is_the_weighted_mean_of_neighbours():
    images, target = Mixing([Mixup(0.4)], seed=1, num_classes=5).draw(7, SIZE)(*marked())
    weight = target[0, 0].item()
    assert 0 < weight < 1
    mixed = [weight, 1 - weight, 0, 0, 0], [1 - weight, weight, 0, 0, 0]
    assert torch.allclose(target[:2], torch.tensor(mixed))
    assert torch.allclose(target[2:, 2:4], target[:2, :2])
    assert torch.allclose(images[:, 0, 0, 0], torch.tensor([1 - weight, weight, 3 - weight, 2 + weight]), atol=1e-5)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_weighs_labels_by_area():
    for step in range(20):
        images, target = Mixing([CutMix()], seed=1, num_classes=4).draw(step, SIZE)(*marked())
        assert set(images[0].unique().tolist()) <= {0, 1}
        kept = (images == torch.arange(4).view(-1, 1, 1, 1)).float().mean((1, 2, 3))
        assert torch.allclose(kept, target.diagonal())
        assert torch.allclose(target.sum(1), torch.ones(4))
        assert torch.equal(images[2:] - 2, images[:2])


@pytest.mark.parametrize(("mine", "theirs"), [(Mixup, v2.MixUp), (CutMix, v2.CutMix)])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_weights_have_torchvisions_distribution(mine, theirs, alpha):
    number = 3000
    ours = own_weights([mine(alpha)], number, resolution=16)
    torch.manual_seed(0)
    reference = theirs(alpha=alpha, num_classes=2)
    images = torch.zeros(2, 3, 16, 16)
    parameters = [reference.make_params([images]) for _ in range(number)]
    expected = np.array([one.get("lam", one.get("lam_adjusted")) for one in parameters])
    assert abs(ours.mean() - expected.mean()) < 5 * np.sqrt(2) * expected.std() / np.sqrt(number)
    assert ours.std() == pytest.approx(expected.std(), rel=0.06)
    assert np.quantile(ours, [0.25, 0.75]) == pytest.approx(np.quantile(expected, [0.25, 0.75]), abs=0.06)


@pytest.mark.parametrize(
    ("p", "shares"),
    [
        ((None, None), (0.5, 0.5, 0)),
        ((0.2, None), (0.2, 0.8, 0)),
        ((0.3, 0.1), (0.3, 0.1, 0.6)),
        ((0.0, 0.0), (0, 0, 1)),
    ],
)
def test_each_step_takes_one_with_its_probability(p, shares):
    steps = 2000
    mixing = Mixing([Mixup(1.0, p[0]), CutMix(1.0, p[1])], seed=3, num_classes=2)
    seen = np.zeros(3)
    for step in range(steps):
        images, target = mixing.draw(step, 32)(*marked(2, 32))
        assert target.shape == (2, 2)
        fractional = (images % 1 != 0).any().item()
        seen[0 if fractional else 1 if 1 in images[0] else 2] += 1
    # A CutMix of an empty box looks like no mixing.
    assert seen[0] / steps == pytest.approx(shares[0], abs=0.035)
    assert seen[1] / steps == pytest.approx(shares[1], abs=0.035)


def batches(dataset, first, last, **shape):
    with train_loader(dataset, mixes=[Mixup(0.8), CutMix()], **shape).stream(first, last) as stream:
        return list(stream)


def test_mixing_is_the_same_on_any_ranks_and_from_any_step(mixed):
    whole = batches(mixed, 0, 4)
    for shape in ({"accumulation_steps": 3}, {"accumulation_steps": 6}):
        parts = batches(mixed, 0, 4, **shape)
        count = shape["accumulation_steps"]
        for step, batch in enumerate(whole):
            chunk = parts[step * count : (step + 1) * count]
            assert torch.equal(batch.images, torch.cat([one.images for one in chunk]))
            assert torch.equal(batch.target, torch.cat([one.target for one in chunk]))
    ranks = [batches(mixed, 0, 4, rank=rank, world_size=2) for rank in (0, 1)]
    assert torch.equal(whole[3].images, torch.cat([ranks[0][3].images, ranks[1][3].images]))
    assert torch.equal(batches(mixed, 2, 4)[1].images, whole[3].images)
    assert whole[0].target.shape == (24, mixed.num_classes)


@pytest.mark.parametrize("sampler", [{"repeats": 3}, {"balanced": True}])
def test_mixed_repeated_and_balanced_ranks_see_what_one_rank_accumulating_sees(mixed, sampler):
    shape = {"mixes": [Mixup(0.8), CutMix()], **sampler}
    accumulated = hashes(train_loader(mixed, accumulation_steps=2, **shape), 0, 4)
    ranks = [hashes(train_loader(mixed, rank=rank, world_size=2, **shape), 0, 4) for rank in (0, 1)]
    assert accumulated == [chunk for step in zip(*ranks, strict=True) for chunk in step]


def test_multi_hot_labels_mix_as_their_images_do():
    images, _ = marked()
    many = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    draw = Mixing([Mixup(0.4)], seed=1, num_classes=3).draw(7, SIZE)
    weights = Mixing([Mixup(0.4)], seed=1, num_classes=4).draw(7, SIZE)(*marked())[1]
    assert torch.allclose(draw(images, many)[1], weights @ many)


def test_an_odd_micro_batch_is_refused(mixed):
    with pytest.raises(UserError) as caught:
        train_loader(mixed, mixes=[Mixup()], accumulation_steps=8)
    assert str(caught.value) == (
        "data.mix: got micro-batches of 3 images, expected an even number: images are mixed in pairs"
    )
    assert isinstance(train_loader(mixed, accumulation_steps=8), TrainLoader)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixup(0), "Mixup.alpha: got 0, expected a number above 0"),
        (lambda: CutMix(p=1.5), "CutMix.p: got 1.5, expected a probability between 0 and 1"),
        (
            lambda: Mixing([Mixup(p=0.7), CutMix(p=0.5)], seed=0, num_classes=2),
            "data.mix: p: got 1.2 in sum, expected at most 1; the rest of the steps is not mixed",
        ),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message
