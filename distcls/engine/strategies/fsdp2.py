"""FSDP2: every rank holds some rows of each parameter; a block's weights are gathered only while it computes.

This calls torch's `fully_shard` directly. In accelerate 1.15 FSDP2 depends on the launcher's environment, is silently
off on a CPU, loads weights through rank 0 and crashes on BatchNorm in bf16. Called directly, the model stays the same
module with the same names, in fp32, and autocast computes the same as under DDP.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from distcls.engine.strategies.shards import Run
from distcls.engine.strategies.strategy import TorchStrategy


class FSDP2(TorchStrategy):
    """`blocks` are gathered one by one, and the weights outside of them together."""

    replicated = False
    replicated_optimizer = False

    def __init__(
        self,
        accelerator: Accelerator,
        classifier: nn.Module,
        build_optimizer: Callable[[], torch.optim.Optimizer],
        *,
        clip_grad_norm: float | None,
        blocks: Sequence[nn.Module],
    ) -> None:
        super().__init__(accelerator, classifier, clip_grad_norm)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        self.model: Any = fully_shard(classifier, mesh=mesh)
        self.torch_optimizer = build_optimizer()  # of the sharded parameters
        self.optimizer = accelerator.prepare(self.torch_optimizer)

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        self.model.set_requires_gradient_sync(last)
        yield

    def update(self, *, measure: bool) -> Tensor | None:
        norm = super().update(measure=measure)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def weights(self) -> list[tuple[Tensor, Run]]:
        self.weights_changed()  # after computing, the weights outside of the blocks are still gathered
        return [(parameter, _rows(name, parameter)) for name, parameter in self.classifier.named_parameters()]

    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        for parameter, run in self.weights():
            assert isinstance(parameter, DTensor)
            yield run.name, parameter.full_tensor()

    def weights_changed(self) -> None:
        for module in self.classifier.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def assert_in_effect(self) -> None:
        super().assert_in_effect()
        assert isinstance(self.model, FSDPModule)
        for parameter, _ in self.weights():
            assert isinstance(parameter, DTensor)
            assert parameter.device_mesh.size() == self.accelerator.num_processes
            assert parameter.dtype in (torch.float32, torch.float64)  # only autocast lowers the precision


def _rows(name: str, parameter: Any) -> Run:
    """This rank's rows: fully_shard cuts the first dimension, so they are one run."""
    _, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    length = parameter.to_local().numel()
    row = parameter.numel() // max(1, parameter.shape[0]) if parameter.ndim else 1
    return Run(name, tuple(parameter.shape), offset[0] * row if length else 0, length)
