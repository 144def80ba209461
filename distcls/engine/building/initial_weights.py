"""`model.init`: the initial weights, read before any GPU is used and loaded into the model before training."""

import json
from pathlib import Path

from torch import Tensor

from distcls.data.dataset import BetonDataset
from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.engine.checks.located import located_at
from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier
from distcls.models.weights import Checkpoint, Report, load_checkpoint, read_checkpoint
from distcls.recipe.errors import KeyPath
from distcls.recipe.schema import Init, Recipe
from distcls.recipe.source import Source

PLACE: KeyPath = ("model", "init", "checkpoint")
#: Arguments of backbones that say how they train, where they begin, or what they give: not what their layers compute.
OF_TRAINING = (
    *("frozen_stages", "norm_eval", "with_cp", "drop_rate", "drop_path_rate", "attn_drop_rate"),
    *("zero_init_residual", "linear_init", "layer_scale_init_value", "out_indices", "img_size", "interpolate_mode"),
    *("pretrained", "checkpoint_path", "num_classes", "init_cfg"),
)


class InitialWeights:
    """The weights that `model.init` names; every mistake is reported at that place in the recipe.

    Args:
        init: the recipe's block.
        source: of the recipe.
    """

    def __init__(self, init: Init, source: Source) -> None:
        self.init = init
        self.source = source
        self._checkpoint: Checkpoint | None = None
        self._metadata: dict[str, str] = {}

    def read(self) -> Checkpoint:
        """The weights of the file, which is read once.

        Raises:
            RecipeError: the file is missing or damaged, or a pickle that would execute code, which is refused.
        """
        if self._checkpoint is None:
            path = Path(self.init.checkpoint)
            with located_at(self.source, PLACE):
                file = weights_file(path)
                self._checkpoint = read_checkpoint(file, self.init.prefix, self._read_safetensors)
        return self._checkpoint

    def _read_safetensors(self, file: Path) -> dict[str, Tensor]:
        tensors, self._metadata = load_weights(file)
        return tensors

    def load_into(self, model: ImageClassifier) -> Report:
        """Load them into `model`, and free them.

        Raises:
            RecipeError: they belong to another architecture.
        """
        checkpoint, self._checkpoint = self.read(), None
        with located_at(self.source, PLACE):
            return load_checkpoint(model, checkpoint, self.init.map, self.init.allow_low_match)

    def compare(self, report: Report, recipe: Recipe, train: BetonDataset) -> None:
        """Add to `report` where a file of ours says that its network computed, or saw images, otherwise.

        Tensors do not show everything: a blur before the strides, where a Bottleneck strides, a norm's eps.

        Args:
            train: whose mean and std images are normalised with.
        """
        if self._metadata.get("format") != "distcls":
            return
        theirs, own = (
            one["model"]["backbone"]
            for one in map(json.loads, (self._metadata["recipe"], json.dumps(recipe.resolved())))
        )
        report.warnings += [
            f"its run had model.backbone.{key} {json.dumps(theirs[key])}, this one has {json.dumps(value)}"
            for key, value in own.items()
            if key not in OF_TRAINING and key in theirs and theirs[key] != value
        ]
        for name, here in (("mean", train.mean), ("std", train.std)):
            there = json.loads(self._metadata[name])
            if any(abs(a - b) > 0.01 for a, b in zip(there, here, strict=True)):
                shown = [", ".join(f"{value:.3f}" for value in values) for values in (there, here)]
                report.notes += (f"its run normalised images with the {name} {shown[0]}, this one with {shown[1]}",)


def weights_file(path: Path) -> Path:
    """`path` itself; if it is a run folder, its best weights, else its last.

    Raises:
        UserError: a folder without weights.
    """
    if not path.is_dir():
        return path
    candidates = [path / "weights" / f"{name}.safetensors" for name in ("best", "last")]
    found = [candidate for candidate in candidates if candidate.is_file()]
    if not found:
        raise UserError(f"{path}: no weights/best.safetensors or weights/last.safetensors: expected a run folder")
    return found[0]
