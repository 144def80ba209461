"""Checkpoints that a kill at any moment cannot hurt: every rank writes, rank 0 commits, all agree.

One rank's failure is every rank's failure: each phase ends in one gather that carries the errors, never in a bare
barrier, so no rank waits for one that gave up. `latest` is found by reading and hashing what is on the disk; there is
no pointer file to go stale.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from distcls.engine.checkpoints.commit import Commit, committed, condemn, corrupt, prune, remove_debris
from distcls.engine.checkpoints.manifest import (
    SCHEMA,
    CheckpointError,
    Damaged,
    check_file,
    entries_of,
    read_file,
    read_manifest,
)
from distcls.engine.checkpoints.reshard import read_runs
from distcls.engine.checkpoints.tensor_file import SaveFailed, write_tensors
from distcls.engine.stopping.outcome import NO_VALID_CHECKPOINT
from distcls.engine.strategies.shards import Run


class CheckpointStore:
    """The checkpoints of one run; every method is collective: all ranks call it, in the same order.

    Args:
        folder: the run's `checkpoints/`, on storage that all ranks share.
        keep: how many of the newest to keep, at least 2; the newest saved with `best=True` stays beside them.
        rank, world_size: this process among all.
        gather: takes a JSON-able object and gives *every* rank the list of all ranks' objects, in rank order.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        rank: int = 0,
        world_size: int = 1,
        gather: Callable[[Any], list[Any]] = lambda own: [own],
    ) -> None:
        if keep < 2:
            raise ValueError(f"checkpoint.keep must be at least 2 (the newest may turn out damaged), got {keep}")
        self.folder = Path(folder)
        self.keep = keep
        self.rank = rank
        self.world_size = world_size
        self._gather = gather

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, best: bool = False
    ) -> Path:
        """Write and commit one checkpoint; when it returns, the checkpoint survives a kill and a power cut.

        Args:
            step: optimizer steps; a step that is there already is replaced, safely.
            tensors: this rank's files: file stem -> tensors by name.
            state: what else the run needs, JSON-able, rank 0's counts; its `epoch`, `samples` and `recipe_hash` are
                repeated in the manifest's head.
            best: keep it beyond its turn, until a newer one is best.

        Raises:
            SaveFailed: a disk error on any rank, on all ranks. Everything saved before is still there.
        """
        commit: Commit | None = None

        def begin() -> str | None:
            nonlocal commit
            if self.rank == 0:
                commit = Commit(self.folder, step)
                return commit.path.name
            return None

        def write() -> list[dict[str, Any]]:
            entries = []
            for stem, share in tensors.items():
                name = f"{stem}.rank{self.rank:05d}.safetensors"
                size, sha256 = write_tensors(self.folder / tmp / name, share)
                entries.append({"name": name, "stem": stem, "rank": self.rank, "size": size, "sha256": sha256})
            return entries

        def finish() -> None:
            if commit:
                head = {key: state.get(key) for key in ("epoch", "samples", "recipe_hash")}
                commit.finish(
                    {
                        "schema": SCHEMA,
                        "step": step,
                        **head,
                        "world_size": self.world_size,
                        "best": best,
                        "files": [entry for share in shares for entry in share],
                        "state": dict(state),
                    }
                )

        path = self.folder / f"step_{step:08d}"

        def failed(reasons: str) -> SaveFailed:
            return SaveFailed(f"checkpoint {path} was not written: {reasons}. Earlier checkpoints are untouched.")

        try:
            tmp = self._together(begin, failed)[0]
            shares = self._together(write, failed)
            self._together(finish, failed)
        except BaseException:
            if commit:
                commit.abandon()
            raise
        if self.rank == 0:
            prune(self.folder, self.keep, path)
        return path

    def latest(self) -> Path | None:
        """The newest checkpoint whose every byte is what was written, or None for a run without checkpoints.

        Clears the debris of killed runs first. Each rank hashes its share of the files. A damaged checkpoint is
        renamed `step_N.corrupt` with a warning and the one before it is tried. One that cannot be read is not damaged:
        nobody renames it, nor takes an older one in its place.

        Raises:
            CheckpointError: there were checkpoints and none is valid (`exit_code` 76), or they cannot be read.
        """
        reason: str | None = None
        path: Path | None = None

        def choose() -> dict[str, Any] | None:
            if self.rank != 0:
                return None
            if path is None:
                remove_debris(self.folder)
            elif reason is not None:
                condemn(path, reason)
            return self._newest_with_manifest()

        def verify() -> str | None:
            assert path is not None
            try:
                for entry in manifest["files"]:
                    # Where it was written it may still be in the page cache.
                    if entry["rank"] % self.world_size == self.rank:
                        check_file(path / entry["name"], entry)
            except Damaged as damage:
                return str(damage)
            except OSError as error:
                raise _unread(error) from error
            return None

        def failed(reasons: str) -> CheckpointError:
            return CheckpointError(f"the checkpoints in {self.folder} cannot be read: {reasons}")

        while True:
            choice = self._together(choose, failed)[0]
            if choice is None:
                return None
            path, manifest = self.folder / choice["name"], choice["manifest"]
            reason = next((damage for damage in self._together(verify, failed) if damage), None)
            if reason is None:
                return path

    def load(
        self, path: Path, rank: int | None = None, stems: Sequence[str] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
        """Read one checkpoint into CPU memory, whole, before anything touches a model; the bytes are hashed again as
        they are read.

        Args:
            path: from `latest()`.
            rank: whose files; None: this rank's own, which needs the number of ranks that wrote it.
            stems: which of them; None: all.

        Returns:
            The state of `save`, and file stem -> tensors by name (row-major; values and dtypes exact).

        Raises:
            CheckpointError: damaged, or written by another number of ranks; on all ranks.
        """
        state: dict[str, Any] = {}
        tensors: dict[str, dict[str, Tensor]] = {}

        def read() -> None:
            try:
                manifest = read_manifest(path)
                if rank is None and manifest["world_size"] != self.world_size:
                    raise CheckpointError(
                        f"it was written by {manifest['world_size']} rank(s) and this run has {self.world_size}"
                    )
                state.update(manifest["state"])
                writer = self.rank if rank is None else rank
                for entry in manifest["files"]:
                    if entry["rank"] == writer and (stems is None or entry["stem"] in stems):
                        tensors[entry["stem"]] = safetensors.torch.load(read_file(path / entry["name"], entry))
            except Damaged as damage:
                raise CheckpointError(str(damage)) from damage

        def failed(reasons: str) -> CheckpointError:
            return CheckpointError(f"checkpoint {path} cannot be loaded: {reasons}")

        self._together(read, failed)
        return state, tensors

    def load_runs(self, path: Path, stems: Sequence[str], wanted: Sequence[Run]) -> dict[str, dict[str, Tensor]]:
        """Read this rank's runs of every parameter, by whatever ranks they were written: see reshard.py.

        Args:
            path: from `latest()`. stems: which kinds of file. wanted: one run for each parameter.

        Returns:
            Stem -> name -> (length,), on the CPU.

        Raises:
            CheckpointError: damaged; on all ranks.
        """
        tensors: dict[str, dict[str, Tensor]] = {}

        def read() -> None:
            try:
                manifest = read_manifest(path)
                for stem in stems:
                    tensors[stem] = read_runs(path, entries_of(manifest, stem), wanted)
            except Damaged as damage:
                raise CheckpointError(str(damage)) from damage

        self._together(read, lambda reasons: CheckpointError(f"checkpoint {path} cannot be loaded: {reasons}"))
        return tensors

    def _newest_with_manifest(self) -> dict[str, Any] | None:
        for path in committed(self.folder):
            try:
                return {"name": path.name, "manifest": read_manifest(path)}
            except OSError as error:
                raise _unread(error) from error
            except Damaged as damage:
                condemn(path, str(damage))
        if bad := corrupt(self.folder):
            raise CheckpointError(
                f"no valid checkpoint is left in {self.folder}: {', '.join(path.name for path in bad)}. "
                "To train from the beginning, give another output_dir.",
                NO_VALID_CHECKPOINT,
            )
        return None

    def _together(self, action: Callable[[], Any], failed: Callable[[str], Exception]) -> list[Any]:
        """Run `action` on every rank and give every rank all results; what fails on one rank raises on all.

        An OSError anywhere becomes `failed(reasons)`; a CheckpointError keeps its exit code; any other exception is a
        bug: it is raised as it is where it happened and as RuntimeError elsewhere.
        """
        error: Exception | None = None
        report: dict[str, Any] = {"value": None, "reason": None}
        try:
            report["value"] = action()
        except Exception as caught:
            error = caught
            kind = next((kind for kind in (OSError, CheckpointError) if isinstance(caught, kind)), Exception)
            reason = f"{type(caught).__name__}: {caught}" if kind is Exception else str(caught)
            where = f"rank {self.rank} on {socket.gethostname()}: " if self.world_size > 1 else ""
            report |= {"reason": where + reason, "kind": kind.__name__, "exit_code": getattr(caught, "exit_code", 1)}
        reports = self._gather(report)
        bad = [report for report in reports if report["reason"] is not None]
        if not bad:
            return [report["value"] for report in reports]
        if any(report["kind"] == "Exception" for report in bad):
            raise error or RuntimeError("; ".join(report["reason"] for report in bad))
        if all(report["kind"] == "CheckpointError" for report in bad) and bad[0]["exit_code"] == NO_VALID_CHECKPOINT:
            raise CheckpointError(bad[0]["reason"], NO_VALID_CHECKPOINT) from error
        raise failed("; ".join(report["reason"] for report in bad)) from error


def _unread(error: OSError) -> CheckpointError:
    return CheckpointError(f"{error}. That is no damage, and it keeps its name: start again when the storage answers")
