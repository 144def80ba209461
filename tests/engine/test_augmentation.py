"""A whole run with everything that happens to pixels, labels and order: the same run after a kill."""

import pytest
import torch

import distcls
from distcls.engine.attempt.preparing import prepare
from distcls.errors import UserError
from tests.engine.launching import PLAIN, finish, held, launch, start
from tests.engine.test_resume import assert_same_run, wait_for_step

CHANGES = [
    "data.augment=[{type: RandomResizedCrop}, {type: RandomHorizontalFlip}, {type: RandAugment, mstd: 0.5}, "
    "{type: ColorJitter, brightness: 0.3, hue: [-0.1, 0.1]}, {type: RandomErasing, p: 0.25, value: random}]",
    "data.mix=[{type: Mixup, alpha: 0.2}, {type: CutMix, alpha: 1.0}]",
    "data.sampler=repeated",
    "data.resolution={start: 12, end: 16, ramp: [0, 2], multiple_of: 2}",
    "train.log_every_steps=1",
]


def test_an_augmented_run_goes_on_after_a_kill_as_if_nothing_had_happened(tiny_recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, output = launch(PLAIN, tiny_recipe, *CHANGES, f"output_dir={whole}")
    assert code == 0, output
    process = start(held(PLAIN, 22), tiny_recipe, *CHANGES, f"output_dir={killed}")
    wait_for_step(process, killed, 14)
    process.kill()
    finish(process)
    code, output = launch(PLAIN, tiny_recipe, *CHANGES, f"output_dir={killed}")
    assert code == 0, output
    assert_same_run(whole, killed)
    assert distcls.load(killed)(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_what_cannot_be_paired_is_refused_before_anything_starts(tiny_recipe):
    with pytest.raises(UserError) as refused:
        prepare(tiny_recipe, ["data.mix=[{type: Mixup}]", "train.accumulation_steps=32"], world_size=1)
    assert (
        "command line: data.mix: images are mixed in pairs: got micro-batches of 1 images "
        "(1 ranks x 32 accumulation steps), expected an even number"
    ) in str(refused.value)
