"""Pretrained weights of a library's model: from its hub or cache, or from a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import nn

from distcls.errors import UserError, first_line
from distcls.models.weights import load_checkpoint, read_checkpoint


def fetch_weights(library: str, model_name: str, build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` gives: the model with its pretrained weights.

    Raises:
        UserError: there are none, or they are not in the cache and the hub is out of reach.
    """
    try:
        return build()
    except Exception as error:  # of the library, its hub's client, and the network
        reason = first_line(error)
        raise UserError(
            f"the pretrained weights of {library}'s {model_name} cannot be had: {reason}. "
            "Where there is no network, fetch them elsewhere and name the file in model.init.checkpoint"
        ) from error


def load_own(backbone: nn.Module, path: Path, library: Literal["timm", "torchvision"]) -> None:
    """The weights in a file of the library's -> the wrapped model.

    Raises:
        UserError: it is no such file, or one of another model.
    """
    holder = nn.Module()
    holder.backbone = backbone
    load_checkpoint(holder, read_checkpoint(path), library)
