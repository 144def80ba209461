"""docs/add_modules.md is run as it stands: its files as plug-ins, its recipe's model for a step of training."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from distcls.models import build_classifier
from distcls.recipe.schema import check
from distcls.recipe.source import read
from distcls.registry import ROLES

PAGE = Path(__file__).parents[2] / "docs" / "add_modules.md"
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 3])


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The page's files, written out under the names in their first lines and imported."""
    folder = tmp_path_factory.mktemp("plugins")
    registered = [dict(role._classes) for role in ROLES]
    names = []
    for code in code_blocks("python"):
        name = re.match(r"# (\w+)\.py\n", code).group(1)
        (folder / f"{name}.py").write_text(code)
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        names.append(name)
    yield names
    for role, classes in zip(ROLES, registered, strict=True):
        role._classes = classes
    for name in names:
        del sys.modules[name]


@pytest.fixture
def recipe(plugins: list[str]) -> dict:
    (text,) = code_blocks("yaml")
    return yaml.safe_load(text)


def step(block: dict) -> tuple[float, float]:
    """The losses before and after a small step of SGD."""
    torch.manual_seed(0)
    model = build_classifier(block, (16, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = model(IMAGES, TARGET)
    assert list(before) == ["loss", "top1", "top5"]
    before["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()
    return before["loss"].item(), model(IMAGES, TARGET)["loss"].item()


def test_the_recipe_names_the_pages_files(plugins: list[str], recipe: dict) -> None:
    named = [Path(path).stem for path in recipe["plugins"]]
    assert set(named) <= set(plugins)


def test_the_recipe_is_checked_without_a_mistake(recipe: dict, tiny_recipe: Path) -> None:
    rest = yaml.safe_load(tiny_recipe.read_text())
    tiny_recipe.write_text(yaml.safe_dump({**rest, "model": recipe["model"]}))
    head = check(read(tiny_recipe)).model.head
    assert head["type"] == "MyLinearClsHead"
    assert "in_channels" not in head, "it is found out: the page says so, though the class has no default for it"


def test_the_recipes_model_learns(recipe: dict) -> None:
    before, after = step(recipe["model"])
    assert after < before


def test_each_part_works_among_the_packages_own(recipe: dict) -> None:
    model = recipe["model"]
    own = {
        "backbone": {**model["backbone"], "type": "ResNet_CIFAR", "base_channels": 8, "stem_channels": 8},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {**model["head"], "type": "LinearClsHead", "loss": {"type": "L1Loss"}},
    }
    expected = step(own)
    for part, replacement in (
        ("backbone", {**own["backbone"], "type": "MyResNet_CIFAR"}),
        ("neck", {"type": "MyGlobalAveragePooling"}),
        ("head", {**own["head"], "type": "MyLinearClsHead"}),
        ("head", {**own["head"], "loss": {"type": "MyL1Loss"}}),
    ):
        assert step({**own, part: replacement}) == expected, f"the page's {part} does something else than the package's"


def test_the_other_backbone(recipe: dict) -> None:
    before, after = step({**recipe["model"], "backbone": {"type": "MyTwoLayers"}})
    assert after < before
