"""A trained model in use: evaluated on a data set, or asked about single images, as its run evaluated it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distcls.data.class_names import first_few
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader
from distcls.data.single_images import SingleImages
from distcls.engine.building.initial_weights import weights_file
from distcls.engine.building.precision import HALF
from distcls.engine.building.recipe_start import is_recipe, start_of
from distcls.engine.evaluate import evaluate, logits_of
from distcls.engine.evaluation.class_metrics import ClassMetrics
from distcls.engine.evaluation.predictions import Predicted, Predictions, scores_of
from distcls.engine.library import load_with_facts
from distcls.engine.ranks.topology import cores_per_rank
from distcls.errors import UserError
from distcls.models.weights import Report

TOGETHER = 64  # single images that go through the model at once


@dataclass(frozen=True)
class Evaluated:
    """What a model makes of a data set.

    Attributes:
        means: loss, top-k and what the metrics add; `n` images.
        per_class: a row for each class, and the confusion matrix; see ClassMetrics.
        predicted: of each image; see Predictions.
    """

    means: dict[str, float]
    per_class: dict[str, Any]
    predicted: Predicted


class TrainedModel:
    """Weights of a run with all that belongs to looking at images with them.

    Args:
        path: a run folder (its best weights, else its last), a file of its weights, or a recipe: the weights that
            its `model.init` names, as a run of it would begin with them.
        overrides: of the recipe.
        device: where it computes; None: the GPU if there is one.

    Attributes:
        file: the weights.
        report: a recipe's: what became of each entry of the file.
        model: the classifier, in eval mode, on `device`.
        class_names, mean, std: of the data that it was trained on.
        val_paths: of the data set that the run evaluates on.
        recipe: the run's, with all defaults.
        protocol: resolution, crop_ratio, interpolation and tta of the run's evaluations.

    Raises:
        UserError: nothing there, or a file that is damaged or not one of ours; a recipe's mistakes.
    """

    def __init__(self, path: Path, overrides: Sequence[str] = (), device: torch.device | None = None) -> None:
        self.report: Report | None = None
        if is_recipe(path):
            self.model, facts, self.report = start_of(path, overrides)
            self.file = self.report.path
        else:
            self.file = weights_file(path)
            self.model, facts = load_with_facts(self.file)
        self.recipe, self.protocol = facts["recipe"], facts["evaluation"]
        self.class_names: list[str] = facts["class_names"]
        self.mean, self.std = facts["mean"], facts["std"]
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        val = self.recipe["data"]["val"]["path"]
        self.val_paths: list[str] = [val] if isinstance(val, str) else val
        train = self.recipe["train"]
        self.dtype = torch.float64 if train["precision"] == "fp64" else torch.float32
        self.model.to(device=self.device, dtype=self.dtype)
        if train["channels_last"]:
            self.model.to(memory_format=torch.channels_last)
        half = HALF.get(train["precision"])
        self.autocast: Callable[[], AbstractContextManager] = (
            partial(torch.autocast, self.device.type, dtype=half) if half else nullcontext
        )

    def evaluate(self, dataset: BetonDataset, metrics: Sequence[str], batch_size: int | None = None) -> Evaluated:
        """Every image of `dataset` once.

        Args:
            metrics: of `eval.metrics`.
            batch_size: None: that of the run's evaluations in one process.
        """
        train, look = self.recipe["train"], self.protocol
        loader = EvalLoader(
            dataset,
            resolution=look["resolution"],
            crop_ratio=look["crop_ratio"],
            interpolation=look["interpolation"],
            batch_size=batch_size
            or self.recipe["eval"]["batch_size"]
            or train["global_batch_size"] // train["accumulation_steps"],
            mean=self.mean,
            std=self.std,
            workers=cores_per_rank(1),
            device=self.device,
            dtype=self.dtype,
        )
        own = {"head": self.model.head, "device": self.device, "world_size": 1}
        measured = ClassMetrics(metrics, class_names=dataset.class_names, **own)
        predictions = Predictions(num_classes=dataset.num_classes, multi_label=dataset.multi_label, **own)
        try:
            means = evaluate(
                self.model,
                self.model,
                loader,
                device=self.device,
                world_size=1,
                autocast=self.autocast,
                tta=look["tta"],
                metrics=measured,
                predictions=predictions,
            )
        finally:
            loader.close()
        assert means is not None
        return Evaluated(means, measured.per_class, predictions.result())

    def dataset(self, paths: Sequence[str]) -> BetonDataset:
        """The .beton files `paths`, held against the model.

        Raises:
            DataError: a file is missing or damaged.
            UserError: the files have other classes than the model.
        """
        dataset = BetonDataset(list(paths))
        if dataset.class_names != self.class_names:
            got, expected = (first_few(names) for names in (dataset.class_names, self.class_names))
            raise UserError(f"{dataset.paths[0]}: other classes than the model's: got {got}, expected {expected}")
        return dataset

    def predict(self, paths: Sequence[Path], top: int) -> Iterator[tuple[str, list[tuple[str, float]] | DataError]]:
        """Each image's file with its `top` most probable classes, best first, or with why it cannot be read.

        Raises:
            DataError: nothing at one of `paths`, or a folder without images.
        """
        look = {key: self.protocol[key] for key in ("resolution", "crop_ratio", "interpolation")}
        images = SingleImages(paths, mean=self.mean, std=self.std, **look)

        def read(index: int) -> torch.Tensor | DataError:
            try:
                return images.prepared(index)
            except DataError as error:
                return error

        with ThreadPoolExecutor(cores_per_rank(1)) as threads:
            for part in (range(len(images))[i : i + TOGETHER] for i in range(0, len(images), TOGETHER)):
                found = list(threads.map(read, part))
                best = iter(self._best([one for one in found if isinstance(one, torch.Tensor)], top))
                for index, one in zip(part, found, strict=True):
                    yield images.name_of(index), one if isinstance(one, DataError) else next(best)

    def _best(self, images: list[torch.Tensor], top: int) -> list[list[tuple[str, float]]]:
        if not images:
            return []
        stacked = torch.stack(images).to(self.device, self.dtype)
        with torch.no_grad(), self.autocast():
            logits = logits_of(self.model, stacked, self.protocol["tta"])
        head = self.model.head
        scores = scores_of(head, logits, multi_label=getattr(head, "multi_label", False))
        names = self.class_names
        values, classes = scores.topk(min(top, len(names)), dim=1)
        rows = zip(classes.tolist(), values.tolist(), strict=True)
        return [[(names[number], score) for number, score in zip(*row, strict=True)] for row in rows]
