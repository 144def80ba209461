"""Writes the predictions of the last evaluation into the run folder, for the report and W&B.

`val_predictions.json` contains the counts of each class, the confused pairs and the worst images; `pictures/` contains
these images and a picture of the confusion matrix.
"""

import ctypes
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distcls.data.beton.file_format import RAW
from distcls.data.dataset import BetonDataset
from distcls.engine.evaluation.predictions import Predicted
from distcls.engine.records.durable_file import replace_file
from distcls.tracking.confusion_picture import draw_confusion
from distcls.tracking.trackers import Trackers

FILE, PICTURES = "val_predictions.json", "pictures"
SIDE = 256  # pixels; larger images are shrunk to this
LOSSLESS = 96  # pixels; smaller images are stored as PNG


def record_predictions(
    folder: Path,
    position: dict[str, float],
    predicted: Predicted,
    dataset: BetonDataset,
    trackers: Trackers,
    *,
    averaged: bool,
) -> None:
    """Write the files and pass them to the trackers; an error is only warned about.

    Args:
        folder: of the run.
        position: `step`, `epoch` and `samples` of the evaluation.
        averaged: whether the predictions are those of the averaged weights.
    """
    weights = "average" if averaged else "raw"
    content = {"step": position["step"], "weights": weights, **summary(predicted, dataset)}
    try:
        write(folder, content, dataset)
    except OSError as error:
        trackers.warn(f"{folder / FILE} and {folder / PICTURES} cannot be written: {error.strerror}")
        return
    trackers.event("val_predictions", step=position["step"], path=str(folder / FILE))
    trackers.predictions(position, content)


def summary(predicted: Predicted, dataset: BetonDataset) -> dict[str, Any]:
    """The content of `val_predictions.json`.

    Returns:
        images: number of images. multi_label: of the data set.
        classes: the columns name, images (of the class), predicted (as the class), right.
        pairs: every confusion as [class, predicted as, images], most frequent first; empty for several labels.
        worst: see `Worst`; each with `labels`, its class numbers, and `place` in the data set's files.
    """
    labels, classes = dataset.labels, dataset.num_classes
    pairs: list[list[int]] = []
    if predicted.best is not None:
        hit = predicted.best == labels
        actual, guessed, right = (
            np.bincount(numbers, minlength=classes) for numbers in (labels, predicted.best, labels[hit])
        )
        codes, times = np.unique(labels[~hit] * classes + predicted.best[~hit], return_counts=True)
        order = times.argsort(kind="stable")[::-1]
        pairs = [
            [int(code // classes), int(code % classes), int(n)]
            for code, n in zip(codes[order], times[order], strict=True)
        ]
    else:
        assert predicted.counts is not None
        actual, (right, guessed) = labels.sum(0, dtype=np.int64), predicted.counts
    worst = [
        {
            "index": one.index,
            "place": dataset.place_of(one.index),
            "loss": one.loss,
            "labels": np.atleast_1d(
                np.flatnonzero(labels[one.index]) if dataset.multi_label else labels[one.index]
            ).tolist(),
            "guesses": one.guesses,
        }
        for one in predicted.worst
    ]
    columns = {
        "name": dataset.class_names,
        "images": actual.tolist(),
        "predicted": guessed.tolist(),
        "right": right.tolist(),
    }
    return {
        "images": len(labels),
        "multi_label": dataset.multi_label,
        "classes": columns,
        "pairs": pairs,
        "worst": worst,
    }


def write(folder: Path, content: dict[str, Any], dataset: BetonDataset) -> None:
    """Write the files, and delete the pictures of an earlier evaluation.

    Each of the worst images gets the key `picture`, its file relative to `folder`, unless it cannot be decoded.

    Raises:
        OSError: the disk is full, or not writable.
    """
    pictures = folder / PICTURES
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    for number, one in enumerate(content["worst"], 1):
        image = _stored(dataset.samples[one["index"]])
        if image is not None:
            one["picture"] = f"{PICTURES}/{_save(image, pictures, number)}"
    if content["pairs"] or not content["multi_label"]:
        draw_confusion(content["classes"], content["pairs"]).save(pictures / "confusion.png", optimize=True)
    replace_file(folder / FILE, json.dumps(content, allow_nan=False, separators=(",", ":")).encode() + b"\n")


def _stored(sample: np.void) -> Image.Image | None:
    """The image of a row of `file_format.SAMPLE`; None if it is damaged.

    Decoded by Pillow: our own decoder of whole images, which training on a CPU does not use, takes seconds to compile
    when it is first used on a machine.
    """
    data = ctypes.string_at(int(sample["address"]), int(sample["size"]))
    if sample["mode"] == RAW:
        return Image.frombytes("RGB", (int(sample["width"]), int(sample["height"])), data)
    try:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (2 * SIDE, 2 * SIDE))  # decodes a large JPEG at a fraction of its size
        return image.convert("RGB")
    except OSError:
        return None


def _save(image: Image.Image, folder: Path, number: int) -> str:
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    name = f"worst_{number:02d}.{'png' if max(image.size) < LOSSLESS else 'jpg'}"
    image.save(folder / name, quality=88, optimize=True)
    return name
