"""Estimates, without a GPU, the memory that a training step keeps between forward and backward."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

HALF = {"bf16": torch.bfloat16, "fp16": torch.bfloat16}  # bfloat16, which CPU autocast supports, for both: same bytes


@dataclass(frozen=True)
class Activations:
    """Bytes that autograd saves for backward: `per_image`, and `fixed` per forward pass (weights cast to half)."""

    per_image: int
    fixed: int

    def of(self, images: int) -> int:
        return self.fixed + images * self.per_image


def estimate_activations(model: nn.Module, size: int, num_classes: int, precision: str) -> Activations:
    """Run the forward pass of training on two and on four images without data.

    Each storage that autograd saves is counted once, except those of weights and buffers, which exist anyway. What
    backward needs in addition (gradients of activations, cuDNN's workspaces) is not included.

    Args:
        model: called as ``model(images, target)``; on the CPU.
        size: pixels per side.
        num_classes: of the targets.
        precision: `train.precision`.
    """

    def saved(images: int) -> int:
        # Fake tensors have shapes, dtypes and views, but nothing is computed or allocated.
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            # The mode replaces each weight by a fake copy, always the same one.
            known = [mode.from_tensor(tensor) for tensor in [*model.parameters(), *model.buffers()]]
            batch = _batch(model, images, size, num_classes, precision)
            return saved_bytes(model, batch, precision, known=known)

    two, four = saved(2), saved(4)
    per_image = (four - two) // 2
    return Activations(per_image, two - 2 * per_image)


def saved_bytes(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    precision: str = "fp32",
    known: Sequence[Tensor] | None = None,
) -> int:
    """Bytes that autograd saves in one forward pass in training mode on images (N, 3, H, W) and their targets.

    `known` tensors, by default the model's weights and buffers, are not counted.
    """
    kept = {_storage(tensor) for tensor in known or [*model.parameters(), *model.buffers()]}
    seen: dict[int, Tensor] = {}  # keeps the tensors alive: the address of a freed storage may be reused

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            seen.setdefault(_storage(tensor), tensor)
        return tensor

    training = model.training
    model.train()
    half = HALF.get(precision)
    autocast: AbstractContextManager = torch.autocast("cpu", dtype=half) if half else nullcontext()
    images, target = batch
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
            loss = model(images, target)["loss"]
    finally:
        model.train(training)
    del loss
    return sum(tensor.untyped_storage().nbytes() for storage, tensor in seen.items() if storage not in kept)


def _batch(model: nn.Module, images: int, size: int, num_classes: int, precision: str) -> tuple[Tensor, Tensor]:
    dtype = HALF.get(precision, torch.float64 if precision == "fp64" else torch.float32)
    return torch.zeros(images, 3, size, size, dtype=dtype), _target(model, images, num_classes)


def _target(model: nn.Module, images: int, num_classes: int) -> Tensor:
    if getattr(model.head, "multi_label", False):
        return torch.zeros(images, num_classes)
    return torch.zeros(images, dtype=torch.int64)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
