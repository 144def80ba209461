"""Writes docs/recipes.md from recipes/*.yaml: `python docs/make_recipes.py`; with --check says only if it is stale.

A card has what the header says and the values that the recipe resolves to; parameters are counted on the meta device.
"""

import re
import sys
from pathlib import Path
from typing import Any

import torch

from distcls.engine.plugins import import_parts
from distcls.models import build_classifier
from distcls.recipe.schema import Recipe, check
from distcls.recipe.source import read

PAGE = Path(__file__).with_name("recipes.md")
RECIPES = PAGE.parents[1] / "recipes"
HEAD = """\
# Recipes

A card for each file in `recipes/`, made by `python docs/make_recipes.py`: do not edit. A result is accuracy on the
validation images, with the evaluation that its card names; "not measured" means that nobody has run it here.

Number of GPUs: `train.global_batch_size` counts the images of one update over all GPUs and accumulation, so batch,
learning rate and schedule are the same on 1 GPU and on 64. If memory does not suffice, raise
`train.accumulation_steps`. If you change the batch, change `optimizer.lr` as the header's line `Batch` says: by the
same factor, with LAMB by its square root.
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
        "Another number of GPUs": said.get("Batch", "as above; another batch: optimizer.lr times the same factor."),
        "Run": f"`{said['Run']}`",
        "Result": said["Result"],
    }
    table = "\n".join(f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows.items())
    return f"## {path.stem}\n\n{said['']}\n\n| | |\n|---|---|\n{table}\n"


def header(path: Path) -> dict[str, str]:
    """The comment that begins the file: its words under "", and those behind `Batch:`, `Run:` and `Result:`."""
    said, key = {"": ""}, ""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        begins = re.match(r"# (Batch|Run|Result): +(.*)", line)
        key, words = begins.groups() if begins else (key, line.removeprefix("#").strip())
        said[key] = f"{said.get(key, '')} {words}".strip()
    return said


def model_name(recipe: Recipe) -> str:
    return call({key: value for key, value in recipe.model.backbone.items() if value is not None})


def parameters(recipe: Recipe) -> int:
    block = recipe.model.model_dump()
    with torch.device("meta"):
        model = build_classifier(block, image_size=(224, 224), init_weights=False)
    return sum(parameter.numel() for parameter in model.parameters())


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
    return f", EMA {recipe.train.ema.decay:.8g}" if recipe.train.ema else ""


def resolution(recipe: Recipe) -> str:
    side = recipe.data.resolution
    if isinstance(side, int):
        return f"{side} pixels"
    return f"{side.start} to {side.end} pixels in epochs {side.ramp[0]} to {side.ramp[1]}"


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
