"""`checkpoint.allow_changes` names keys of recipes, of whatever type their blocks are or were."""

import pytest

from distcls.recipe.errors import RecipeError
from tests.recipe.parts import WHOLE, checked

pytestmark = pytest.mark.usefixtures("stand_ins")


def allowing(*names: str) -> str:
    return WHOLE + f"checkpoint:\n  allow_changes: [{', '.join(names)}]\n"


def test_keys_of_every_part_and_of_every_type_of_block_are_known() -> None:
    known = ["train", "train.epochs", "data.train", "data.augment", "data.resolution.ramp", "model.head.loss.type"]
    known += ["optimizer.betas", "optimizer.nesterov", "model.backbone.norm_cfg.eps", "train.ema.decay"]
    known += ["model.backbone.of_a_library"]  # Timm takes any key
    assert checked(text=allowing(*known)).checkpoint.allow_changes == known


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("train.epoch", "no such key: got 'train.epoch', expected epochs, max_steps, "),
        ("train.epoch", "cuda_graphs or channels_last below train. Did you mean 'train.epochs'?"),
        ("train.epochs.of", "no such key: got 'train.epochs.of', expected nothing below train.epochs"),
        ("optimiser.lr", ", tracking or distributed. Did you mean 'optimizer'?"),
        ("schedule.warmup", "expected type or warmup_epochs below schedule. Did you mean 'schedule.warmup_epochs'?"),
    ],
)
def test_a_key_that_no_recipe_has_is_a_mistake_at_its_place(name: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        checked(text=allowing("data", name))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(f"recipe.yaml:{len(allowing().splitlines())}:25: checkpoint.allow_changes.1: ")
    assert sentence in line
