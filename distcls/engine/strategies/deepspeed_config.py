"""DeepSpeed's configuration, made from the recipe, with every value written out.

A value of `auto` for clipping would become 1.0 in accelerate, and a missing one becomes 1.0 in DeepSpeed.
"""

from collections.abc import Mapping
from typing import Any

# Keys that the recipe sets elsewhere, or that define the layout of a checkpoint's shards; dotted below a block.
OWNED = {
    "train_batch_size": "train.global_batch_size",
    "train_micro_batch_size_per_gpu": "train.global_batch_size",
    "gradient_accumulation_steps": "train.accumulation_steps",
    "gradient_clipping": "train.clip_grad_norm",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "torch_autocast": "train.precision",
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "activation_checkpointing": "distributed.activation_checkpointing",
    "zero_optimization.stage": "distributed.strategy",
}
UNSUPPORTED = {
    "zero_optimization.offload_optimizer": "checkpoints do not reach what is offloaded",
    "zero_optimization.offload_param": "checkpoints do not reach what is offloaded",
    "zero_optimization.round_robin_gradients": "checkpoints need the parameters in their order",
    "zero_optimization.zero_hpz_partition_size": "checkpoints need one partition a rank",
    "zero_optimization.mics_shard_size": "checkpoints need one partition a rank",
}


def refused_overrides(overrides: Mapping[str, Any]) -> list[str]:
    """A message for each key of `distributed.deepspeed_overrides` that must not be overridden."""
    keys = {*overrides, *(f"zero_optimization.{key}" for key in overrides.get("zero_optimization") or {})}
    owned = [f"{key} follows from the recipe: set {OWNED[key]} instead" for key in sorted(keys & set(OWNED))]
    return owned + [f"{key} is not supported: {UNSUPPORTED[key]}" for key in sorted(keys & set(UNSUPPORTED))]


def deepspeed_config(
    *,
    stage: int,
    micro_batch: int,
    accumulation_steps: int,
    ranks: int,
    clip_grad_norm: float | None,
    bf16: bool,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole configuration.

    Args:
        stage: 1, 2 or 3.
        micro_batch: images per rank and forward pass.
        bf16: compute in torch's autocast, as under DDP; weights and the exchanged gradients stay in fp32.
        overrides: from the recipe; blocks are merged key by key.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation_steps,
        "train_batch_size": micro_batch * accumulation_steps * ranks,
        "gradient_clipping": clip_grad_norm or 0.0,
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        # Exchange no module's gradients in bf16: DDP and FSDP2 sum them in fp32.
        "torch_autocast": {"enabled": bf16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**62,
    }
    for key, value in overrides.items():
        both = isinstance(value, Mapping) and isinstance(config.get(key), dict)
        config[key] = {**config[key], **value} if both else value
    return config
