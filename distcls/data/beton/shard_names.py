"""File names of sharded data sets: train-00003-of-00008.beton, as in TFDS and WebDataset."""

import glob
import re
from pathlib import Path

from distcls.data.errors import DataError

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.beton")


def shard_paths(out: Path, shards: int) -> list[Path]:
    """train.beton, 2 -> train-00000-of-00002.beton, train-00001-of-00002.beton."""
    return [out.with_name(f"{out.stem}-{number:05d}-of-{shards:05d}.beton") for number in range(shards)]


def shard_of(path: Path) -> tuple[str, int, int] | None:
    """Stem, shard number and shard count; None if the name is not that of a shard."""
    found = _SHARD.fullmatch(path.name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def expanded(path: str | Path) -> list[Path]:
    """The files that a path names: itself, or for a pattern with * or ? all matching .beton files, sorted.

    Raises:
        DataError: no file matches, a shard is missing, or shards of several data sets or other files match as well.
    """
    if not set("*?") & set(str(path)) or Path(path).exists():
        return [Path(path)]
    found = sorted(Path(name) for name in glob.glob(str(path)) if name.endswith(".beton"))
    if not found:
        raise DataError(f"{path}: no such files. `distcls data convert SOURCE NAME.beton --shards N` writes shards.")
    shards = [shard_of(file) for file in found]
    sets = {(stem, count) for stem, _, count in filter(None, shards)}
    for stem, count in sorted(sets):
        missing = sorted(
            set(range(count)) - {number for name, number, of in filter(None, shards) if (name, of) == (stem, count)}
        )
        if missing:
            raise DataError(
                f"{path}: {len(missing)} of {count} shards are missing, {stem}-{missing[0]:05d}-of-{count:05d}.beton "
                "first. Finish the conversion, or name the shards that you want as a list."
            )
    if len(sets) > 1:
        text = " and ".join(f"{stem}-*-of-{count:05d}.beton" for stem, count in sorted(sets))
        raise DataError(f"{path}: names the shards of {len(sets)} data sets: {text}")
    if sets and None in shards:
        stem, count = sets.pop()
        raise DataError(
            f"{path}: names {found[shards.index(None)].name} beside the shards {stem}-*-of-{count:05d}.beton: its "
            "images may be the same ones. Give the pattern of the shards, or name the files that you want as a list."
        )
    return found
