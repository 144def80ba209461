"""ImageClassifier: backbone, neck and head as one module; build_classifier builds it from a model block."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distcls.errors import ArgumentError, UserError, first_line
from distcls.models.common import BaseModule
from distcls.registry import BACKBONES, HEADS, NECKS, REFUSALS, is_ours


class ImageClassifier(BaseModule):
    """Normalised images (N, 3, H, W) -> logits (N, C); with targets -> losses and counts of correct answers.

    Args:
        backbone: images -> features, or a tuple of them.
        neck: features -> features, if there is one.
        head: `forward(x) -> logits` and `forward_train(x, gt_label) -> dict` (or the loss alone).

    A tuple of one element is unwrapped before it reaches the next part, which then gets a single feature map.
    """

    def __init__(self, *, backbone: nn.Module, neck: nn.Module | None = None, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head: Any = head
        #: names of frozen modules, which `train` keeps in eval mode
        self.kept_in_eval_mode: tuple[str, ...] = ()

    def train(self, mode: bool = True) -> "ImageClassifier":
        super().train(mode)
        for name in self.kept_in_eval_mode:
            self.get_submodule(name).eval()
        return self

    def features(self, images: Tensor) -> Any:
        """Images (N, 3, H, W) -> the head's input: features (N, C), or a tuple of several."""
        x = _unwrap(self.backbone(images))
        return x if self.neck is None else _unwrap(self.neck(x))

    def forward(self, images: Tensor, target: Tensor | None = None) -> Any:
        """Images (N, 3, H, W) -> logits (N, C), or with a target a dict of scalars.

        Args:
            target: (N,) class numbers, or (N, C) soft labels.

        Returns:
            With a target: "loss", the objective, with its graph; and the head's other entries, detached: the counts
            "top1", ... and, if the head returns several losses, each of them.
        """
        x = self.features(images)
        return self.head(x) if target is None else _objective(self.head.forward_train(x, target))

    def loss(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The same as `forward(images, target)`, from given logits (N, C); for evaluation."""
        return _objective(self.head.loss(logits, target))


def _unwrap(x: Any) -> Any:
    return x[0] if isinstance(x, tuple) and len(x) == 1 else x


def _objective(entries: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum the entries whose names contain "loss" into "loss"; a tensor alone is the loss."""
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
    """Build the model of a model block, with initial weights from torch's global generator.

    A dry run with one image of zeros determines the head's `in_channels` where the block leaves it out, and checks that
    backbone, neck, head and loss fit together. It changes neither BatchNorm's statistics nor the random numbers.

    Args:
        block: ``{backbone: {type: ...}, neck: {type: ...} or None, head: {type: ..., loss: {type: ...}}}``.
        image_size: height and width of the images in pixels.
        init_weights: False if all weights are about to be loaded; pretrained ones are then not fetched either.

    Raises:
        UserError: an unknown type, an argument out of range, or parts that do not fit together.
    """
    backbone = BACKBONES.build(block["backbone"])
    neck = NECKS.build(block["neck"]) if block.get("neck") else None
    # A backbone for images other than RGB has an attribute `in_channels`, as ResNet has.
    image = torch.zeros(1, getattr(backbone, "in_channels", 3), *image_size)
    features, last = _unwrap(_dry_run(backbone, image)), backbone
    if neck is not None:
        features, last = _unwrap(_dry_run(neck, features)), neck
    head = _build_head(block["head"], type(last).__name__, _width(features))
    _check_loss(head, _checked_logits(head, features))
    model = ImageClassifier(backbone=backbone, neck=neck, head=head)
    if init_weights:
        model.init_weights()
    return model


def _build_head(block: Mapping[str, Any], source: str, width: int) -> nn.Module:
    """Build the head for features of `width` channels, which come from the part named `source`."""
    cls = HEADS[block["type"]]
    if block.get("in_channels") is None and _takes_in_channels(cls):
        block = {**block, "in_channels": width}
    head = HEADS.build(block)
    in_channels = getattr(head, "in_channels", width)
    if in_channels != width:
        raise ArgumentError(
            f"{cls.__name__}.in_channels",
            f"got {in_channels}, but {source} gives it {width} channels. Leave in_channels out and it is filled in",
        )
    return head


def _takes_in_channels(cls: type) -> bool:
    """Whether the constructor takes `in_channels`, directly or through the **kwargs of its base classes."""
    for base in cls.__mro__:
        parameters = inspect.signature(base).parameters
        if "in_channels" in parameters:
            return True
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters.values()):
            return False
    return False


@contextmanager
def at_rest(part: nn.Module) -> Iterator[None]:
    """Run a new `part` without side effects: in eval mode, without gradients, on a copy of the random state."""
    part.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        part.train()


def set_class_counts(model: nn.Module, counts: Sequence[int]) -> None:
    """Pass the number of training images per class to every loss that asks for it (``class_weight: auto``).

    Args:
        counts: (C,).
    """
    for part in model.modules():
        if (weigh := getattr(part, "set_class_counts", None)) is not None:
            weigh(counts)


def head_to_try(head: nn.Module, classes: int) -> Any:
    """A copy of `head` to call its losses on, since a loss may keep counts; as if each class had one training image."""
    head = copy.deepcopy(head)
    set_class_counts(head, [1] * classes)
    return head


def _dry_run(part: nn.Module, x: Any, call: Callable[[Any], Any] | None = None) -> Any:
    """The output of the part (or of `call`, which uses it) for one image."""
    with at_rest(part):
        try:
            return (call or part)(x)
        except REFUSALS as error:
            if is_ours(type(part)):
                what = f"an input of shape {tuple(x.shape)}" if isinstance(x, Tensor) else "its input"
                raise ArgumentError(
                    type(part).__name__,
                    f"fails on {what}: {first_line(error)}. Expected a size and arguments that it can take",
                ) from error
            error.add_note(f"(in the dry run of {type(part).__name__} on one image)")
            raise


def _width(features: Any) -> int:
    """Number of channels of the features; of several maps or tokens, that of the last."""
    last = features[-1] if isinstance(features, tuple | list) else features
    return last.shape[1]


def _checked_logits(head: Any, features: Any) -> Tensor:
    """The head's logits for one image, checked against its `num_classes` and `topk`."""
    logits = _dry_run(head, features)
    num_classes, topk = getattr(head, "num_classes", None), getattr(head, "topk", ())
    if num_classes is not None and logits.shape != (1, num_classes):
        raise ArgumentError(
            f"{type(head).__name__}.forward",
            f"got an output of shape {tuple(logits.shape)} for one image, expected logits (1, {num_classes})",
        )
    if topk and max(topk) > logits.shape[1]:
        raise ArgumentError(
            f"{type(head).__name__}.topk",
            f"got {tuple(topk)}, expected at most {logits.shape[1]}, the number of classes",
        )
    return logits


def _check_loss(head: Any, logits: Tensor) -> None:
    """Check that the losses of a ClsHead accept these logits (1, C)."""
    if not hasattr(head, "losses"):
        return
    classes = logits.shape[1]
    head = head_to_try(head, classes)
    label = logits.new_zeros(1, classes) if head.multi_label else logits.new_zeros(1, dtype=torch.int64)
    _dry_run(head, logits, lambda scores: head.losses(scores, label))
