"""Keys of a recipe that are each valid but contradict one another."""

from collections.abc import Mapping
from typing import Any

from distcls.recipe.checker import Checker
from distcls.recipe.values import show


def check_together(checker: Checker, tree: Mapping[str, Any]) -> None:
    """Report to `checker` which keys of `tree` contradict one another; values of the wrong type are passed over."""
    train, data, distributed = (_mapping(tree, key) for key in ("train", "data", "distributed"))
    if isinstance(tree.get("train"), dict):  # otherwise the whole part is missing, which is reported already
        _check_length(checker, train)
    _check_batch(checker, train)
    _check_ramp(checker, data)
    _check_graphs(checker, train, distributed, data)


def _check_length(checker: Checker, train: Mapping[str, Any]) -> None:
    epochs, max_steps = train.get("epochs"), train.get("max_steps")
    if epochs is not None and max_steps is not None:
        got = f"epochs {show(epochs)} and max_steps {show(max_steps)}"
        checker.problem(("train", "max_steps"), f"two lengths: got {got}, expected one of them; set the other to null")
    written = checker.meant | {("train", key) for key in ("epochs", "max_steps") if train.get(key) is not None}
    if written.isdisjoint({("train", "epochs"), ("train", "max_steps")}) and checker.source.complete:
        checker.problem(("train",), "no length: expected epochs or max_steps")


def _check_batch(checker: Checker, train: Mapping[str, Any]) -> None:
    batch, parts = train.get("global_batch_size"), train.get("accumulation_steps", 1)
    if type(batch) is int and type(parts) is int and parts > 0 and batch % parts:
        text = f"not divisible: got {batch}, expected a multiple of train.accumulation_steps, which is {parts}"
        checker.problem(("train", "global_batch_size"), text)


def _check_ramp(checker: Checker, data: Mapping[str, Any]) -> None:
    ramp = _mapping(data, "resolution").get("ramp")
    if isinstance(ramp, list) and [type(epoch) for epoch in ramp] == [int, int] and ramp[0] > ramp[1]:
        text = f"ends before it begins: got {show(ramp)}, expected the last epoch of start, then the first of end"
        checker.problem(("data", "resolution", "ramp"), text)


def _check_graphs(
    checker: Checker, train: Mapping[str, Any], distributed: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    """What CUDA graphs cannot be combined with; engine/checks/fit_ranks.py checks that the strategy is ddp."""
    if train.get("cuda_graphs") is not True:
        return
    path, parts = ("train", "cuda_graphs"), train.get("accumulation_steps", 1)
    if train.get("compile") is True:
        text = "got true beside train.compile, expected one of them: both launch the same work in fewer calls"
        checker.problem(path, text)
    if type(parts) is int and parts > 1:
        # a graph writes its gradients to the same memory each time, so accumulation would add them to themselves
        checker.problem(path, f"needs one micro-batch a step: got {parts} accumulation steps, expected 1")
    if distributed.get("activation_checkpointing") is True:
        text = "keeps activations in fixed memory: got distributed.activation_checkpointing, expected false"
        checker.problem(path, text)
    if isinstance(data.get("resolution"), dict):
        text = "needs images of one size: got a resolution schedule, expected a number, or train.cuda_graphs=false"
        checker.problem(path, text)


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping at `key`; an empty one where there is none."""
    value = tree.get(key)
    return value if isinstance(value, dict) else {}
