"""From one rank to several and back: the same global batches, by their pixels, whatever the sampler."""

import hashlib

import pytest
import torch

from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.augmenting.color_jitter import ColorJitter
from distcls.data.augmenting.mix import CutMix, Mixup
from distcls.data.loader import TrainLoader

SAMPLERS = {
    "shuffle": {},
    "balanced": {"balanced": True},
    "repeated": {"repeats": 3},
    "block_shuffle": {"block_size": 4, "block_window": 2},
}
# First step, ranks and accumulation of each part of a run of 14 steps; an epoch has five.
RUN = [(0, 1, 1), (3, 3, 1), (6, 2, 3), (9, 1, 6), (11, 6, 1), (13, 1, 1)]
LAST = 14


def digests(dataset, first, last, ranks, accumulation, **sampler):
    """A hash of each global batch's pixels, targets and indices, put together from all ranks."""
    chunks = {}
    for rank in range(ranks):
        loader = TrainLoader(
            dataset,
            resolution=24,
            transforms=[RandomResizedCrop(), RandomHorizontalFlip(), ColorJitter(brightness=0.4)],
            mixes=[Mixup(0.8), CutMix()],
            global_batch_size=12,
            accumulation_steps=accumulation,
            rank=rank,
            world_size=ranks,
            seed=5,
            workers=2,
            device="cpu",
            **sampler,
        )
        with loader.stream(first, last) as stream:
            for number, batch in enumerate(stream):
                step, micro = divmod(number, accumulation)
                chunks[step, micro, rank] = (batch.images.permute(0, 2, 3, 1), batch.target, batch.index)
        loader.close()
    found = []
    for step in range(last - first):
        parts = [chunks[key] for key in sorted(chunks) if key[0] == step]
        tensors = [torch.cat(column).contiguous().numpy().tobytes() for column in zip(*parts, strict=True)]
        found.append(hashlib.sha256(b"".join(tensors)).hexdigest())
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_number_of_ranks_goes_on_with_the_same_global_batches(mixed, sampler):
    expected = digests(mixed, 0, LAST, 1, 1, **SAMPLERS[sampler])
    assert len(set(expected)) == LAST
    ends = [first for first, _, _ in RUN[1:]] + [LAST]
    found = []
    for (first, ranks, accumulation), last in zip(RUN, ends, strict=True):
        found += digests(mixed, first, last, ranks, accumulation, **SAMPLERS[sampler])
    assert found == expected
