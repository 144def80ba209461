"""Detects models that can load a file's tensors but compute something else than the file's network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distcls.models.weights.report import Report, some
from distcls.models.weights.rules import Renamed

#: Entries derived from the image size, which older files of Swin hold besides the weights.
DERIVED = ("attn_mask", "relative_coords_table")
POSITIONS = ("pos_embed", "pos_embedding", "position_bias_table")
BLUR = ".blur_filter"
#: Part that the names of all unused weights have in common -> what the model lacks.
LACKS = (
    (BLUR, "It blurs before it strides: set `conv_cfg: {type: BlurPoolConv2d}` in the backbone"),
    (".se_layer.", "It has squeeze and excitation: take SEResNet or SEResNeXt"),
    (".se.", "It has squeeze and excitation"),
    (".grn.", "It is of ConvNeXt's second version: set `use_grn: true` in the backbone"),
    (".gamma", "Its branches are scaled: set `layer_scale_init_value` in the backbone"),
)


def beyond(model: nn.Module, renamed: Mapping[str, Renamed]) -> list[str]:
    """Names of the file's unused weights that belong to a part of the backbone that the model has as well.

    A 34-layer ResNet contains all tensors of the 18-layer one and more in each stage, so a model with only those
    computes something else. Stages that the model lacks entirely are not counted.
    """
    own, modules = model.state_dict(), dict(model.named_modules())
    found = []
    for name, one in renamed.items():
        if name in own or not one.entry.is_floating_point() or name.endswith(DERIVED):
            continue
        owner = name.rpartition(".")[0]
        if name.endswith(BLUR) and _is_ours(modules.get(owner), one.entry):
            continue
        while owner and owner not in modules:
            owner = owner.rpartition(".")[0]
        if owner.startswith("backbone.") and owner not in ("backbone.timm_model", "backbone.torchvision_model"):
            found.append(one.old)
    return found


def _is_ours(module: Any, blur: Tensor) -> bool:
    """Whether the module has the file's blur filter."""
    own = module.blur if getattr(module, "blurs", False) else None
    return own is not None and torch.allclose(blur.float(), own, atol=1e-3)  # tolerates half precision


def refusal(model: nn.Module, report: Report) -> str | None:
    """Why the model would compute something else than the file's network; None if nothing indicates that."""
    text = None
    if report.beyond:
        text = (
            f"its network has more than {type(model.backbone).__name__} as it is here, and without that it computes "
            f"something else: {len(report.beyond)} weights have no place in parts that both have: "
            f"{some(report.beyond)}. {_lack(report.beyond)}"
        )
    for name, theirs, ours in report.misfits:
        if name.endswith(POSITIONS):
            text = (
                f"{name} {list(theirs)} cannot be made {list(ours)}: expected the positions of a square grid, behind "
                "as many tokens as the model has before its patches. A class or distillation token that one has and "
                "the other has not?"
            )
    return text and f"{report.path}: {text}{'' if text.endswith('?') else '.'} `allow_low_match` takes it as it is"


def _lack(names: list[str]) -> str:
    if any(name.endswith("maxpool.blur_filter") for name in names):
        return "Its pooling blurs, too (Composer's BlurPool): no backbone here does"
    common = (text for part, text in LACKS if all(part in name for name in names))
    return next(common, "Is it deeper, or built with other arguments?")


def warnings(model: nn.Module, renamed: Mapping[str, Renamed], report: Report) -> list[str]:
    """What the user should know about weights that are loaded."""
    found = []
    own = {name for name, _ in model.named_parameters() if name.startswith("backbone.")}
    dropped = {name for name, *_ in report.dropped}
    if random := [name for name in report.missing if name in own - dropped]:
        found.append(
            f"{len(random)} parameters of the backbone are not from the file but as initialised: {some(random)}"
        )
    if report.beyond:
        found.append(
            f"{len(report.beyond)} weights of the file's network have no place in this one: {some(report.beyond)}"
        )
    blurs = any(getattr(module, "blurs", False) for module in model.modules())
    if blurs and report.source in ("torchvision", "timm") and not any(name.endswith(BLUR) for name in renamed):
        found.append(
            "its network did not blur before it strode, as this one does (BlurPoolConv2d): it has to be trained on"
        )
    for name, module in model.named_modules():
        grid = getattr(getattr(module, "patch_embed", None), "grid", None)
        place = next((f"{name}.{key}" for key in ("pos_embed", "absolute_pos_embed") if f"{name}.{key}" in own), None)
        if grid and grid[0] != grid[1] and place in report.loaded and place not in report.resized:
            found.append(
                f"{place} is taken as learned on {grid[0]} x {grid[1]} patches. If it was another grid of as many, set "
                "img_size to what that had: the model resizes it to its images"
            )
    return found
