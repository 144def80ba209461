"""Moves an optimizer's state from any strategy into a checkpoint and back.

State with the shape of its parameter (momentum, Adam's moments) is sharded and reassembled with it, element by element.
Other state (Adam's step, `None`, a group's settings) is the same on all ranks and stored once.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from distcls.engine.strategies.shards import Run
from distcls.engine.strategies.strategy import Strategy

# of a group: objects, and which of torch's implementations runs, which the device decides
NOT_STATE = ("params", "names", "fused", "foreach", "capturable", "differentiable")
NOTHING: dict[str, Any] = {"cut": {}, "alone": {}}  # the state of a parameter that was not updated yet
OF_RECIPE = {"lr", "initial_lr", "weight_decay"}  # of a group: what the recipe gives it in every attempt


def shards_of_state(strategy: Strategy) -> list[tuple[Run, str, Tensor]]:
    """(run, name of the state, its elements, not copied) for all sharded state on this rank."""
    state = strategy.torch_optimizer.state
    return [
        (run, key, run.within(value))
        for held in strategy.held()
        for key, value in state.get(held.tensor, {}).items()
        if _elementwise(value, held.tensor)
        for run in held.runs
        if run.length
    ]


def once(strategy: Strategy) -> dict[str, Any]:
    """The state that is not sharded, by parameter, with names and dtypes of what is; and the groups' settings.

    For `flatten_state`; rank 0's is stored.
    """
    kept: dict[str, Any] = {}
    for held in strategy.held():
        state = strategy.torch_optimizer.state.get(held.tensor, {})
        cut = {key: _dtype_name(value) for key, value in state.items() if _elementwise(value, held.tensor)}
        for name in held.names:
            kept[name] = {"cut": cut, "alone": {key: value for key, value in state.items() if key not in cut}}
    groups = [
        {key: value for key, value in group.items() if key not in NOT_STATE}
        for group in strategy.torch_optimizer.param_groups
    ]
    return {"state": kept, "groups": groups}


def restore_state(
    strategy: Strategy, kept: Mapping[str, Any], runs: Mapping[str, Tensor], changed: Collection[str] = ()
) -> None:
    """Restore the optimizer from `kept`, made by `once`, and `runs`: ``name/state`` -> this rank's elements.

    A parameter that was frozen when the state was saved starts without state.

    Args:
        changed: arguments of the optimizer, such as `momentum`, that the recipe has changed since. They keep their new
            values; so do all groups if the groups have changed (another `paramwise_cfg`).
    """
    optimizer = strategy.torch_optimizer
    if len(optimizer.param_groups) == len(kept["groups"]):
        for group, saved in zip(optimizer.param_groups, kept["groups"], strict=True):
            group.update({key: value for key, value in saved.items() if key not in {*OF_RECIPE, *changed}})
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for held in strategy.held():
        states = (kept["state"].get(name, NOTHING) for name in held.names)
        saved = next((one for one in states if one != NOTHING), NOTHING)  # saved before its first update, or frozen
        if saved == NOTHING:
            continue
        state = optimizer.state[held.tensor]
        for key, value in saved["alone"].items():
            # torch keeps Adam's step, one per parameter, on the CPU unless the kernel reads it
            own = value.clone() if isinstance(value, Tensor) else value
            state[key] = own.to(held.tensor.device) if on_device and isinstance(own, Tensor) else own
        for key, dtype in saved["cut"].items():
            state[key] = torch.zeros_like(held.tensor, dtype=getattr(torch, dtype))
            for run in held.runs:
                if run.length and f"{run.name}/{key}" in runs:
                    own = run.within(state[key])
                    own.copy_(runs[f"{run.name}/{key}"].view(own.shape))


def _elementwise(value: Any, holder: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == holder.shape


def _dtype_name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
