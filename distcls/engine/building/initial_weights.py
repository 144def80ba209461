"""`model.init`: the file that a run's weights start from, read before GPUs are touched and loaded before training."""

from pathlib import Path

from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.engine.checks.located import located_at
from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier
from distcls.models.weights import Checkpoint, Report, load_checkpoint, read_checkpoint
from distcls.recipe.errors import KeyPath
from distcls.recipe.schema import Init
from distcls.recipe.source import Source

PLACE: KeyPath = ("model", "init", "checkpoint")


class InitialWeights:
    """What `model.init` names; every mistake is reported at its place in the recipe.

    Args:
        init: the recipe's block.
        source: where it was written.
    """

    def __init__(self, init: Init, source: Source) -> None:
        self.init = init
        self.source = source
        self._checkpoint: Checkpoint | None = None

    def read(self) -> Checkpoint:
        """The file's weights; it is read once.

        Raises:
            RecipeError: no such file, damaged, or one that only code could read, which is refused and not executed.
        """
        if self._checkpoint is None:
            path = Path(self.init.checkpoint)
            with located_at(self.source, PLACE):
                file = weights_file(path)
                self._checkpoint = read_checkpoint(file, self.init.prefix, lambda file: load_weights(file)[0])
        return self._checkpoint

    def load_into(self, model: ImageClassifier) -> Report:
        """Load them and forget them.

        Raises:
            RecipeError: they are of another architecture.
        """
        checkpoint, self._checkpoint = self.read(), None
        with located_at(self.source, PLACE):
            return load_checkpoint(model, checkpoint, self.init.map, self.init.allow_low_match)


def weights_file(path: Path) -> Path:
    """`path` itself, or the best, else the last weights of the run folder at `path`.

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
