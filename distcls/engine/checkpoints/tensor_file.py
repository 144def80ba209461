"""Writes safetensors files as a stream, and reads them: the files of checkpoints and of exported weights.

The library's own writers build the whole file in memory (`save`) or open the path themselves (`save_file`). A
checkpoint needs an exclusive open, the hash of what was written, and no second copy of the state. The format: 8 bytes
with the length of the header, the header in JSON, the tensors.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from distcls.engine.records.durable_file import create, fsync_folder, write_all
from distcls.errors import UserError

CHUNK = 4 << 20  # bytes hashed and then written at a time: they are still in the CPU cache
CONTENT_HASH = "distcls.sha256"

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class SaveFailed(UserError):
    """A checkpoint or a weights file could not be written; earlier files are untouched.

    If a periodic save raises this, the run only warns and continues.
    """


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Write a new safetensors file and fsync it.

    Tensors may be on any device, have any strides and share storage. Each one is written separately in row-major order:
    values are exact, but the memory format is lost (`flatten_state` records it where it matters).

    Returns:
        The size in bytes and the sha256 (hex) of the whole file, taken from the bytes handed to the kernel.

    Raises:
        OSError: of the disk; FileExistsError if `path` exists.
        TypeError: a dtype that safetensors lacks, or a metadata value that is not a string.
    """
    ordered = _ordered(tensors)
    header = _header(ordered, metadata or {})
    digest, size = hashlib.sha256(), 0
    fd = create(path)
    try:
        pieces: Iterator[bytes | memoryview] = itertools.chain((header,), _chunks(ordered))
        for data in pieces:
            digest.update(data)
            write_all(fd, data)
            size += len(data)
        os.fsync(fd)
    finally:
        os.close(fd)
    return size, digest.hexdigest()


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write exported weights; after a crash at any moment `path` is either the old or the new file.

    Raises:
        SaveFailed: the disk is full or broken.
        TypeError: as `write_tensors`.
    """
    content = hashlib.sha256()
    for chunk in _chunks(_ordered(tensors)):
        content.update(chunk)
    tmp = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp.unlink(missing_ok=True)
        write_tensors(tmp, tensors, {**metadata, CONTENT_HASH: content.hexdigest()})
        os.replace(tmp, path)
        fsync_folder(path.parent)
    except OSError as error:
        tmp.unlink(missing_ok=True)
        raise SaveFailed(f"{path} was not written: {error.strerror}. What was there before is untouched.") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read any safetensors file into CPU memory.

    Returns:
        The tensors by name, and the metadata without our content hash, which is verified if the file has one.

    Raises:
        UserError: the file is missing, no safetensors file, truncated or damaged.
    """
    try:
        data = Path(path).read_bytes()
        tensors = safetensors.torch.load(data)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise UserError(f"{path}: is not a whole safetensors file ({len(data)} bytes): {error}") from error
    start = 8 + int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8:start]).get("__metadata__", {})
    expected = metadata.pop(CONTENT_HASH, None)
    if expected is not None and hashlib.sha256(memoryview(data)[start:]).hexdigest() != expected:
        raise UserError(f"{path}: is damaged: its content does not match the sha256 that was written with it")
    return tensors, metadata


def _ordered(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Widest dtype first, like the library, so that every tensor starts at a multiple of its item size."""
    return sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))


def _header(ordered: list[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise TypeError(f"metadata {key!r} must be a string, got {value!r}")
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in ordered:
        if tensor.dtype not in DTYPES:
            raise TypeError(f"tensor {name!r}: safetensors has no {tensor.dtype}")
        start, end = end, end + tensor.numel() * tensor.dtype.itemsize
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _chunks(ordered: list[tuple[str, Tensor]]) -> Iterator[memoryview]:
    for _, tensor in ordered:
        # reshape first: a 0-d tensor cannot be viewed as bytes
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]
