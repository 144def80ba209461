"""Arguments that a part refuses are reported at the line of the recipe that holds them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from distcls.cli.main import app
from distcls.engine.checks.located import located, mistake_of
from distcls.errors import ArgumentError, UserError
from distcls.recipe.errors import RecipeError
from distcls.recipe.source import read

TREE = {
    "model": {"backbone": {"type": "ResNet"}, "head": {"type": "ClsHead", "loss": [{"type": "L1Loss"}]}},
    "data": {"augment": [{"type": "RandomCrop"}, {"type": "RandAugment"}]},
    "schedule": {"type": "CosineWarmup"},
}


@pytest.mark.parametrize(
    ("place", "path", "said"),
    [
        ("ClsHead.topk", ("model", "head", "topk"), "got it"),
        ("ClsHead.loss.reduction", ("model", "head", "loss", "reduction"), "got it"),
        ("L1Loss.p", ("model", "head", "loss", 0, "p"), "got it"),
        ("RandAugment.p", ("data", "augment", 1, "p"), "got it"),
        ("ResNet", ("model", "backbone"), "ResNet: got it"),
        ("schedule", ("schedule",), "got it"),
        ("data.mix", ("data", "mix"), "got it"),
    ],
)
def test_a_refused_argument_has_its_place(place: str, path: tuple, said: str) -> None:
    assert mistake_of(ArgumentError(place, "got it"), TREE) == (path, said)


@pytest.mark.parametrize("error", [UserError("no parameter is left to train"), ArgumentError("VGG.depth", "got 12")])
def test_what_is_about_nothing_of_the_recipe_stays(tiny_recipe: Path, error: UserError) -> None:
    with pytest.raises(UserError) as caught, located(read(tiny_recipe)):
        raise error
    assert caught.value is error


def test_a_class_that_refuses_its_argument(tiny_recipe: Path) -> None:
    result = CliRunner().invoke(app, ["recipe", "show", str(tiny_recipe), "--params", "model.head.topk=[1, 9]"])
    assert isinstance(result.exception, RecipeError)
    assert str(result.exception).splitlines()[1] == (
        "command line: model.head.topk: got (1, 9), expected at most 5, the number of classes"
    )
