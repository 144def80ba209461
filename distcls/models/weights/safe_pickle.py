"""Reading torch's pickled files without running anything that is in them."""

import re
import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from distcls.errors import UserError, first_line


class HistoryBuffer:
    """Stands for mmengine's class of this name in a checkpoint's message_hub: it keeps what was pickled, unread."""


def _numpy_globals() -> list[Any]:
    """What pickled numpy scalars and arrays name; numpy 2 moved the functions and reads both places."""
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    named: list[Any] = [np.dtype, np.ndarray]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        named += [(multiarray.scalar, f"{module}.scalar"), (multiarray._reconstruct, f"{module}._reconstruct")]
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    return [*named, *(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, np.dtype))]


#: Beside tensors and plain values: what OpenMMLab's checkpoints hold of their logs.
ALLOWED: list[Any] = [(HistoryBuffer, "mmengine.logging.history_buffer.HistoryBuffer"), *_numpy_globals()]


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote to `path`, on the CPU.

    Raises:
        UserError: it holds something that only code could rebuild, which is refused and not executed; or it is damaged.
    """
    _check_sums(path)
    try:
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(_refusal(path, str(error))) from error
    except Exception as error:  # bytes that are no pickle at all end in errors of many kinds
        if "TorchScript" in str(error):
            raise UserError(f"{path}: refused: it is a TorchScript program, not a state_dict") from error
        reason = first_line(error)
        raise UserError(f"{path}: is damaged, or no checkpoint at all: {reason}") from error


def _check_sums(path: Path) -> None:
    """torch writes a zip archive with a checksum of every tensor, and does not look at it when it reads."""
    if not zipfile.is_zipfile(path):
        return  # the older format, which has none, or what is left of an archive: torch will say
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"{path}: is damaged: {error}") from error
    if bad is not None:
        raise UserError(f"{path}: is damaged: {bad} does not match its checksum")


def _refusal(path: Path, reason: str) -> str:
    found = re.search(r"GLOBAL (\S+) was not an allowed global", reason)
    if found is None:
        found = re.search(r"Trying to (?:load|call|instantiate)[^`]*`?([\w.]+)", reason)
    if found is None:
        return f"{path}: is damaged, or no checkpoint at all: it is no pickle that torch.save wrote"
    return (
        f"{path}: refused: to read it, Python would have to run {found[1]}, which is neither a tensor nor a plain "
        "value. Nothing in it was executed. Save its state_dict alone, best as .safetensors, where you trust the file"
    )
