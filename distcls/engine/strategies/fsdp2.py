"""FSDP2: every rank holds some rows of each parameter; a block's weights are whole only while it computes.

torch's `fully_shard` is called directly. Through accelerate 1.15 FSDP2 is a state of the launcher's environment, is off
without a word on a CPU, loads weights through rank 0 and crashes on BatchNorm in bf16. Direct, the model stays the same
module with the same names, in fp32, and autocast computes what it computes under DDP.
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
    """`blocks` are gathered one by one; what is outside of them with the model as a whole."""

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
        self.torch_optimizer = build_optimizer()  # over the sharded parameters
        self.optimizer = accelerator.prepare(self.torch_optimizer)

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        self.model.set_requires_gradient_sync(last)
        yield

    def update(self, *, measure: bool) -> Tensor | None:
        norm = super().update(measure=measure)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def weights(self) -> list[tuple[Tensor, Run]]:
        self.weights_changed()  # a model that computed last has its outermost weights gathered still
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
            assert parameter.dtype in (torch.float32, torch.float64)  # autocast computes in less, weights stay


def _rows(name: str, parameter: Any) -> Run:
    """fully_shard cuts the first dimension, so that a rank's rows are one run."""
    _, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    length = parameter.to_local().numel()
    row = parameter.numel() // max(1, parameter.shape[0]) if parameter.ndim else 1
    return Run(name, tuple(parameter.shape), offset[0] * row if length else 0, length)
