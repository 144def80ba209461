"""The model that a run of a recipe would start from; this is how weights of other programs are evaluated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distcls.engine.building.datasets import open_datasets
from distcls.engine.building.initial_weights import PLACE, InitialWeights
from distcls.engine.building.loaders import protocol_of
from distcls.engine.building.model import build_model
from distcls.engine.checks.located import located
from distcls.engine.checks.plugins import checked_recipe
from distcls.models.classifier import ImageClassifier
from distcls.models.weights import Report
from distcls.models.weights.report import some


def is_recipe(path: Path) -> bool:
    """Whether the path given in place of a run is a recipe, judged by its name."""
    return path.suffix in (".yaml", ".yml")


def start_of(path: Path, overrides: Sequence[str]) -> tuple[ImageClassifier, dict[str, Any], Report]:
    """The model with the weights of `model.init`, in eval mode; facts as our own weights files hold; the report.

    Raises:
        UserError: mistakes of the recipe, its data or its weights; no weights named, or some are missing.
    """
    recipe, source, _ = checked_recipe(path, overrides)
    if recipe.model.init is None:
        raise source.error((PLACE, "missing key: expected the weights to evaluate; for those of a run give its folder"))
    datasets = open_datasets(recipe, source)
    initial_weights = InitialWeights(recipe.model.init, source)
    with located(source):
        model, report = build_model(recipe, source, initial_weights)
    assert report is not None
    initial_weights.compare(report, recipe, datasets.train)
    if missing := [name for name in report.missing if not name.endswith("num_batches_tracked")]:
        text = f"{report.path}: {len(missing)} entries of the model are not in it: {some(missing)}: nothing to evaluate"
        raise source.error((PLACE, text))
    facts = {**datasets.identity(recipe), "evaluation": {**protocol_of(recipe.data), "tta": recipe.eval.tta}}
    return model.eval(), facts, report
