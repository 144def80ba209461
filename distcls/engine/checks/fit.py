"""Checks that a recipe fits its data sets and its model, before the first batch."""

from collections.abc import Callable
from typing import Any

import torch

from distcls.data.augmenting.resolution import Resolution
from distcls.data.class_names import first_few
from distcls.data.dataset import BetonDataset
from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier, at_rest, head_to_try
from distcls.recipe.errors import Mistake
from distcls.recipe.schema import Recipe
from distcls.registry import HEADS


def misfits(recipe: Recipe, train: BetonDataset, val: BetonDataset) -> list[Mistake]:
    """Every contradiction between the recipe and the data files."""
    found: list[Mistake] = []
    head, batch = recipe.model.head, recipe.train.global_batch_size
    for split, data in (("train", train), ("val", val)):
        for part in ("head", "backbone"):  # some backbones, such as LeNet5, can have a classifier of their own
            classes = getattr(recipe.model, part).get("num_classes")
            if classes not in (None, data.num_classes) and (part == "head" or classes > 0):
                text = (
                    f"does not fit the data: got {classes}, expected {data.num_classes}, "
                    f"the classes of data.{split} ({data.paths[0]})"
                )
                found.append((("model", part, "num_classes"), text))
    if train.class_names != val.class_names:
        text = (
            f"other classes than data.train: got {first_few(val.class_names)}, expected {first_few(train.class_names)}"
        )
        found.append((("data", "val", "path"), text))
    if len(train) < batch:
        text = (
            f"larger than the training set: got {batch}, expected at most {len(train)}, the images of {train.paths[0]}"
        )
        found.append((("train", "global_batch_size"), text))
    elif recipe.train.epochs is not None and not round(recipe.train.epochs * (len(train) // batch)):
        text = (
            f"not one step: got {recipe.train.epochs:g} epochs of {len(train) // batch} steps of {batch} images, "
            "expected more, or train.max_steps"
        )
        found.append((("train", "epochs"), text))
    found += _labels(HEADS[head["type"]], train, val)
    if recipe.data.sampler == "balanced" and train.multi_label:
        text = f"balanced needs one label per image: {train.paths[0]} holds any number of them; expected shuffle"
        found.append((("data", "sampler"), text))
    return found + _metrics(recipe, HEADS[head["type"]])


def model_misfits(model: ImageClassifier, recipe: Recipe, resolution: Resolution) -> list[Mistake]:
    """Mistakes that only a built model reveals: image sizes that it does not accept, a loss that takes no mixed labels.

    They are found by trying with one image of zeros per size, because models of plug-ins and libraries do not declare
    what they accept. This costs nothing for a recipe with a single size and no mixing.
    """
    found: list[Mistake] = []
    in_channels = getattr(model.backbone, "in_channels", 3)
    if in_channels != 3:
        text = f"got {in_channels}, expected 3: all images are RGB here, grey ones with three equal channels"
        found.append((("model", "backbone", "in_channels"), text))
    sizes = sorted(resolution.sides())
    usual = sizes[-1]
    expected = "or a model for any size, such as timm's with dynamic_img_size: true"
    with at_rest(model):
        if len(sizes) > 1:
            refused = [(size, said) for size in sizes if (said := _raised(model, _image(model, size)))]
            for size, said in refused[:1]:
                text = f"the model does not take every size of this schedule: got {size} ({said}), expected one size, "
                found.append((("data", "resolution"), text + expected))
        size = recipe.data.val.resolution or usual
        if size not in sizes and (said := _raised(model, _image(model, size))):
            text = f"the model does not take this size: got {size} ({said}), expected that of data.resolution, "
            found.append((("data", "val", "resolution"), text + expected))
        if recipe.data.mix and not found and (said := _soft_labels_refused(model, usual)):
            text = f"the labels that it mixes are not for this head or its loss ({said}): "
            found.append((("data", "mix"), text + "expected a loss for targets (N, C), such as CrossEntropyLoss"))
    return found


def _soft_labels_refused(model: ImageClassifier, size: int) -> str | None:
    features = model.features(_image(model, size))
    classes = model.head(features).shape[1]
    return _raised(head_to_try(model.head, classes).forward_train, features, torch.full((1, classes), 1 / classes))


def _image(model: ImageClassifier, size: int) -> torch.Tensor:
    return torch.zeros(1, getattr(model.backbone, "in_channels", 3), size, size)


def _raised(call: Callable[..., Any], *arguments: Any) -> str | None:
    """The first line of the error that `call` raises, of whatever type; None if it raises none."""
    try:
        call(*arguments)
    except Exception as error:
        said = str(error).partition("\n")[0]
        return said if isinstance(error, UserError) else f"{type(error).__name__}: {said}"
    return None


def _labels(head: Any, train: BetonDataset, val: BetonDataset) -> list[Mistake]:
    """Compare the kinds of labels. A head not derived from ClsHead does not declare its kind and is not checked."""
    kinds = {False: "one label per image", True: "any number of labels per image"}
    if train.multi_label != val.multi_label:
        text = (
            f"other labels than data.train: {val.paths[0]} holds {kinds[val.multi_label]}, "
            f"{train.paths[0]} {kinds[train.multi_label]}"
        )
        return [(("data", "val", "path"), text)]
    takes = getattr(head, "multi_label", train.multi_label)
    if takes == train.multi_label:
        return []
    example = "MultiLabelLinearClsHead" if train.multi_label else "LinearClsHead"
    text = (
        f"does not fit the data: got {head.__name__}, for {kinds[takes]}, expected a head such as {example}: "
        f"data.train ({train.paths[0]}) holds {kinds[train.multi_label]}"
    )
    return [(("model", "head", "type"), text)]


def _metrics(recipe: Recipe, head: Any) -> list[Mistake]:
    if not recipe.eval.metrics or hasattr(head, "scores"):
        return []
    text = f"needs a head that gives probabilities: {head.__name__} has no scores(logits), which ClsHead's heads have"
    return [(("eval", "metrics"), text)]
