"""Writes docs/recipes.md from recipes/*.yaml: `python docs/make_recipes.py`; with --check says only if it is stale.

A card has what the header says and the values that the recipe resolves to; parameters are counted on the meta device.
"""

import re
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from distcls.engine.checks.plugins import import_parts
from distcls.engine.plan.activations import estimate_activations
from distcls.engine.plan.memory import need
from distcls.engine.plan.plan import ORDER, measure
from distcls.engine.records.measured_runs import MeasuredRuns
from distcls.engine.strategies.blocks import checkpoint_activations, find_blocks
from distcls.models import build_classifier
from distcls.models.classifier import ImageClassifier
from distcls.recipe.schema import Recipe, check
from distcls.recipe.source import read

PAGE = Path(__file__).with_name("recipes.md")
RECIPES = PAGE.parents[1] / "recipes"
LAYOUTS = ((8, 1), (8, 8), (64, 1))  # GPUs, accumulation steps
GPUS = (16, 24, 40, 80)
HEAD = """\
# Recipes

A card for each file in `recipes/`, made by `python docs/make_recipes.py`: do not edit. A result is accuracy on the
validation images, with the evaluation that its card names; "not measured" means that nobody has run it here.

Number of GPUs: `train.global_batch_size` counts the images of one update over all GPUs and accumulation, so batch,
learning rate and schedule are the same on 1 GPU and on 64. If memory does not suffice, raise
`train.accumulation_steps`. If you change the batch, change `optimizer.lr` as the header's line `Batch` says: by the
same factor, with LAMB by its square root.

Accuracies of others are what the source named on the card states. Two things differ from most sources throughout: half
precision is bf16 (ffcv-imagenet's: fp16), and evaluation resizes the centred square, not the whole image before it is
cut out ([data.md](data.md)).

## Is my run on course?

    distcls recipe check-run runs/fashion_mnist_quick

holds each evaluation of a run, finished or going on, against the runs of its recipe that were measured
(`recipes/results/NAME.json`, the row "Course" of a card), and ends with status 1 if one lies outside the band. The band
is where 99 of 100 further runs lie, if runs scatter normally: mean +- t s sqrt(1 + 1/n), with Student's t for the n
seeds that were run, so a few seeds make it wide. A run with other settings, or with another `eval.tta`, is refused;
seed, paths, workers and what only changes speed may differ. For recipes of your own:

    distcls recipe record runs/mine_seed0 runs/mine_seed1 runs/mine_seed2

The Fashion-MNIST recipes are measured by `python benchmarks/fashion_mnist.py`, whose runs can be recorded like this.
"""


def page() -> str:
    """The text of recipes.md."""
    import_parts()
    return "\n".join([HEAD, *(card(path) for path in sorted(RECIPES.glob("*.yaml")))])


def card(path: Path) -> str:
    recipe, said = check(read(path, [])), header(path)
    rows = {
        "Model": f"{model_name(recipe)}, {parameters(recipe):,} parameters",
        "Batch, length": f"{recipe.train.global_batch_size} images, {recipe.train.epochs:g} epochs",
        "Loss": call(recipe.model.head.get("loss", {"type": "CrossEntropyLoss"})),
        "Optimizer": f"{call(recipe.optimizer)}, {recipe.train.precision}" + average(recipe),
        "Schedule": call(recipe.schedule),
        "Resolution": resolution(recipe),
        "Augmentation": ", ".join([*map(call, recipe.data.augment), *map(call, recipe.data.mix)]) or "none",
        "Evaluation": evaluation(recipe),
        "Strategy": recipe.distributed.strategy,
        "Another number of GPUs": said["Batch"],
        "Source": said.get("Source", "our own."),
        "Run": f"`{said['Run']}`",
        "Result": said["Result"],
        **measured(path.with_name("results") / f"{path.stem}.json"),
    }
    table = "\n".join(f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows.items())
    return f"## {path.stem}\n\n{said['']}\n\n| | |\n|---|---|\n{table}\n" + memory(recipe)


def header(path: Path) -> dict[str, str]:
    """The comment that begins the file: its words under "", and those behind `Source:` and so on."""
    said, key = {"": ""}, ""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        begins = re.match(r"# (Source|Batch|Run|Result): +(.*)", line)
        key, words = begins.groups() if begins else (key, line.removeprefix("#").strip())
        said[key] = f"{said.get(key, '')} {words}".strip()
    return said


