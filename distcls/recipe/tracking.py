"""The recipe's tracking block."""

from typing import Annotated, Any, Literal

from pydantic import Field

from distcls.recipe.part import Part
from distcls.registry import TRACKERS


class Tracking(Part):
    """Weights & Biases and other backends, beside the run folder's own metrics.jsonl. Rows: train.log_every_steps."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online where a key is found and the server answers, else offline."""
    required: bool = False
    """Refuse to start where W&B cannot be had as `mode` says; auto then means online."""
    project: str = "distcls"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null means the key's own."""
    name: str | None = None
    """Name of the run; null means the recipe's, with the first attempt's SLURM job."""
    group: str | None = None
    """W&B group; null means the recipe's name, in a SLURM array with the array's job."""
    notes: str | None = None
    """Free text beside the run."""
    tags: list[str] = []
    """W&B tags."""
    batches: bool = False
    """Write to batches/ which images each step saw, with a hash of their pixels: for `distcls verify-resume`; slow."""
    tables: Annotated[int, Field(ge=0)] = 64
    """Images in W&B's table of the worst predictions; 0 uploads neither tables nor pictures."""
    artifacts: Literal["none", "best", "last"] = "none"
    """Weights that a finished run gives to W&B as a model artifact."""
    code: bool = True
    """Give W&B the uncommitted changes of the code that runs (`code.diff`, secrets redacted) as a file of the run."""
    backends: Annotated[list[dict[str, Any]], TRACKERS] = []
    """Further trackers, from plug-ins: a class each, with its arguments."""
