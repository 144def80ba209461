"""What a run would miss on this machine: files, packages, a key."""

import importlib.util
from pathlib import Path

from distcls.errors import first_line
from distcls.recipe.schema import Recipe
from distcls.tracking.wandb_access import wanted_mode


def missing(recipe: Recipe, strategy: str) -> list[str]:
    """One line for each thing, with what to do."""
    lines = []
    for key, paths in (("data.train.path", recipe.data.train.path), ("data.val.path", recipe.data.val.path)):
        for path in [paths] if isinstance(paths, str) else paths:
            if not any(char in path for char in "*?[") and not Path(path).is_file():
                lines.append(f"{key}: {path}: no such file; write it with `distcls data convert SOURCE {path}`")
    init = recipe.model.init
    if init is not None and not Path(init.checkpoint).exists():
        lines.append(f"model.init.checkpoint: {init.checkpoint}: no such file")
    if strategy.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        lines.append(f"{strategy} needs DeepSpeed: pip install deepspeed transformers")
    if recipe.tracking.mode == "online":
        try:
            wanted_mode("online")
        except Exception as error:
            lines.append(first_line(error))
    return lines
