"""distcls: image classifiers trained from one YAML recipe on many GPUs, with exact resume.

model = distcls.build_model({"backbone": {...}, "neck": {...}, "head": {...}})
model = distcls.load("runs/imagenet_r50")            # or a .safetensors file of weights/
distcls.train("recipes/imagenet_r50.yaml", overrides=["optimizer.lr=0.5"])
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distcls.version import __version__

__all__ = ["__version__", "build_model", "load", "train"]

if TYPE_CHECKING:
    from distcls.engine.stopping.outcome import Outcome
    from distcls.models.classifier import ImageClassifier

# Imports stand inside the functions: `import distcls` costs nothing, and launch/train.py sets signal handlers before
# torch.


def build_model(block: Mapping[str, Any], *, image_size: tuple[int, int] = (224, 224)) -> "ImageClassifier":
    """The classifier that a model block (the `model` of a recipe) names, with fresh weights from torch's generator.

    Raises:
        UserError: an unknown type or argument, or parts that do not fit together.
    """
    from distcls.engine.library import build_model

    return build_model(block, image_size=image_size)


def load(run_or_weights: str | Path) -> "ImageClassifier":
    """The classifier of a run folder (its best weights, else its last) or of one of its weight files, in eval mode.

    Its `mean` and `std` attributes, per RGB channel on the scale 0 to 1, are what images are to be normalised with; its
    `class_names` name the logits. Plug-ins of the run are imported from where they lay, unless their classes are
    registered already.

    Raises:
        UserError: nothing there, or a file that is damaged or not one of ours.
    """
    from distcls.engine.library import load

    return load(Path(run_or_weights))


def train(recipe_path: str | Path, overrides: Sequence[str] = ()) -> "Outcome":
    """Train a recipe in this process, or go on with it; what `launch/train.py` does."""
    from distcls.engine.run import train

    return train(recipe_path, overrides)
