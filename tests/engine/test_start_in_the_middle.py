"""A run that goes on late in an epoch plans and decodes what it hands out, and nothing before: counted, not timed."""

import pytest

from distcls.data.augmenting.augment import RandomHorizontalFlip
from distcls.data.dataset import BetonDataset
from distcls.data.loader import TrainLoader

BATCH, AHEAD = 8, 3


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_nothing_before_the_first_step_is_planned_or_read(tiny_data, monkeypatch, share, accumulation):
    loader = TrainLoader(
        BetonDataset(str(tiny_data / "train.beton")),
        resolution=16,
        transforms=[RandomHorizontalFlip()],
        global_batch_size=BATCH,
        accumulation_steps=accumulation,
        seed=0,
        workers=1,
        device="cpu",
        batches_ahead=AHEAD,
    )
    planned, decoded = [], []
    plan, decode = loader._plan, loader.decode
    monkeypatch.setattr(loader, "_plan", lambda step, part: planned.append((step, part)) or plan(step, part))
    monkeypatch.setattr(
        loader, "decode", lambda slot, plan: decoded.extend(plan.indices.tolist()) or decode(slot, plan)
    )
    first = round(share * loader.steps_per_epoch)
    with loader.stream(first, 10 * loader.steps_per_epoch) as batches:
        batch = next(batches)
    loader.close()
    assert planned[0] == (first, 0)
    assert len(planned) == len(loader.slots) + 1, "as many as may be ahead, and the one handed out"
    assert decoded[: len(batch.index)] == batch.index.tolist()
    assert len(decoded) == len(planned) * BATCH // accumulation
