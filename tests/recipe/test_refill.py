"""A recorded recipe, read by a version that has more keys."""

import copy

import pytest

from distcls.recipe.refill import refilled
from tests.recipe.parts import checked

pytestmark = pytest.mark.usefixtures("stand_ins")


def test_keys_that_are_newer_than_the_record_get_their_defaults() -> None:
    resolved = checked().resolved()
    old = copy.deepcopy(resolved)
    for part, key in (("train", "ema"), ("train", "clip_grad_norm"), ("checkpoint", "allow_changes")):
        del old[part][key]
    del old["model"]["backbone"]["norm_cfg"], old["distributed"]
    assert refilled(old) == resolved


def test_what_was_recorded_stays() -> None:
    resolved = checked("train.seed=7", "optimizer.lr=0.25").resolved()
    assert refilled(resolved) == resolved


def test_a_record_that_this_version_refuses_stays_as_it_is() -> None:
    old = checked().resolved()
    old["train"]["gone_since"] = 1
    assert refilled(old) == old
