"""Which parameters decay, and how much: OpenMMLab's `paramwise_cfg`, as parameter groups for torch's optimizers."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from typing_extensions import TypedDict

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class ParamwiseCfg(TypedDict, total=False):
    """Multipliers of the weight decay; 1.0 where left out.

    norm_decay_mult: for weight and bias of normalisation layers. bias_decay_mult: for every other layer's bias.
    """

    norm_decay_mult: float
    bias_decay_mult: float


def param_groups(model: nn.Module, *, weight_decay: float, paramwise_cfg: ParamwiseCfg | None = None) -> list[dict]:
    """One group per distinct weight decay, in the order in which the model names its parameters.

    Frozen parameters (``requires_grad=False``) are left out. Each group carries ``names``, so that logs and
    checkpoints can say what is in it.
    """
    rules = paramwise_cfg or {}
    groups: dict[float, dict] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if isinstance(module, NORMS):
                decay = weight_decay * rules.get("norm_decay_mult", 1.0)
            elif name == "bias":
                decay = weight_decay * rules.get("bias_decay_mult", 1.0)
            else:
                decay = weight_decay
            group = groups.setdefault(decay, {"params": [], "names": [], "weight_decay": decay})
            group["params"].append(parameter)
            group["names"].append(f"{module_name}.{name}" if module_name else name)
    return list(groups.values())
