"""Models for other people's Python: from a block, or from a run's weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distcls.engine.checkpoint import load_weights
from distcls.engine.plugins import import_parts
from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier, build_classifier


def build_model(block: Mapping[str, Any], *, image_size: tuple[int, int]) -> ImageClassifier:
    """See `distcls.build_model`."""
    import_parts()
    return build_classifier(block, image_size=image_size)


def load(path: Path) -> ImageClassifier:
    """See `distcls.load`."""
    file = path
    if path.is_dir():
        candidates = [path / "weights" / f"{name}.safetensors" for name in ("best", "last")]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            raise UserError(f"{path}: no weights/best.safetensors or weights/last.safetensors: expected a run folder")
        file = found[0]
    tensors, metadata = load_weights(file)
    if metadata.get("format") != "distcls":
        raise UserError(f"{file}: not written by distcls: expected a file of a run folder's weights/")
    recipe = json.loads(metadata["recipe"])
    resolution = recipe["data"]["resolution"]
    size = resolution["end"] if isinstance(resolution, dict) else resolution
    model = build_model(recipe["model"], image_size=(size, size))
    model.load_state_dict(tensors)
    model.mean, model.std = json.loads(metadata["mean"]), json.loads(metadata["std"])
    model.class_names = json.loads(metadata["class_names"])
    return model.eval()
