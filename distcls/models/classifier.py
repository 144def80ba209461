"""ImageClassifier: backbone, neck and head as one module; build_classifier makes it from the recipe's model block."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distcls.errors import ArgumentError, UserError
from distcls.models.common import BaseModule
from distcls.registry import BACKBONES, HEADS, NECKS


class ImageClassifier(BaseModule):
    """Images (N, 3, H, W), normalised -> logits (N, C); with targets -> losses and counts of right answers.

    Args:
        backbone: images -> features, or a tuple of them.
        neck: features -> features; None passes them on.
        head: `forward(x) -> logits` and `forward_train(x, gt_label) -> dict` (or the loss alone).

    A tuple of one element is unwrapped on its way to the next part: a part written for a single map gets it.

    Raises:
        UserError: the head counts top-k with k above its num_classes.
    """

    def __init__(self, *, backbone: nn.Module, neck: nn.Module | None = None, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head: Any = head
        #: names of modules that `train` leaves in eval mode, because they are frozen
        self.kept_in_eval_mode: tuple[str, ...] = ()
        num_classes, topk = getattr(head, "num_classes", None), getattr(head, "topk", ())
        if num_classes is not None and topk and max(topk) > num_classes:
            raise ArgumentError(
                f"{type(head).__name__}.topk",
                f"got {tuple(topk)}, expected at most {num_classes}, the number of classes",
            )

    def train(self, mode: bool = True) -> "ImageClassifier":
        super().train(mode)
        for name in self.kept_in_eval_mode:
            self.get_submodule(name).eval()
        return self

    def features(self, images: Tensor) -> Any:
        """Images (N, 3, H, W) -> what the head gets: features (N, C), or a tuple of several."""
        x = _unwrap(self.backbone(images))
        return x if self.neck is None else _unwrap(self.neck(x))

    def forward(self, images: Tensor, target: Tensor | None = None) -> Any:
        """Images (N, 3, H, W) -> logits (N, C), or with a target a dict of scalars.

        Args:
            target: (N,) class numbers, or (N, C) soft labels.

        Returns:
            With a target: "loss", the objective, with its graph; beside it the head's other entries, detached: the
            counts "top1", ... and, where the head returns several losses, the parts of the sum.
        """
        x = self.features(images)
        return self.head(x) if target is None else _objective(self.head.forward_train(x, target))

    def loss(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What `forward(images, target)` returns, from logits (N, C) that are there already (evaluation)."""
        return _objective(self.head.loss(logits, target))


def _unwrap(x: Any) -> Any:
    return x[0] if isinstance(x, tuple) and len(x) == 1 else x


def _objective(entries: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum the entries whose names contain "loss" to "loss"; a tensor alone is the loss."""
    if isinstance(entries, Tensor):
        return {"loss": entries}
    losses = [value for name, value in entries.items() if "loss" in name]
    if not losses:
        raise UserError(
            f"the head's forward_train: got entries {list(entries)}, expected one whose name contains 'loss'"
        )
    return {**{name: value.detach() for name, value in entries.items()}, "loss": sum(losses[1:], losses[0])}


def build_classifier(
    block: Mapping[str, Any], image_size: tuple[int, int], init_weights: bool = True
) -> ImageClassifier:
    """The model that a recipe's model block names, with initial weights from torch's global generator.

    One image of zeros goes through backbone and neck to find the head's `in_channels` where the block leaves it out,
    and through the head to see that the parts fit. It changes neither BatchNorm's averages nor the random numbers.

    Args:
        block: ``{backbone: {type: ...}, neck: {type: ...} or None, head: {type: ..., loss: {type: ...}}}``.
        image_size: height and width of the images in pixels.
        init_weights: False where all weights are about to be loaded: pretrained ones are then not looked for.

    Raises:
        UserError: an unknown type, an argument out of range, or parts that do not fit together.
    """
    backbone = BACKBONES.build(block["backbone"])
    neck = NECKS.build(block["neck"]) if block.get("neck") else None
    # a backbone for other than RGB images says so in `in_channels`, as ResNet does
    image = torch.zeros(1, getattr(backbone, "in_channels", 3), *image_size)
    body = ImageClassifier(backbone=backbone, neck=neck, head=nn.Identity())
    features = _dry_run(body, image, " and ".join(type(part).__name__ for part in (backbone, neck) if part is not None))
    model = ImageClassifier(backbone=backbone, neck=neck, head=_build_head(block["head"], body, _width(features)))
    _check_logits(model, features)
    if init_weights:
        model.init_weights()
    return model


def _build_head(block: Mapping[str, Any], body: ImageClassifier, width: int) -> nn.Module:
    cls = HEADS[block["type"]]
    arguments = {key: value for key, value in block.items() if key != "type"}
    if arguments.get("in_channels") is None and _takes_in_channels(cls):
        arguments["in_channels"] = width
    head = cls(**arguments)
    in_channels = getattr(head, "in_channels", width)
    if in_channels != width:
        source = type(body.backbone if body.neck is None else body.neck).__name__
        raise ArgumentError(
            f"{cls.__name__}.in_channels",
            f"got {in_channels}, but {source} gives it {width} channels. Leave in_channels out and it is filled in",
        )
    return head


def _takes_in_channels(cls: type) -> bool:
    """Whether the constructor takes `in_channels`, itself or through **kwargs along its base classes."""
    for base in cls.__mro__:
        parameters = inspect.signature(base).parameters
        if "in_channels" in parameters:
            return True
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters.values()):
            return False
    return False


@contextmanager
def at_rest(part: nn.Module) -> Iterator[None]:
    """Trying out a new `part` leaves no trace: eval mode, where BatchNorm only reads; beside the random stream."""
    part.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        part.train()


def set_class_counts(model: nn.Module, counts: Sequence[int]) -> None:
    """Tell every loss in `model` that wants to know it (``class_weight: auto``) how many training images classes have.

    Args:
        counts: (C,).
    """
    for part in model.modules():
        if (weigh := getattr(part, "set_class_counts", None)) is not None:
            weigh(counts)


def _dry_run(part: nn.Module, x: Any, name: str) -> Any:
    with at_rest(part):
        try:
            return part(x)
        except Exception as error:
            error.add_note(f"(in the dry run of {name} on one image)")
            raise


def _width(features: Any) -> int:
    """Channels of the features: of several maps or tokens those of the last."""
    last = features[-1] if isinstance(features, tuple | list) else features
    return last.shape[1]


def _check_logits(model: ImageClassifier, features: Any) -> None:
    logits = _dry_run(model.head, features, type(model.head).__name__)
    num_classes = getattr(model.head, "num_classes", None)
    if num_classes is not None and logits.shape != (1, num_classes):
        raise ArgumentError(
            f"{type(model.head).__name__}.forward",
            f"got an output of shape {tuple(logits.shape)} for one image, expected logits (1, {num_classes})",
        )
