"""What a part refuses is said at the line of the recipe that holds it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from distcls.cli.main import app
from distcls.engine.located import located, place
from distcls.errors import UserError
from distcls.recipe.errors import RecipeError
from distcls.recipe.source import read

TREE = {
    "model": {"backbone": {"type": "ResNet"}, "head": {"type": "ClsHead", "loss": [{"type": "L1Loss"}]}},
    "data": {"augment": [{"type": "RandomCrop"}, {"type": "RandAugment"}]},
    "schedule": {"type": "CosineWarmup"},
}


@pytest.mark.parametrize(
    ("text", "path", "left"),
    [
        ("ClsHead.topk: got (1, 9)", ("model", "head", "topk"), "got (1, 9)"),
        ("ClsHead.loss.reduction: got sum", ("model", "head", "loss", "reduction"), "got sum"),
        ("L1Loss.p: got 3: it is odd", ("model", "head", "loss", 0, "p"), "got 3: it is odd"),
        ("RandAugment: p: got 2", ("data", "augment", 1, "p"), "got 2"),
        ("ClsHead takes features (N, C): add a neck", ("model", "head"), "ClsHead takes features (N, C): add a neck"),
        ("ResNet: two of them are set", ("model", "backbone"), "ResNet: two of them are set"),
        ("schedule: the warm-up is long", ("schedule",), "the warm-up is long"),
        ("data.mix: p: got 2", ("data", "mix"), "p: got 2"),
    ],
)
def test_a_message_names_its_place(text: str, path: tuple, left: str) -> None:
    assert place(text, TREE) == (path, left)


@pytest.mark.parametrize(
    "text", ["no parameter is left to train", "the weights of x cannot be had: no network", "/a.b: c"]
)
def test_a_message_about_nothing_of_the_recipe_stays(tiny_recipe: Path, text: str) -> None:
    with pytest.raises(UserError, match=f"^{text}$") as caught, located(read(tiny_recipe)):
        raise UserError(text)
    assert type(caught.value) is UserError


def test_a_class_that_refuses_its_argument(tiny_recipe: Path) -> None:
    result = CliRunner().invoke(app, ["recipe", "show", str(tiny_recipe), "--params", "model.head.topk=[1, 9]"])
    assert isinstance(result.exception, RecipeError)
    assert str(result.exception).splitlines()[1] == (
        "command line: model.head.topk: got (1, 9), expected at most 5, the number of classes"
    )
