"""docs/models.md is what docs/make_models.py makes, and its claims have a basis."""

import importlib.util
from pathlib import Path

import pytest

from distcls.models.weights.timm_names import TIMM
from distcls.models.weights.torchvision_names import TORCHVISION
from distcls.registry import BACKBONES

SCRIPT = Path(__file__).parents[2] / "docs/make_models.py"
SPEC = importlib.util.spec_from_file_location("make_models", SCRIPT)
make_models = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_models)


@pytest.mark.slow
def test_the_page_is_not_stale() -> None:
    assert make_models.PAGE.read_text() == make_models.page(), "run python docs/make_models.py"


def test_counts_of_a_known_network() -> None:
    """https://pytorch.org/vision/main/models.html: ResNet-18 has 11,689,512 parameters and 1.81 G multiply-adds."""
    example = next(one for one in make_models.EXAMPLES if one.backbone == {"type": "ResNet", "depth": 18})
    parameters, flops = example.counts()
    assert parameters == 11_689_512
    assert flops == pytest.approx(2 * 1.81e9, rel=0.01)


def test_a_backbone_without_an_example_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_models, "EXAMPLES", [one for one in make_models.EXAMPLES if one.backbone["type"] != "VGG"])
    with pytest.raises(SystemExit, match=r"docs/make_models\.py has no example of VGG: add one to EXAMPLES"):
        make_models.page()


def test_weights_are_named_only_where_names_are_mapped() -> None:
    for example in make_models.EXAMPLES:
        classes = {cls.__name__ for cls in BACKBONES[example.backbone["type"]].__mro__}
        for library, table in (("torchvision", TORCHVISION), ("timm", TIMM)):
            assert library not in example.weights or classes & set(table), example
