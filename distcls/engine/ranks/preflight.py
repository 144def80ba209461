"""Before any process group or GPU exists: does the launcher contradict the recipe?

The recipe is the only authority on strategy, precision and accumulation; the launcher gives the topology.
"""

import os
from collections.abc import Mapping

from distcls.errors import UserError


def preflight(*, precision: str, strategy: str, environment: Mapping[str, str] | None = None) -> None:
    """Compare the recipe with what the launcher put into the environment.

    `accelerate launch` writes ACCELERATE_MIXED_PRECISION=no and ACCELERATE_DYNAMO_BACKEND=NO when nobody asked for
    anything, so these two values contradict no recipe.

    Raises:
        UserError: one line for each contradiction.
    """
    said = os.environ if environment is None else environment
    wrong = []
    launcher_precision = said.get("ACCELERATE_MIXED_PRECISION", "no")
    if launcher_precision not in ("no", precision):
        wrong.append(
            f"train.precision is {precision!r}, but the launcher says ACCELERATE_MIXED_PRECISION={launcher_precision}: "
            f"start it without --mixed_precision, or set train.precision={launcher_precision}"
        )
    if said.get("ACCELERATE_DYNAMO_BACKEND", "NO").upper() != "NO":
        wrong.append(
            "the launcher asks for torch.compile (ACCELERATE_DYNAMO_BACKEND): start it without --dynamo_backend"
        )
    if int(said.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")) != 1:
        wrong.append(
            "the launcher sets ACCELERATE_GRADIENT_ACCUMULATION_STEPS: "
            "use train.accumulation_steps in the recipe instead"
        )
    for variable, flag in (("ACCELERATE_USE_DEEPSPEED", "--use_deepspeed"), ("ACCELERATE_USE_FSDP", "--use_fsdp")):
        if said.get(variable, "false").lower() in ("1", "true", "yes"):
            wrong.append(
                f"distributed.strategy is {strategy!r}, but the launcher says {variable}={said[variable]}: "
                f"start it without {flag}"
            )
    if wrong:
        raise UserError("the launcher contradicts the recipe:\n" + "\n".join(f"  {line}" for line in wrong))
