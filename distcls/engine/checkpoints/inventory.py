"""The checkpoints of a run folder, seen from outside: what there is, and whether its bytes are what was written."""

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
        path: its folder.
        bytes: of all its files on the disk.
        manifest: empty where it cannot be read.
        harm: what is wrong with it, or None.
    """

    path: Path
    bytes: int
    manifest: dict[str, Any]
    harm: str | None


def inventory(run: Path) -> list[Found]:
    """Every checkpoint of a run, newest first, those set aside last; manifests and sizes are checked, hashes are not.

    Raises:
        UserError: no run folder, or one without checkpoints.
    """
    found = [_look(path) for path in committed(_checkpoints(run))]
    found += [Found(path, _size(path), {}, SET_ASIDE) for path in corrupt(_checkpoints(run))]
    return [one for one in found if one.path.exists()]  # a live run may prune meanwhile


def checkpoints_of(source: Path) -> list[Path]:
    """The checkpoint that `source` is, or all of the run folder that it is, newest first.

    Raises:
        UserError: it is neither.
    """
    if STEP.fullmatch(source.name) or (source / MANIFEST).is_file():
        if not source.is_dir():
            raise UserError(f"{source}: no such checkpoint")
        return [source]
    return committed(_checkpoints(source))


def harm_of(path: Path) -> str | None:
    """Hash every file of a checkpoint; the first that is not what was written, and why, or None.

    Raises:
        UserError: a newer version wrote it, or a file cannot be read just now, which is no damage.
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
