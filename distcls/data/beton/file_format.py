"""Reader of FFCV's file format: every pointer is checked, then kept in a compact sample table (24 bytes per sample).

Layout of a .beton (little endian; ffcv/types.py): header, field descriptors, one metadata record per sample, pages of
data, and at the end the allocation table (sample, pointer, size), whose offset the header gives. The header is written
last.
"""

from pathlib import Path

import numpy as np

from distcls.data.errors import DataError

JPEG, RAW = 0, 1

# One sample: the address of its bytes in this process's memory, and how to decode them.
SAMPLE = np.dtype(
    [("address", "<u8"), ("size", "<u4"), ("height", "<u2"), ("width", "<u2"), ("label", "<i4"), ("mode", "u1")],
    align=True,
)

_VERSION = 2
_HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page_size", "<u4"), ("samples", "<u8"), ("allocations_at", "<u8")],
    align=True,
)
_FIELD = np.dtype([("type", "u1"), ("name", "u1", (16,)), ("arguments", "u1", (1024,))], align=True)
_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
_ALLOCATION = np.dtype([("sample", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
# By FFCV's type number; bytes, arrays, JSON and tensors (3..6) are not supported.
_FIELD_TYPES = {0: np.dtype("<f8"), 1: np.dtype("<i8"), 2: _IMAGE}
_INT, _RGB_IMAGE = 1, 2
_CHUNK = 1 << 16
# A uniformly grey JPEG with an optimised Huffman table has the most, 256: two bits for 8 x 8 pixels.
_MOST_PIXELS_PER_BYTE = 1024

_AGAIN = "Write it again with `distcls data convert`."


def read_samples(path: Path) -> tuple[np.memmap, np.ndarray]:
    """Map a .beton and check its structure.

    Returns:
        The mapped bytes, which must be kept alive while the table is in use, and the table: (N,) of `SAMPLE`. Labels
        are not checked; those outside [0, 2**31) become -1.

    Raises:
        DataError: the file is missing, empty, not a .beton, unfinished or truncated, or a sample points outside it.
    """
    size = _file_size(path)
    file = np.memmap(path, np.uint8, "r")
    header = file[: _HEADER.itemsize].view(_HEADER)[0]
    if header["version"] != _VERSION or not 0 < header["fields"] < 256:
        raise DataError(
            f"{path}: not an FFCV .beton file: got version {header['version']} with {header['fields']} fields, "
            f"expected version {_VERSION} with an image and a label. {_AGAIN}"
        )
    samples, table_at = int(header["samples"]), int(header["allocations_at"])
    if table_at == 0:
        raise DataError(f"{path}: unfinished: it was never closed by its writer (no allocation table). {_AGAIN}")
    records, types = _metadata(path, file, int(header["fields"]), samples)
    if size < table_at + samples * _ALLOCATION.itemsize or (size - table_at) % _ALLOCATION.itemsize:
        raise DataError(
            f"{path}: truncated: got {size} bytes, expected at least {table_at + samples * _ALLOCATION.itemsize} "
            f"for {samples} samples. Copy it again, or write it again with `distcls data convert`."
        )
    if samples == 0:
        raise DataError(f"{path}: holds no samples. {_AGAIN}")

    table = np.zeros(samples, SAMPLE)
    pixels, labels = (records[f"f{types.index(kind)}"] for kind in (_RGB_IMAGE, _INT))
    _fill_sizes(path, table, pixels["data_ptr"], file[table_at:].view(_ALLOCATION))
    # In chunks, because the temporaries would otherwise take several times the table's memory.
    for first in range(0, samples, _CHUNK):
        part = slice(first, first + _CHUNK)
        _fill(path, table[part], pixels[part], labels[part], first, table_at)
    table["address"] += np.uint64(file.ctypes.data)
    return file, table


def _fill(path: Path, table: np.ndarray, pixels: np.ndarray, labels: np.ndarray, first: int, end: int) -> None:
    """Check and fill rows from sample `first` on; their sizes are already set, addresses count from the file start."""
    sizes, pointers = table["size"].astype(np.uint64), pixels["data_ptr"]
    raw_bytes = pixels["height"].astype(np.uint64) * pixels["width"] * np.uint64(3)
    wrong = (pointers > end) | (pointers + sizes > end) | (pixels["mode"] > RAW) | (raw_bytes == 0)
    wrong |= (pixels["mode"] == RAW) & (sizes != raw_bytes)
    # Implausible dimensions: decoding would allocate memory for that many pixels, up to 12 GB.
    wrong |= raw_bytes > sizes * np.uint64(3 * _MOST_PIXELS_PER_BYTE)
    if wrong.any():
        bad = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{path}: sample {first + bad} is damaged: {int(sizes[bad])} bytes at {int(pointers[bad])} do not hold a "
            f"{pixels['width'][bad]}x{pixels['height'][bad]} image of kind {pixels['mode'][bad]}. {_AGAIN}"
        )
    table["address"] = pointers
    for name in ("height", "width", "mode"):
        table[name] = pixels[name]
    table["label"] = np.where((labels >= 0) & (labels < 2**31), labels, -1)


def read_words(path: Path, file: np.ndarray) -> np.ndarray:
    """All int fields of a file already mapped and checked by `read_samples`: (N, fields) int64."""
    header = file[: _HEADER.itemsize].view(_HEADER)[0]
    records, types = _metadata(path, file, int(header["fields"]), int(header["samples"]))
    return np.stack([records[f"f{number}"] for number, kind in enumerate(types) if kind == _INT], 1)


def _file_size(path: Path) -> int:
    if not path.is_file():
        what = "not a regular file" if path.exists() else "no such file"
        raise DataError(
            f"{path}: {what}. Write it from your images with `distcls data convert SOURCE {path}` "
            "(`distcls data convert --help` lists the sources)."
        )
    size = path.stat().st_size
    if size < _HEADER.itemsize:
        raise DataError(f"{path}: got {size} bytes, expected an FFCV .beton file. {_AGAIN}")
    return size


def _metadata(path: Path, file: np.ndarray, fields: int, samples: int) -> tuple[np.ndarray, list[int]]:
    """The per-sample records, with columns f0, f1, ..., and the FFCV type number of each column."""
    start = _HEADER.itemsize + fields * _FIELD.itemsize
    types = [int(kind) for kind in file[_HEADER.itemsize : start].view(_FIELD)["type"]] if len(file) >= start else []
    if _RGB_IMAGE not in types or _INT not in types or any(kind not in _FIELD_TYPES for kind in types):
        raise DataError(
            f"{path}: its fields are of FFCV types {types or 'cut off'}, expected an RGB image ({_RGB_IMAGE}) and an "
            f"int label ({_INT}), and floats besides at most. {_AGAIN}"
        )
    record = np.dtype([("", _FIELD_TYPES[kind]) for kind in types], align=True)
    stop = start + samples * record.itemsize
    if len(file) < stop:
        raise DataError(
            f"{path}: truncated: got {len(file)} bytes, expected {stop} and more for {samples} samples. "
            "Copy it again, or write it again with `distcls data convert`."
        )
    return file[start:stop].view(record), types


def _fill_sizes(path: Path, table: np.ndarray, pointers: np.ndarray, allocations: np.ndarray) -> None:
    """Set each sample's size in bytes from the allocation whose pointer is that of its image."""
    for first in range(0, len(allocations), _CHUNK):
        known = allocations[first : first + _CHUNK]
        known = known[known["sample"] < len(pointers)]
        known = known[known["ptr"] == pointers[known["sample"]]]
        table["size"][known["sample"]] = np.minimum(known["size"], 2**32 - 1)
    missing = np.flatnonzero(table["size"] == 0)
    if len(missing):
        raise DataError(
            f"{path}: damaged: {len(missing)} of {len(table)} samples have no entry in the allocation table, sample "
            f"{missing[0]} first. {_AGAIN}"
        )
