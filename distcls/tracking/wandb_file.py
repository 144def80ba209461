"""Reads what wandb has written: `.wandb` files, online as offline the record of all that its service was given.

32 KB blocks of CRC-checked chunks, as in LevelDB's log, whose payloads are protobuf records.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAGIC, HEADER, BLOCK = b":W&B", 7, 32768
FULL, FIRST, LAST = 1, 2, 4


def records(path: Path) -> Iterator[Any]:
    """The whole records of a file, wandb's `Record` messages; a tail torn by a kill is left out.

    Raises:
        ValueError: this is not such a file, or it is damaged.
    """
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    if data and data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} is not a .wandb file")
    position, payload = HEADER, b""
    while position + HEADER <= len(data):
        room = BLOCK - position % BLOCK
        crc, length, kind = struct.unpack_from("<IHB", data, position)
        if room < HEADER or kind == 0:  # the rest of a block is padding
            position += room
            continue
        chunk = data[position + HEADER : position + HEADER + length]
        if len(chunk) < length:
            return
        if zlib.crc32(chunk, zlib.crc32(bytes([kind]))) != crc:
            raise ValueError(f"{path} is damaged at byte {position}")
        position += HEADER + length
        payload = chunk if kind in (FULL, FIRST) else payload + chunk
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(payload)  # type: ignore[attr-defined]


def history(path: Path) -> Iterator[dict[str, Any]]:
    """The logged rows of a file, metrics by name."""
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            yield values(record.history.item)


def values(items: Any) -> dict[str, Any]:
    """Protobuf items of history, summary or config by name."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
