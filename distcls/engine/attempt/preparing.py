"""The checks that each rank makes by itself, before it meets the others: recipe, data, initial weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distcls.engine.building.datasets import Datasets, open_datasets
from distcls.engine.building.initial_weights import InitialWeights
from distcls.engine.checks.fit_ranks import check_ranks
from distcls.engine.checks.plugins import Plugin, checked_recipe
from distcls.engine.ranks.preflight import preflight
from distcls.engine.records.run_folder import RunFolder
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source


@dataclass
class Prepared:
    """What a rank knows before it meets the others."""

    recipe: Recipe
    source: Source
    plugins: list[Plugin]
    datasets: Datasets
    initial_weights: InitialWeights | None

    def fingerprints(self) -> dict[str, str]:
        """What identifies the data wherever the files lie: their fingerprints, and the mean and std that normalise."""
        train, val = self.datasets.train, self.datasets.val
        normalised = " ".join(f"{value:.6g}" for value in (*train.mean, *train.std))
        return {"data.train": train.fingerprint, "data.val": val.fingerprint, "data.train (mean, std)": normalised}

    def identity(self, run_id: str) -> dict[str, Any]:
        """What checkpoints and weights files record about their run."""
        return {"run_id": run_id, **self.datasets.identity(self.recipe)}

    def code_folders(self) -> list[Path]:
        """Folders of the code that takes part in the run: recipe files, plug-ins, distcls."""
        plugins = (plugin.file for plugin in self.plugins)
        return [file.parent for file in (*self.source.files, *plugins, Path(__file__))]


def prepare(recipe_path: Path, overrides: Sequence[str], world_size: int) -> Prepared:
    """Everything that can be checked on one rank, without a GPU or a process group.

    Raises:
        UserError: all mistakes of the recipe; damaged data; a launcher that contradicts the recipe.
    """
    recipe, source, plugins = checked_recipe(recipe_path, overrides)
    preflight(precision=recipe.train.precision, strategy=recipe.distributed.strategy)
    datasets = open_datasets(recipe, source)
    check_ranks(recipe, source, world_size, gpu=torch.cuda.is_available())
    initial_weights = InitialWeights(recipe.model.init, source) if recipe.model.init else None
    # A run that resumes does not need the file, which may be gone by then.
    if initial_weights is not None and not _resumes(recipe):
        initial_weights.read()
    return Prepared(recipe, source, plugins, datasets, initial_weights)


def _resumes(recipe: Recipe) -> bool:
    """Whether there is a checkpoint to resume from; it may still turn out to be damaged."""
    folder = RunFolder(Path(recipe.output_dir)).checkpoints
    return recipe.checkpoint.resume != "never" and any(folder.glob("step_*/MANIFEST.json"))
