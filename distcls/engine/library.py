"""Models for use from Python: built from a model block, or loaded from a run's weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distcls.engine.building.initial_weights import weights_file
from distcls.engine.checkpoints.export import IDENTITY
from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.engine.checks.located import blocks
from distcls.engine.checks.plugins import import_parts, import_plugin
from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier, build_classifier
from distcls.models.weights import is_safetensors
from distcls.registry import ROLES


def build_model(block: Mapping[str, Any], *, image_size: tuple[int, int]) -> ImageClassifier:
    """See `distcls.build_model`."""
    import_parts()
    return build_classifier(block, image_size=image_size)


def load(path: Path) -> ImageClassifier:
    """See `distcls.load`."""
    return load_with_facts(path)[0]


def load_with_facts(path: Path) -> tuple[ImageClassifier, dict[str, Any]]:
    """The model of `distcls.load`, and the facts that its file stores beside the weights."""
    file = weights_file(path)
    ours = file.suffix == ".safetensors" or is_safetensors(file)  # a truncated file of ours must be reported as such
    tensors, metadata = load_weights(file) if ours else ({}, {})
    if metadata.get("format") != "distcls":
        raise UserError(
            f"{file}: not written by distcls: expected a run folder, or a file of its weights/. Weights of another "
            f"program need a recipe that describes their model: distcls eval RECIPE.yaml model.init.checkpoint={file}"
        )
    facts = {key: json.loads(metadata[key]) for key in IDENTITY if key != "run_id"}
    recipe = facts["recipe"]
    resolution = recipe["data"]["resolution"]
    size = resolution["end"] if isinstance(resolution, dict) else resolution
    import_parts()
    _import_plugins(file, recipe)
    model = build_classifier(recipe["model"], image_size=(size, size), init_weights=False)
    model.load_state_dict(tensors)
    model.mean, model.std, model.class_names = facts["mean"], facts["std"], facts["class_names"]
    return model.eval(), facts


def _import_plugins(file: Path, recipe: Mapping[str, Any]) -> None:
    """Import the run's plug-ins if its model needs a class that is not registered."""
    types = [block["type"] for _, block in blocks(recipe["model"])]
    if all(any(name in role for role in ROLES) for name in types):
        return
    for name in recipe["plugins"]:
        try:
            import_plugin(name)
        except UserError as error:
            text = f"{file}: a plug-in of its run: {error}. Put it back, or import its classes before distcls.load"
            raise UserError(text) from error
