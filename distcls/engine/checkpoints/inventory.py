"""Lists and verifies the checkpoints of a run folder, for the `distcls checkpoint` commands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distcls.engine.checkpoints.commit import STEP, committed, corrupt
from distcls.engine.checkpoints.manifest import MANIFEST, CheckpointError, Damaged, check_file, read_manifest
from distcls.errors import UserError

SET_ASIDE = "a start of the run found it damaged and set it aside"


@dataclass(frozen=True)
class Found:
    """One checkpoint.

    Attributes:
        bytes: total size of its files.
        manifest: empty if it cannot be read.
        harm: what is wrong with it, or None.
    """

    path: Path
    bytes: int
    manifest: dict[str, Any]
    harm: str | None


def inventory(run: Path) -> list[Found]:
    """Every checkpoint of a run, newest first, damaged ones last. Checks manifests and sizes, but no hashes.

    Raises:
        UserError: not a run folder, or it has no checkpoints.
    """
    found = [_look(path) for path in committed(_checkpoints(run))]
    found += [Found(path, _size(path), {}, SET_ASIDE) for path in corrupt(_checkpoints(run))]
    return [one for one in found if one.path.exists()]  # a live run may prune meanwhile


def checkpoints_of(source: Path) -> list[Path]:
    """`source` itself if it is a checkpoint; if it is a run folder, all of its checkpoints, newest first.

    Raises:
        UserError: it is neither.
    """
    if STEP.fullmatch(source.name) or (source / MANIFEST).is_file():
        if not source.is_dir():
            raise UserError(f"{source}: no such checkpoint")
        return [source]
    return committed(_checkpoints(source))


def harm_of(path: Path) -> str | None:
    """Verify the hash of every file of a checkpoint: the first damage found, or None.

    Raises:
        UserError: another version of distcls wrote it, or a file cannot be read, which may be temporary.
    """
    try:
        for entry in read_manifest(path)["files"]:
            check_file(path / entry["name"], entry)
    except Damaged as damage:
        return str(damage)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return None


def _checkpoints(run: Path) -> Path:
    folder = run / "checkpoints"
    if not run.exists():
        raise UserError(f"{run}: no such run folder")
    if not folder.is_dir():
        raise UserError(f"{run}: no checkpoints/ in it: expected a run folder or one of its checkpoints")
    if not committed(folder) and not corrupt(folder):
        raise UserError(f"{folder}: no checkpoint in it yet")
    return folder


def _look(path: Path) -> Found:
    manifest: dict[str, Any] = {}
    try:
        manifest = read_manifest(path)
        for entry in manifest["files"]:
            check_file(path / entry["name"], entry, hashed=False)
    except Damaged as damage:
        return Found(path, _size(path), manifest, str(damage))
    except (CheckpointError, OSError) as error:
        return Found(path, _size(path), manifest, f"cannot be read: {error}")
    return Found(path, _size(path), manifest, None)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*"))
