"""A whole run with everything that happens to pixels, labels and order: the same run after a kill."""

from tests.engine.launching import PLAIN, finish, launch, start
from tests.engine.test_resume import assert_same_run, wait_for_step

CHANGES = [
    "data.augment=[{type: RandomResizedCrop}, {type: RandomHorizontalFlip}, {type: RandAugment, mstd: 0.5}, "
    "{type: ColorJitter, brightness: 0.3, hue: [-0.1, 0.1]}, {type: RandomErasing, p: 0.25, value: random}]",
    "data.mix=[{type: Mixup, alpha: 0.2}, {type: CutMix, alpha: 1.0}]",
    "train.log_every_steps=1",
]


def test_an_augmented_run_goes_on_after_a_kill_as_if_nothing_had_happened(tiny_recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, output = launch(PLAIN, tiny_recipe, *CHANGES, f"output_dir={whole}")
    assert code == 0, output
    process = start(PLAIN, tiny_recipe, *CHANGES, f"output_dir={killed}")
    wait_for_step(process, killed, 14)
    process.kill()
    finish(process)
    code, output = launch(PLAIN, tiny_recipe, *CHANGES, f"output_dir={killed}")
    assert code == 0, output
    assert_same_run(whole, killed)
