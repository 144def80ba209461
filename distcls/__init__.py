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

# The functions import what they need themselves: `import distcls` stays cheap, and launch/train.py can install its
# signal handlers before torch is imported.


def build_model(block: Mapping[str, Any], *, image_size: tuple[int, int] = (224, 224)) -> "ImageClassifier":
    """Build the classifier that a model block (a recipe's `model`) describes, with random weights.

    The weights are drawn from torch's global generator.

    Raises:
        UserError: an unknown type or argument, or parts that do not fit together.
    """
    from distcls.engine.library import build_model

    return build_model(block, image_size=image_size)


def load(run_or_weights: str | Path) -> "ImageClassifier":
    """Load the classifier of a run folder (the best weights, else the last) or of one weights file, in eval mode.

    Normalise images with its attributes `mean` and `std` (per RGB channel, on the scale 0 to 1); its `class_names` name
    the logits. The run's plug-ins are imported from their recorded paths unless their classes are already registered.

    Raises:
        UserError: the file does not exist, is damaged, or was not written by distcls.
    """
    from distcls.engine.library import load

    return load(Path(run_or_weights))


def train(recipe_path: str | Path, overrides: Sequence[str] = ()) -> "Outcome":
    """Train a recipe in this process, or resume its run, as `launch/train.py` does."""
    from distcls.engine.run import train

    return train(recipe_path, overrides)
