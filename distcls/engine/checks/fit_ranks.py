"""Checks that a recipe fits the ranks that it is started on, before a process group or a GPU is used."""

from collections.abc import Iterator
from importlib.util import find_spec

import torch

from distcls.engine.strategies.deepspeed_config import refused_overrides
from distcls.recipe.errors import KeyPath, Mistake
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source
from distcls.registry import OPTIMIZERS


def check_ranks(recipe: Recipe, source: Source, ranks: int, *, gpu: bool) -> None:
    """Check batch, strategy and precision against the number of ranks, their devices and the installed packages.

    Args:
        gpu: whether the ranks have GPUs.

    Raises:
        RecipeError: with everything that does not fit.
    """
    found = [*_batch(recipe, ranks), *_strategy(recipe), *_gpus_only(recipe, ranks, gpu)]
    if found:
        raise source.error(*found)


def _batch(recipe: Recipe, ranks: int) -> Iterator[Mistake]:
    """The global batch must divide into equal micro-batches; with mixing, these must be even."""
    batch, accumulation = recipe.train.global_batch_size, recipe.train.accumulation_steps
    if batch % (ranks * accumulation):
        text = (
            f"{ranks} ranks x {accumulation} accumulation steps do not divide it: got {batch}, "
            f"expected a multiple of {ranks * accumulation}"
        )
        yield ("train", "global_batch_size"), text
    elif recipe.data.mix and (batch // (ranks * accumulation)) % 2:
        text = (
            f"images are mixed in pairs: got micro-batches of {batch // (ranks * accumulation)} images "
            f"({ranks} ranks x {accumulation} accumulation steps), expected an even number"
        )
        yield ("data", "mix"), text


def _strategy(recipe: Recipe) -> Iterator[Mistake]:
    strategy, precision = recipe.distributed.strategy, recipe.train.precision
    zero = strategy.startswith("zero")
    if zero and find_spec("deepspeed") is None:
        text = f"{strategy} needs DeepSpeed, which is not installed: pip install deepspeed"
        yield ("distributed", "strategy"), text
    if zero and precision not in ("fp32", "bf16"):
        text = f"{strategy} computes in fp32 or bf16: got {precision}; set one of them, or the strategy ddp or fsdp2"
        yield ("train", "precision"), text
    if recipe.distributed.deepspeed_overrides and not zero:
        yield ("distributed", "deepspeed_overrides"), f"for zero1, zero2 and zero3 only: got the strategy {strategy}"
    for text in refused_overrides(recipe.distributed.deepspeed_overrides):
        yield ("distributed", "deepspeed_overrides"), text
    if recipe.train.cuda_graphs and strategy != "ddp":
        yield (
            ("train", "cuda_graphs"),
            f"needs weights that stay where they are: got {strategy}, expected false, or ddp",
        )
    optimizer = recipe.optimizer["type"]
    if strategy != "ddp" and not getattr(OPTIMIZERS[optimizer], "elementwise", False):
        text = (
            f"{strategy} cuts parameters into shards, and {optimizer} does not say that it updates each element alone: "
            "set elementwise = True in its class if it does, or the strategy ddp"
        )
        yield ("optimizer", "type"), text


def _gpus_only(recipe: Recipe, ranks: int, gpu: bool) -> Iterator[Mistake]:
    if recipe.train.precision == "fp16" and not gpu:  # accelerate would silently compute in fp32
        yield ("train", "precision"), "fp16 is for GPUs only: expected fp32 or bf16 on CPUs"
    if recipe.distributed.sync_bn and ranks > 1 and not gpu:
        yield ("distributed", "sync_bn"), "torch has SyncBatchNorm for GPUs only: expected false on CPUs"


def check_device(recipe: Recipe, source: Source, device: torch.device) -> None:
    """Check that the device can decode JPEGs, if `data.gpu_decode_share` asks for it.

    Raises:
        RecipeError: the run trains on a CPU, or torchvision has no nvJPEG.
    """
    share = recipe.data.gpu_decode_share
    if not share:
        return
    path: KeyPath = ("data", "gpu_decode_share")
    if device.type != "cuda":
        text = f"there is no GPU to decode with: got {share}, expected 0 for a run on a CPU"
        raise source.error((path, text))
    from torchvision.io import decode_jpeg, encode_jpeg  # takes half a second, so only if used

    try:
        decode_jpeg(encode_jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8)), device=device)
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        text = f"torchvision cannot decode on this GPU: got {share} ({said}), expected 0, or a torchvision with nvJPEG"
        raise source.error((path, text)) from error
