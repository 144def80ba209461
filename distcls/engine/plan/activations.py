"""How much memory a training step keeps between forward and backward, found out without a GPU."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

HALF = {"bf16": torch.bfloat16, "fp16": torch.bfloat16}  # a CPU's autocast has bfloat16 for both; the bytes are equal


@dataclass(frozen=True)
class Activations:
    """Bytes that autograd saves for backward: `per_image` of each image, `fixed` of a step (weights cast to half)."""

    per_image: int
    fixed: int

    def of(self, images: int) -> int:
        return self.fixed + images * self.per_image


def estimate_activations(model: nn.Module, size: int, num_classes: int, precision: str) -> Activations:
    """Run the forward pass of training on two and on four images that have shapes but no values.

    Every tensor that autograd saves is counted once by its storage; weights and buffers are not: they are there
    anyway. What backward needs beside it (gradients of activations, cuDNN's workspaces) is not in it.

    Args:
        model: called as ``model(images, target)``; on the CPU.
        size: pixels per side.
        num_classes: of the targets.
        precision: `train.precision`.
    """

    def saved(images: int) -> int:
        # Fake tensors: all shapes, types and views are worked out, nothing is computed and nothing allocated.
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            # The mode sees the model's weights as fake copies, always the same.
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
    """Bytes that autograd saves in one training forward of `model` on images (N, 3, H, W) and their targets.

    `known` tensors, by default the model's weights and buffers, are not counted.
    """
    kept = {_storage(tensor) for tensor in known or [*model.parameters(), *model.buffers()]}
    seen: dict[int, Tensor] = {}  # the tensors stay alive: a number is a storage's as long as it lives

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
