"""Formulas for the memory and communication of one GPU under each strategy."""

from dataclasses import dataclass

GIB = 2**30
# An assumption for what the formulas omit: CUDA's context and kernels, cuDNN's workspaces, the allocator's rounding.
OVERHEAD = int(1.5 * GIB)


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model and its training state, in elements unless stated otherwise.

    Attributes:
        parameters: all.
        trained: those with a gradient.
        optimizer: elements of optimizer state per trained parameter.
        ema: whether an average of the weights is kept.
        buffers: in bytes.
        gathered: parameters that FSDP2 and ZeRO-3 hold unsharded at a time: those outside the blocks, and the two
            largest blocks.
        element: bytes per element (4, in fp64 8).
    """

    parameters: int
    trained: int
    optimizer: float
    ema: bool
    buffers: int
    gathered: int
    element: int = 4


@dataclass(frozen=True)
class Need:
    """Bytes that one GPU holds under a strategy, and `sent`, those that it sends per optimizer update."""

    strategy: str
    weights: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    sent: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.ema + self.activations + OVERHEAD


def need(strategy: str, sizes: Sizes, *, gpus: int, accumulation: int, activations: int) -> Need:
    """Memory and communication of one GPU.

    Weights, gradients, optimizer state and average take `element` bytes per element; autocast's half-precision copies
    count as activations. A ring all-gather or reduce-scatter sends (n - 1) / n of a tensor, an all-reduce twice that.

    ZeRO updates its own copy of the rank's share of the trained weights and copies it back, even if both are fp32:
    deepspeed/runtime/zero/stage_1_and_2.py clones into `single_partition_of_fp32_groups`, stage3.py into
    `fp32_partitioned_groups_flat` (it intends to share fp32 weights, but compares a torch.device with a string, which
    are never equal). The copy counts as optimizer state.

    Not included: DeepSpeed's bucket (`reduce_bucket_size`, 5e8 elements by default), and its prefetching of up to
    `stage3_max_live_parameters` (1e9) weights during a step, which is all weights of a smaller model.

    Args:
        strategy: ddp, zero1, zero2, zero3 or fsdp2.
        gpus: number of GPUs, over all of which it shards.
        accumulation: micro-batches per update.
        activations: in bytes.
    """
    share = 1 / gpus
    weights_sharded = strategy in ("zero3", "fsdp2")
    # FSDP2 accumulates unsharded gradients over the micro-batches and reduce-scatters them with the last one.
    gradients_sharded = strategy in ("zero2", "zero3") or (strategy == "fsdp2" and accumulation == 1)
    rest_sharded = strategy != "ddp"
    copied = 1 if strategy.startswith("zero") else 0
    weights = sizes.element * sizes.parameters
    gradients = sizes.element * sizes.trained
    held = weights * share + (sizes.element * sizes.gathered if gpus > 1 else 0) if weights_sharded else weights
    ring = (gpus - 1) / gpus
    # Sharded weights are gathered for forward and again for backward.
    sent = ring * (2 * accumulation * weights + gradients if weights_sharded else 2 * gradients)
    return Need(
        strategy=strategy,
        weights=round(held) + sizes.buffers,
        gradients=round(gradients * (share if gradients_sharded else 1)),
        optimizer=round(gradients * (sizes.optimizer + copied) * (share if rest_sharded else 1)),
        ema=round(weights * (share if weights_sharded else 1)) if sizes.ema else 0,
        activations=activations,
        sent=round(sent),
    )