def measured(path: Path) -> dict[str, str]:
    """Rows with what runs reached, if any are recorded."""
    if not path.exists():
        return {}
    found = MeasuredRuns.read(path)
    reached = []
    for metric in dict.fromkeys(name for run in found.runs for name in run.curves):
        ends = [run.curves[metric][-1][1] for run in found.runs]
        spread = f"n {len(ends)}, mean {mean(ends):.2%}, standard deviation {100 * stdev(ends):.2f} points"
        reached.append(f"{metric} {', '.join(f'{end:.2%}' for end in ends)}: {spread}")
    minutes = [f"{run.seconds / 60:.1f}" for run in found.runs if run.seconds]
    places = dict.fromkeys(
        f"{run.hardware}, torch {run.versions['torch']}, commit {(run.commit or 'unknown')[:8]}, {run.date}"
        for run in found.runs
    )
    return {
        "Runs": f"seeds {', '.join(str(run.seed) for run in found.runs)}: " + "; ".join(reached),
        "Where": "; ".join(places) + (f"; minutes: {', '.join(minutes)}" if minutes else ""),
        "Course": ", ".join(
            f"{band.metric} {band.mean:.2%} at epoch {band.epoch:g} ({band.low:.2%} to {band.high:.2%})"
            for band in found.bands()
        ),
    }


def model_name(recipe: Recipe) -> str:
    return call({key: value for key, value in recipe.model.backbone.items() if value is not None})


def parameters(recipe: Recipe) -> int:
    return sum(parameter.numel() for parameter in on_meta(recipe).parameters())


def on_meta(recipe: Recipe) -> ImageClassifier:
    with torch.device("meta"):
        return build_classifier(recipe.model.model_dump(), image_size=(224, 224), init_weights=False)


def memory(recipe: Recipe) -> str:
    """What each strategy needs, where the recipe names another than ddp; as `distcls plan` says it."""
    if recipe.distributed.strategy == "ddp":
        return ""
    model = on_meta(recipe).to_empty(device="cpu")  # memory that nobody touches, which costs none
    blocks = find_blocks(model, recipe.distributed.wrap)
    sizes = measure(model, recipe, blocks)
    if recipe.distributed.activation_checkpointing:
        checkpoint_activations(blocks)
    activations = estimate_activations(model, 224, recipe.model.head["num_classes"], recipe.train.precision)
    lines = []
    for name in ORDER:
        cells = [name]
        for gpus, parts in LAYOUTS:
            held = activations.of(recipe.train.global_batch_size // (gpus * parts))
            gib = need(name, sizes, gpus=gpus, accumulation=parts, activations=held).total / 2**30
            smallest = next((f"{size} GiB" for size in GPUS if gib <= size), "none of these")
            cells.append(f"{gib:.1f}, {smallest}")
        lines.append(f"| {' | '.join(cells)} |")
    titles = [f"{gpus} GPUs, accumulation_steps {parts}" for gpus, parts in LAYOUTS]
    what = f"GiB per GPU by `distcls plan`, and the smallest GPU of {', '.join(map(str, GPUS))} GiB that holds it"
    return f"\n| {' | '.join([what, *titles])} |\n|{'---|' * (len(titles) + 1)}\n" + "\n".join(lines) + "\n"


def call(block: dict[str, Any]) -> str:
    """`{type: SGD, lr: 0.1}` -> SGD(lr 0.1), with what the recipe wrote."""
    arguments = [f"{key} {value(item)}" for key, item in block.items() if key != "type"]
    return f"{block['type']}({', '.join(arguments)})" if arguments else block["type"]


def value(item: Any) -> str:
    if isinstance(item, dict):
        return "{" + ", ".join(f"{key}: {value(one)}" for key, one in item.items()) + "}"
    if isinstance(item, list | tuple):
        return "[" + ", ".join(map(value, item)) + "]"
    return f"{item:.8g}" if isinstance(item, float) else str(item)


def average(recipe: Recipe) -> str:
    if recipe.train.ema is None:
        return ""
    every, start = recipe.train.ema.every_steps, recipe.train.ema.start_epoch
    often = f" every {every} updates" if every > 1 else ""
    statistics = " with BatchNorm's statistics" if recipe.train.ema.buffers == "average" else ""
    return f", EMA {recipe.train.ema.decay:.8g}{statistics}{often}" + (f" from epoch {start:g} on" if start else "")


def resolution(recipe: Recipe) -> str:
    side, how = recipe.data.resolution, recipe.data.interpolation
    filter_ = "" if how == "bilinear" else f", {how}"
    if isinstance(side, int):
        return f"{side} pixels{filter_}"
    return f"{side.start} to {side.end} pixels in epochs {side.ramp[0]} to {side.ramp[1]}{filter_}"


def evaluation(recipe: Recipe) -> str:
    side, val = recipe.data.resolution, recipe.data.val
    pixels = val.resolution or (side if isinstance(side, int) else side.end)
    tta = ", mean with the mirror image" if recipe.eval.tta else ""
    return f"{pixels} pixels, centre crop of {val.crop_ratio:.4g} of the shorter side{tta}" + (
        ", raw weights and EMA" if recipe.train.ema else ", raw weights"
    )


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE} is stale: run python docs/make_recipes.py")
    PAGE.write_text(text)
