"""Checks, before any process group or GPU is used, that the launcher does not contradict the recipe.

The recipe alone decides on strategy, precision, accumulation and clipping. The launcher provides the topology, which
is all that torchrun and its PET_* variables can set.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from distcls.errors import UserError

# Set by these flags of `accelerate launch`; each makes accelerate wrap the model in its own way.
MODES = {
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_FSDP": "--use_fsdp",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
}


def preflight(*, precision: str, strategy: str, environment: Mapping[str, str] = os.environ) -> None:
    """Compare the recipe with what the launcher put into the environment.

    `accelerate launch` sets ACCELERATE_MIXED_PRECISION=no and ACCELERATE_DYNAMO_BACKEND=NO by default, so these two
    values contradict no recipe.

    Raises:
        UserError: one line for each contradiction.
    """
    wrong = []
    launcher_precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if launcher_precision not in ("no", precision):
        wrong.append(
            f"train.precision is {precision!r}, but the launcher says ACCELERATE_MIXED_PRECISION={launcher_precision}: "
            f"start it without --mixed_precision, or set train.precision={launcher_precision}"
        )
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "NO").upper() != "NO":
        wrong.append(
            "the launcher asks for torch.compile (ACCELERATE_DYNAMO_BACKEND): start it without --dynamo_backend"
        )
    if environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        wrong.append(
            "the launcher sets ACCELERATE_GRADIENT_ACCUMULATION_STEPS: "
            "use train.accumulation_steps in the recipe instead"
        )
    if environment.get("ACCELERATE_GRADIENT_CLIPPING", "none") not in ("none", "0", "0.0"):
        wrong.append(
            "the launcher sets ACCELERATE_GRADIENT_CLIPPING: use train.clip_grad_norm in the recipe instead",
        )
    for variable, flag in MODES.items():
        if environment.get(variable, "false").lower() in ("1", "true", "yes"):
            wrong.append(
                f"distributed.strategy is {strategy!r}, which the recipe's run starts by itself, but the launcher says "
                f"{variable}={environment[variable]}: start it without {flag} ({_yaml(environment)})"
            )
    if wrong:
        raise UserError("the launcher contradicts the recipe:\n" + "\n".join(f"  {line}" for line in wrong))


def _yaml(environment: Mapping[str, str]) -> str:
    """The remedy for a mode that may come from accelerate's configuration file instead of the command line."""
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = environment.get("HF_HOME") or Path(cache) / "huggingface"
    files = [Path(home) / "accelerate" / f"default_config.{ending}" for ending in ("yaml", "yml", "json")]
    found = [file for file in files if file.is_file()]
    return f"and without distributed_type in {found[0]}: pass --multi_gpu" if found else "--multi_gpu is the one to use"
