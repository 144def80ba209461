"""What a GPU holds and sends under each strategy, by formula."""

from dataclasses import dataclass

GIB = 2**30
# What is not in the formulas: CUDA's context and kernels, cuDNN's workspaces, the allocator's rounding. An assumption.
OVERHEAD = int(1.5 * GIB)


@dataclass(frozen=True)
class Sizes:
    """What a model and its recipe need, in elements unless bytes are named.

    parameters: all. trained: those with a gradient. optimizer: elements of the optimizer's state for each trained
    parameter. ema: whether an average is kept. buffers: bytes. gathered: parameters that FSDP2 and ZeRO-3 hold whole
    at the same time: those outside of blocks and two blocks. element: bytes (4, in fp64 8).
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
    """Bytes of one GPU: what it holds under a strategy, and what it sends in one optimizer update."""

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
    """Memory and traffic of one GPU.

    Weights, gradients, optimizer state and average are in `element` bytes; autocast's half-precision copies count as
    activations. A ring moves (n - 1) / n of a tensor to gather or to reduce-scatter it, twice that to all-reduce it.
    ZeRO updates its own copy of the rank's share of the trained weights, then copies it into them, also where both are
    fp32: deepspeed/runtime/zero/stage_1_and_2.py clones into `single_partition_of_fp32_groups`, stage3.py into
    `fp32_partitioned_groups_flat` (it means to share fp32 weights, but compares a torch.device with a string: they
    always differ). The copy counts as optimizer state.
    Not in it: DeepSpeed's bucket (`reduce_bucket_size`, 5e8 elements by default), and that its prefetching gathers up
    to `stage3_max_live_parameters` (1e9) weights during a step, so all weights of a smaller model.

    Args:
        strategy: ddp, zero1, zero2, zero3 or fsdp2.
        gpus: over which it shards: all.
        accumulation: micro-batches per update.
        activations: bytes.
    """
    share = 1 / gpus
    weights_sharded = strategy in ("zero3", "fsdp2")
    # FSDP2 adds up whole gradients over the micro-batches and scatters them with the last one.
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
