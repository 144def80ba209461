"""Parameter groups with their own learning rate and weight decay, by OpenMMLab's `paramwise_cfg`."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from typing_extensions import TypedDict

from distcls.errors import ArgumentError, UserError
from distcls.registry import did_you_mean

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class CustomKey(TypedDict, total=False):
    """Multipliers for parameters by name; 1.0 if left out."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    lr_mult: float
    decay_mult: float


class ParamwiseCfg(TypedDict, total=False):
    """Multipliers of learning rate and weight decay; 1.0 where left out. Names and precedence are OpenMMLab's.

    norm_decay_mult: for weight and bias of normalisation layers. bias_decay_mult: for every other layer's bias.
    flat_decay_mult: for every other parameter of one dimension. layer_decay_rate: the learning rate of a layer is that
    of the next one times this; the head's is the optimizer's. custom_keys: part of a parameter's name -> its
    multipliers; the longest key that fits counts, and goes before the rules for norms and biases.
    """

    norm_decay_mult: float
    bias_decay_mult: float
    flat_decay_mult: float
    layer_decay_rate: float
    custom_keys: dict[str, CustomKey]


def param_groups(
    model: nn.Module, *, lr: float, weight_decay: float, paramwise_cfg: ParamwiseCfg | None = None
) -> list[dict[str, Any]]:
    """One group per distinct learning rate and weight decay, in the order in which the model names its parameters.

    Frozen parameters (``requires_grad=False``) are left out. Each group has ``names``, for logs and checkpoints.

    Raises:
        UserError: a custom key matches no parameter, the backbone does not know the depth of its layers, or no
            parameter is left to train.
    """
    rules = paramwise_cfg or {}
    custom = rules.get("custom_keys", {})
    _check_keys(custom, [name for name, _ in model.named_parameters()])
    layer_scale = _layer_scale(model, rules.get("layer_decay_rate", 1.0))
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    known: set[int] = set()  # a parameter that several modules share is updated once, under its first name
    for module_name, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in known:
                continue
            known.add(id(parameter))
            name = f"{module_name}.{own_name}" if module_name else own_name
            key = next((key for key in _longest_first(custom) if key in name), None)
            multipliers = custom[key] if key is not None else {"decay_mult": _decay(module, own_name, parameter, rules)}
            rate = lr * layer_scale(name) * multipliers.get("lr_mult", 1.0)
            decay = weight_decay * multipliers.get("decay_mult", 1.0)
            group = groups.setdefault((rate, decay), {"params": [], "names": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
            group["names"].append(name)
    if not groups:
        raise UserError("no parameter is left to train: all are frozen")
    return list(groups.values())


def learning_rates(groups: Sequence[Mapping[str, Any]], lr: float) -> dict[str, float]:
    """The learning rates before the schedule by metric name: "optim/lr", and "optim/lr/<part>" if groups differ.

    The part is the common beginning of the names of all parameters with that rate, e.g. ``backbone.layer1``. If there
    is none, or two rates share it, it is the rate as a multiple of `lr`: ``x0.1``.

    Args:
        groups: of an optimizer of this package.
        lr: the optimizer's learning rate.
    """
    names: dict[float, list[str]] = {}
    for group in groups:
        names.setdefault(group["lr"], []).extend(group.get("names", []))
    if len(names) == 1:
        return {"optim/lr": lr}
    common = {rate: _common_part(of_rate) for rate, of_rate in names.items()}
    parts = list(common.values())
    labels = {rate: part if part and parts.count(part) == 1 else f"x{rate / lr:.4g}" for rate, part in common.items()}
    return {"optim/lr": lr, **{f"optim/lr/{labels[rate]}": rate for rate in sorted(labels)}}


def _common_part(names: Sequence[str]) -> str:
    """The leading modules that all parameter names share, without the parameter's own name."""
    modules = [name.split(".")[:-1] for name in names]
    common = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*modules, strict=False))
    return ".".join(column[0] for column in common)


def _decay(module: nn.Module, name: str, parameter: Tensor, rules: ParamwiseCfg) -> float:
    """The multiplier of the weight decay for this kind of parameter: that of the first rule that is set and applies."""
    kinds = (
        (isinstance(module, NORMS), rules.get("norm_decay_mult")),
        (name == "bias" and not isinstance(module, NORMS), rules.get("bias_decay_mult")),
        (parameter.ndim == 1, rules.get("flat_decay_mult")),
    )
    return next((multiplier for fits, multiplier in kinds if fits and multiplier is not None), 1.0)


def _layer_scale(model: nn.Module, rate: float) -> Callable[[str], float]:
    """Parameter name -> rate ** (number of layers between it and the head)."""
    if rate == 1.0:
        return lambda name: 1.0
    backbone: Any = getattr(model, "backbone", None)
    if not hasattr(backbone, "get_layer_depth"):
        raise ArgumentError(
            "optimizer.paramwise_cfg.layer_decay_rate",
            f"{type(backbone).__name__} does not say how deep its layers lie "
            "(it has no get_layer_depth): remove the key, or set lr_mult by custom_keys",
        )

    def scale(name: str) -> float:
        depth, depths = backbone.get_layer_depth(name, "backbone.")
        return rate ** (depths - depth - 1)

    return scale


def _longest_first(custom: Mapping[str, Any]) -> list[str]:
    return sorted(sorted(custom), key=len, reverse=True)


def _check_keys(custom: Mapping[str, Any], names: list[str]) -> None:
    parts = {part for name in names for part in (name, *name.split("."))}
    for key in custom:
        if not any(key in name for name in names):
            hint = did_you_mean(key, parts)
            raise ArgumentError("optimizer.paramwise_cfg.custom_keys", f"no parameter's name contains {key!r}.{hint}")
