"""Stand-ins for the real parts, with the shapes of argument that those have; no torch. See `stand_ins` in conftest."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from distcls import registry
from distcls.recipe.schema import Recipe, check
from distcls.recipe.source import read
from distcls.registry import Registry

BACKBONES = Registry("backbone")
NECKS = Registry("neck")
HEADS = Registry("head")
LOSSES = Registry("loss")
TRANSFORMS = Registry("augmentation")
MIXES = Registry("mixing")
OPTIMIZERS = Registry("optimizer")
SCHEDULES = Registry("schedule")
TRACKERS = Registry("tracker")
REGISTRIES = (BACKBONES, NECKS, HEADS, LOSSES, TRANSFORMS, MIXES, OPTIMIZERS, SCHEDULES, TRACKERS)


class BaseModule:
    def __init__(self, init_cfg: dict | None = None) -> None: ...


@BACKBONES.register
class ResNet(BaseModule):
    """Residual network, He et al. 2015.

    A second paragraph, which editors do not need.

    Args:
        depth: number of layers with weights,
            shortcuts not counted.
        out_indices: stages whose output is returned.
    """

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101, 152],
        num_stages: Annotated[int, Field(ge=1, le=4)] = 4,
        out_indices: tuple[int, ...] = (3,),
        norm_cfg: dict[str, Any] = {"type": "BN"},  # noqa: B006
        act: Callable = print,
        init_cfg=None,
    ) -> None: ...


@BACKBONES.register
class ResNet_CIFAR(ResNet):
    def __init__(self, depth: Literal[18, 34], deep_stem=False, **kwargs) -> None: ...


@BACKBONES.register
class Timm:
    def __init__(self, name: str, **kwargs: Any) -> None: ...


@NECKS.register
class GlobalAveragePooling:
    """Mean over height and width."""


@LOSSES.register
class CrossEntropyLoss:
    def __init__(self, reduction: Literal["mean", "sum"] = "mean", loss_weight: float = 1.0) -> None: ...


@LOSSES.register
class SumOfLosses:
    def __init__(self, losses: Annotated[list, registry.LOSSES]) -> None: ...


@HEADS.register
class LinearClsHead:
    def __init__(
        self,
        num_classes: Annotated[int, Field(gt=0)],
        in_channels: int | None = None,
        loss: Annotated[dict, registry.LOSSES] = {"type": "CrossEntropyLoss"},  # noqa: B006
        topk: int | tuple[int, ...] = (1, 5),
    ) -> None: ...


@TRANSFORMS.register
class RandomHorizontalFlip:
    def __init__(self, p: Annotated[float, Field(ge=0, le=1)] = 0.5) -> None: ...


@TRANSFORMS.register
class RandomResizedCrop:
    def __init__(self, scale: tuple[float, float] = (0.08, 1), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None: ...


@OPTIMIZERS.register
class SGD:
    def __init__(
        self,
        model: Any,
        lr: Annotated[float, Field(gt=0)],
        momentum: float = 0.9,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None: ...


@OPTIMIZERS.register
class AdamW:
    def __init__(
        self, model: Any, lr: Annotated[float, Field(gt=0)], betas: tuple[float, float] = (0.9, 0.999)
    ) -> None: ...


@SCHEDULES.register
class CosineWarmup:
    def __init__(
        self, total_steps: int, steps_per_epoch: int, warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    ) -> None: ...


WHOLE = """\
model:
  backbone: {type: ResNet, depth: 50}
  neck: {type: GlobalAveragePooling}
  head:
    type: LinearClsHead
    num_classes: 10
    loss: {type: CrossEntropyLoss}
data:
  train: {path: train.beton}
  val: {path: val.beton}
  resolution: 32
  augment:
    - {type: RandomResizedCrop, scale: [0.5, 1]}
    - {type: RandomHorizontalFlip}
optimizer: {type: SGD, lr: 0.5, weight_decay: 5e-5}
schedule: {type: CosineWarmup, warmup_epochs: 1}
train: {epochs: 3, global_batch_size: 256}
"""


def checked(*overrides: str, text: str = WHOLE, name: str = "recipe.yaml") -> Recipe:
    Path(name).write_text(text)
    return check(read(Path(name), overrides))


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put these classes in the place of the registered ones."""
    for role, ours in zip(registry.ROLES, REGISTRIES, strict=True):
        monkeypatch.setattr(role, "_classes", dict(ours._classes))
