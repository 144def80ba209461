"""`MANIFEST.json`, which describes a checkpoint, and the check of files against it. Imports no torch."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distcls.errors import UserError

MANIFEST = "MANIFEST.json"
SCHEMA = 2  # in schema 1 the optimizer was not sharded; it can no longer be read


class CheckpointError(UserError):
    """A run cannot resume from its checkpoints. `exit_code`: the exit status for the process."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Damaged(Exception):
    """A checkpoint differs from what was written; the text names the file and the reason."""


def encode_manifest(manifest: dict[str, Any]) -> bytes:
    """JSON that includes its own sha256, so that a flipped bit is noticed."""
    plain = json.loads(json.dumps(manifest))
    return json.dumps({**plain, "sha256": _hash(plain)}, indent=1).encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of one checkpoint folder.

    Raises:
        Damaged: it is missing, or differs from what was written.
        CheckpointError: a newer version of distcls wrote it.
        OSError: it cannot be read.
    """
    try:
        with _named(path / MANIFEST):
            data = (path / MANIFEST).read_bytes()
        manifest = json.loads(data)
        expected = manifest.pop("sha256")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(f"{MANIFEST} is missing") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise Damaged(f"{MANIFEST} is not what was written: it cannot be parsed") from error
    if _hash(manifest) != expected:
        raise Damaged(f"{MANIFEST} is not what was written: its sha256 differs")
    if manifest["schema"] > SCHEMA:
        raise CheckpointError(
            f"{path} was written by a newer distcls (checkpoint schema {manifest['schema']}; "
            f"this one reads {SCHEMA}): update distcls"
        )
    if manifest["schema"] < SCHEMA:
        raise CheckpointError(
            f"{path} was written by an older distcls (checkpoint schema {manifest['schema']}; "
            f"this one reads {SCHEMA}): go on with that version, or give another output_dir"
        )
    return manifest


def check_file(path: Path, entry: dict[str, Any], *, hashed: bool = True) -> None:
    """Compare a file's size and, if `hashed`, its sha256 with its manifest entry.

    Raises:
        Damaged: they differ, or there is no such file.
        OSError: it cannot be read. This is no damage: a network file system reports EIO for a temporary outage.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    if size != entry["size"]:
        raise Damaged(f"{path.name} has {size} bytes, {entry['size']} were written")
    if not hashed:
        return
    with open(path, "rb") as file, _named(path):
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != entry["sha256"]:
        raise _other_bytes(path)


def read_file(path: Path, entry: dict[str, Any]) -> bytes:
    """Read a file and verify the hash of the bytes read.

    Raises:
        Damaged: they differ from the manifest entry.
        OSError: it cannot be read.
    """
    check_file(path, entry, hashed=False)
    with _named(path):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise _other_bytes(path)
    return data


def entries_of(manifest: dict[str, Any], stem: str) -> list[dict[str, Any]]:
    """The manifest's entries for one kind of file: model, ema, optimizer, once or rank."""
    return [entry for entry in manifest["files"] if entry["stem"] == stem]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the file name to an OSError: those raised by a read have none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _other_bytes(path: Path) -> Damaged:
    return Damaged(f"{path.name} is not what was written: its sha256 differs")


def _hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
