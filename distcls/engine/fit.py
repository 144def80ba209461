"""Where a recipe does not fit its data sets: known before anything is built, reported like every mistake."""

from typing import Any

from distcls.data.dataset import BetonDataset
from distcls.recipe.errors import KeyPath, Problem
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source
from distcls.registry import HEADS


def misfits(recipe: Recipe, source: Source, train: BetonDataset, val: BetonDataset) -> list[Problem]:
    """Every contradiction between the recipe and what is in the files."""
    found: list[tuple[KeyPath, str]] = []
    head, batch = recipe.model.head, recipe.train.global_batch_size
    for split, data in (("train", train), ("val", val)):
        if head.get("num_classes") not in (None, data.num_classes):
            text = (
                f"does not fit the data: got {head['num_classes']}, expected {data.num_classes}, "
                f"the classes of data.{split} ({data.paths[0]})"
            )
            found.append((("model", "head", "num_classes"), text))
    if train.class_names != val.class_names:
        text = f"other classes than data.train: got {_listed(val.class_names)}, expected {_listed(train.class_names)}"
        found.append((("data", "val", "path"), text))
    if len(train) < batch:
        text = (
            f"larger than the training set: got {batch}, expected at most {len(train)}, the images of {train.paths[0]}"
        )
        found.append((("train", "global_batch_size"), text))
    found += _labels(HEADS[head["type"]], train, val)
    if recipe.data.sampler == "balanced" and train.multi_label:
        text = f"balanced needs one label per image: {train.paths[0]} holds any number of them; expected shuffle"
        found.append((("data", "sampler"), text))
    found += _metrics(recipe, HEADS[head["type"]])
    found += _graphs(recipe)
    return [Problem(source.at(path), path, text) for path, text in found]


def _graphs(recipe: Recipe) -> list[tuple[KeyPath, str]]:
    train, wrong = recipe.train, []
    if train.compile:
        wrong.append("got true beside train.compile, expected one of them: both launch the same work in fewer calls")
    if recipe.distributed.strategy != "ddp":
        wrong.append(f"needs weights that stay in place: got strategy {recipe.distributed.strategy}, expected ddp")
    if train.accumulation_steps > 1:
        # a graph writes its gradients to the same memory each time, where autograd would add them to themselves
        wrong.append(f"needs one micro-batch a step: got {train.accumulation_steps} accumulation steps, expected 1")
    if not isinstance(recipe.data.resolution, int):
        wrong.append(
            "needs images of one size: got a resolution schedule, expected a number, or train.cuda_graphs=false"
        )
    return [(("train", "cuda_graphs"), text) for text in wrong] if train.cuda_graphs else []


def _labels(head: Any, train: BetonDataset, val: BetonDataset) -> list[tuple[KeyPath, str]]:
    """A head that is no ClsHead does not say what it takes, and is believed."""
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


def _metrics(recipe: Recipe, head: Any) -> list[tuple[KeyPath, str]]:
    if not recipe.eval.metrics or hasattr(head, "scores"):
        return []
    text = f"needs a head that gives probabilities: {head.__name__} has no scores(logits), which ClsHead's heads have"
    return [(("eval", "metrics"), text)]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)})" if len(names) > 4 else "")
