"""Checkpoints that survive a kill at any moment: every rank writes, rank 0 commits, all agree.

If one rank fails, all ranks fail: each phase ends with a gather of all errors instead of a barrier, so that no rank
waits for one that gave up. `latest` reads and verifies what is on the disk; no pointer file can become stale.
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
        keep: number of newest checkpoints to keep, at least 2; the newest saved with `best=True` is kept as well.
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
        """Write and commit one checkpoint; when this returns, it survives a kill and a power failure.

        Args:
            step: optimizer steps; an existing checkpoint of the same step is replaced safely.
            tensors: this rank's files: file stem -> tensors by name.
            state: the rest of the state, JSON-able; that of rank 0 is written. `epoch` and `samples` are repeated at
                the top of the manifest.
            best: keep this checkpoint until a newer one is best.

        Raises:
            SaveFailed: a disk error on any rank; raised on all ranks. Earlier checkpoints are untouched.
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
                head = {key: state.get(key) for key in ("epoch", "samples")}
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
        """The newest checkpoint whose files all match their hashes, or None for a run without checkpoints.

        Deletes what killed runs left behind first. Each rank verifies a share of the files. A damaged checkpoint is
        renamed to `step_N.corrupt` with a warning, and the one before it is tried. A checkpoint that cannot be read is
        not damaged: it is neither renamed nor passed over for an older one.

        Raises:
            CheckpointError: there are checkpoints but none is valid (`exit_code` 76), or they cannot be read.
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
                    # The rank that wrote it may still have it in its page cache.
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
        """Read the files of one rank into CPU memory and verify their hashes again.

        Args:
            path: from `latest()`.
            rank: whose files to read; None: this rank's own, which requires the number of ranks that wrote them.
            stems: which files; None: all.

        Returns:
            The state of `save`, and file stem -> tensors by name (row-major; values and dtypes exact).

        Raises:
            CheckpointError: it is damaged, or was written by another number of ranks; raised on all ranks.
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
        """Read this rank's run of every parameter, whichever ranks wrote it, see reshard.py.

        Args:
            path: from `latest()`.
            stems: which kinds of file.
            wanted: one run for each parameter.

        Returns:
            Stem -> name -> (length,), on the CPU.

        Raises:
            CheckpointError: it is damaged; raised on all ranks.
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
        """Run `action` on every rank and return all results on every rank; an error on one rank raises on all.

        An OSError on any rank becomes `failed(reasons)`; a CheckpointError keeps its exit code. Any other exception is
        a bug: it is raised unchanged where it happened, and as RuntimeError elsewhere.
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
