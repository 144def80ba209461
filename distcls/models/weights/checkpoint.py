"""Reads a file of weights, whichever library wrote it -> its tensors by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from distcls.errors import UserError
from distcls.models.weights.safe_pickle import read_torch_file

#: Keys under which checkpoints store weights, moving averages first (timm, torchvision's references). Composer nests
#: them as "model" in "state".
STATE_DICTS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net", "state")
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file.

    Attributes:
        tensors: by name, without the prefixes of wrappers.
        notes: remarks for the report.
        prefix: a further prefix that was removed from the names.
    """

    path: Path
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    prefix: str = ""


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: is not a whole safetensors file: {error}") from error


def read_checkpoint(
    path: Path,
    prefix: str | None = None,
    read_safetensors: Callable[[Path], dict[str, Tensor]] = _read_safetensors,
) -> Checkpoint:
    """Read OpenMMLab's (0.x and 1.x), torchvision's, timm's and our own files, and other state_dicts.

    No code in a file is executed.

    Args:
        path: .safetensors, or a file written by torch.save.
        prefix: take only entries whose names begin with it, and remove it: ``encoder.`` of a self-supervised model.
        read_safetensors: reads such files; the engine's reader also checks their content hash.

    Raises:
        UserError: the file is missing, damaged, refused, or holds no weights.
    """
    content = read_safetensors(path) if is_safetensors(path) else read_torch_file(path)
    tensors, notes = _weights(path, content)
    if prefix:
        tensors = entries_below(tensors, prefix)
        if not tensors:
            raise UserError(f"{path}: no entry begins with the prefix {prefix!r}")
    return Checkpoint(path, tensors, notes, prefix or "")


def entries_below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names begin with `prefix`, without it."""
    return {_bare(name.removeprefix(prefix)): entry for name, entry in tensors.items() if name.startswith(prefix)}


def is_safetensors(path: Path) -> bool:
    """Whether the file begins like a safetensors file: eight bytes of length, then JSON.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _weights(path: Path, content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    notes: list[str] = []
    while (key := _key_of_weights(content)) is not None:
        if key.endswith("ema"):
            notes.append(f"the weights are the file's running average ({key})")
        elif "ema_state_dict" in content:
            notes.append("the weights are the file's running average: that run had EMA")
        content = content[key]
    tensors = {
        _bare(name): entry.detach()
        for name, entry in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(name, str) and isinstance(entry, Tensor)
    }
    if not tensors:
        held = f"it holds {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        found = held or f"it holds a {type(content).__name__}"
        raise UserError(f"{path}: no weights in it: expected a state_dict, {found}")
    return tensors, tuple(notes)


def _key_of_weights(content: Any) -> str | None:
    """The key under which a mapping holds weights; None if it has none of `STATE_DICTS`."""
    found = content if isinstance(content, Mapping) else {}
    return next((key for key in STATE_DICTS if isinstance(found.get(key), Mapping)), None)


def _bare(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name
