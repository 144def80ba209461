"""`distcls plan`: what a recipe needs on a given number of GPUs, computed without any GPU."""

from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import torch
from torch import nn

from distcls.engine.building.datasets import open_datasets
from distcls.engine.building.loaders import resolution_of
from distcls.engine.building.model import build_model
from distcls.engine.checks.fit_ranks import check_ranks
from distcls.engine.checks.located import located
from distcls.engine.plan.activations import estimate_activations
from distcls.engine.plan.memory import GIB, Need, Sizes, need
from distcls.engine.plan.missing import missing
from distcls.engine.strategies.blocks import checkpoint_activations, find_blocks
from distcls.models.classifier import ImageClassifier
from distcls.recipe.schema import Distributed, Recipe
from distcls.recipe.source import Source
from distcls.registry import OPTIMIZERS

ORDER = ("ddp", "zero1", "zero2", "fsdp2", "zero3")  # by bytes sent, ascending; the first that fits is advised


@dataclass(frozen=True)
class RunPlan:
    """The result of `distcls plan`; sizes in bytes.

    Attributes:
        memory: of one GPU.
        micro_batch: images per GPU in one forward pass.
        images, steps_per_epoch: None if the data is not there.
        total_steps: None if the data is not there and `train.max_steps` is not set.
        strategy: as the recipe says.
        needs: memory and communication of one GPU under each strategy.
        advised: the strategy that sends least of those that fit; None if none fits.
        advice: the same in words, or how to make a strategy fit.
        missing: see missing.py.
    """

    name: str
    gpus: int
    memory: int
    sizes: Sizes
    activations_per_image: int
    micro_batch: int
    accumulation: int
    global_batch: int
    lr: float | None
    schedule: str
    images: int | None
    steps_per_epoch: int | None
    total_steps: int | None
    strategy: str
    needs: list[Need]
    advised: str | None
    advice: str
    missing: list[str]

    def to_json(self) -> dict[str, Any]:
        needs = [{**asdict(one), "total": one.total, "fits": one.total <= self.memory} for one in self.needs]
        return {**asdict(self), "needs": needs}


def make_plan(recipe: Recipe, source: Source, *, gpus: int, memory_gib: float) -> RunPlan:
    """Build the model on the CPU, run forward passes without data, and evaluate the formulas.

    Args:
        gpus: number of GPUs.
        memory_gib: of each GPU.

    Raises:
        RecipeError: the recipe does not fit this number of GPUs (see `check_ranks`), or its data, if that is there.
        UserError: a part refuses its arguments.
    """
    check_ranks(recipe, source, gpus, gpu=True)
    with located(source):
        model, _ = build_model(recipe, source, resuming=True)
    train, distributed = recipe.train, recipe.distributed
    blocks = find_blocks(model, distributed.wrap)
    sizes = measure(model, recipe, blocks)
    if distributed.activation_checkpointing:
        checkpoint_activations(blocks)
    size = resolution_of(recipe.data.resolution).end
    activations = estimate_activations(model, size, recipe.model.head.get("num_classes", 1000), train.precision)
    micro_batch = train.global_batch_size // (gpus * train.accumulation_steps)
    memory = round(memory_gib * GIB)
    offered = get_args(Distributed.model_fields["strategy"].annotation)
    needs = [
        need(name, sizes, gpus=gpus, accumulation=train.accumulation_steps, activations=activations.of(micro_batch))
        for name in ORDER
        if name in offered
    ]
    advised = next((one.strategy for one in needs if one.total <= memory), None)
    absent = missing(recipe, advised or distributed.strategy)
    images = None if any(line.startswith("data.") for line in absent) else len(open_datasets(recipe, source).train)
    per_epoch = None if images is None else images // train.global_batch_size
    epochs_steps = None if per_epoch is None else round((train.epochs or 0) * per_epoch)
    return RunPlan(
        name=recipe.name,
        gpus=gpus,
        memory=memory,
        sizes=sizes,
        activations_per_image=activations.per_image,
        micro_batch=micro_batch,
        accumulation=train.accumulation_steps,
        global_batch=train.global_batch_size,
        lr=recipe.optimizer.get("lr"),
        schedule=recipe.schedule["type"],
        images=images,
        steps_per_epoch=per_epoch,
        total_steps=train.max_steps or epochs_steps,
        strategy=distributed.strategy,
        needs=needs,
        advised=advised,
        advice=_advice(needs, advised, memory, activations.of(1), activations.of(micro_batch), distributed),
        missing=absent,
    )


def measure(model: ImageClassifier, recipe: Recipe, blocks: list[nn.Module]) -> Sizes:
    """Count the sizes that the formulas need."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    in_blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    return Sizes(
        parameters=parameters,
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        optimizer=optimizer_elements(recipe.optimizer),
        ema=recipe.train.ema is not None,
        buffers=sum(buffer.numel() * buffer.element_size() for buffer in model.buffers()),
        gathered=parameters - sum(in_blocks) + sum(sorted(in_blocks)[-2:]),
        element=8 if recipe.train.precision == "fp64" else 4,
    )


def optimizer_elements(block: dict[str, Any]) -> float:
    """Optimizer state per trained element, counted after one update of a small layer: SGD 1 (momentum), AdamW 2."""
    layer = nn.Linear(64, 64, bias=False)
    optimizer = OPTIMIZERS.build({key: value for key, value in block.items() if key != "paramwise_cfg"}, model=layer)
    layer(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, torch.Tensor)]
    return sum(value.numel() for value in state if value.dim() > 0) / layer.weight.numel()


def _advice(
    needs: list[Need], advised: str | None, memory: int, one_image: int, all_images: int, distributed: Distributed
) -> str:
    first = needs[0]
    if advised == "ddp":
        return f"ddp: {first.total / GIB:.1f} of {memory / GIB:.0f} GiB, and no strategy sends less"
    if advised is not None:
        text = f"ddp would need {first.total / GIB:.1f} of {memory / GIB:.0f} GiB"
        return f"{advised}: {text}, and of those that fit it sends least"
    smallest = min(needs, key=lambda one: one.total)
    without = replace(smallest, activations=one_image).total
    if without > memory:
        return (
            f"none: {smallest.strategy} needs {without / GIB:.1f} GiB for a single image per GPU: more GPUs, or a "
            "smaller model"
        )
    more = f"train.accumulation_steps, which divides the {all_images / GIB:.1f} GiB of activations"
    again = "" if distributed.activation_checkpointing else ", distributed.activation_checkpointing=true"
    return f"none fits as written: raise {more}{again}, or take more GPUs"
