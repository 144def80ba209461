"""The folder of one run: whose it is, who works in it, how its attempts ended. Rank 0's alone; imports no torch.

`run.json` is what batch scripts read: `status` is running, preempted, finished or failed. An attempt that was killed
could not say so: a SLURM batch script notes `killed`, or `cancelled`, and without one the next attempt finds `running`
behind a free lock.
"""

import contextlib
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from distcls.engine.records.durable_file import replace_file
from distcls.engine.records.run_lock import RunLock
from distcls.engine.records.same_run import SECTIONS, allowed_changes, differences, plain, show
from distcls.engine.records.versions import installed_versions
from distcls.errors import UserError

Status = Literal["running", "preempted", "finished", "failed", "killed", "cancelled"]


@dataclass(frozen=True)
class Start:
    """What an attempt starts from.

    Attributes:
        run_id: made by the first attempt, 8 hex digits; and by the first in a copy of the folder.
        attempt: 1 for the first.
        finished: there is nothing left to do; `message` says so. No attempt was added.
        changed: key -> [before, now] of what differs from the attempt before, for an event: free and allowed recipe
            keys, `data.train (content)`, `world_size`, `threads`, `versions.*`.
        allowed: those of them that only `checkpoint.allow_changes` let through.
        copied_from: the folder of the run that this one was until this attempt: the folder is a copy, and both are
            there. Under one id they would be one run on W&B.
    """

    run_id: str
    attempt: int
    finished: bool = False
    message: str | None = None
    changed: dict[str, list[Any]] = field(default_factory=dict)
    allowed: list[str] = field(default_factory=list)
    copied_from: str | None = None

    def notes(self) -> list[str]:
        """What a person should know about the changes."""
        lines = [f"{key}: was {show(self.changed[key][0])}, is {show(self.changed[key][1])}" for key in self.allowed]
        if "train.accumulation_steps" in self.changed:
            was, now = self.changed["train.accumulation_steps"]
            lines.append(
                f"train.accumulation_steps: was {was}, is {now}: the same batches, but BatchNorm and dropout see "
                "micro-batches of another size"
            )
        return lines


class RunFolder:
    """A run's `output_dir`.

    Only one live process works in it, from `begin` to `close`: see run_lock.py.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.weights = self.path / "weights"
        self.stop_file = self.path / "stop"
        self._run_file = self.path / "run.json"
        self._lock = RunLock(self.path)

    def begin(
        self,
        recipe: Mapping[str, Any],
        *,
        recipe_yaml: str,
        fingerprints: Mapping[str, str],
        world_size: int,
        threads: int,
        versions: Mapping[str, str] | None = None,
        resume: Literal["auto", "never", "must"] = "auto",
        allow_changes: Sequence[str] = (),
        refill: Callable[[dict[str, Any]], dict[str, Any]] = lambda recorded: recorded,
        wait_s: float = 10.0,
    ) -> Start:
        """Take the folder for this process and add an attempt to its run.

        Args:
            recipe: the resolved recipe, JSON-able.
            recipe_yaml: the same as text, for `recipe.yaml`; written at first, and when it changes.
            fingerprints: of the data sets: `{"data.train": ..., "data.val": ...}`.
            world_size: ranks. threads: per rank.
            versions: recorded beside those of packages.
            resume, allow_changes: of the recipe's `checkpoint`.
            refill: gives a recorded recipe the defaults of keys that are newer than it.
            wait_s: how long to wait for another process to leave: a preempted run may be saving still.

        Raises:
            UserError: the folder is in use, holds another recipe's run, or is not what `resume` asks for.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.take(wait_s)
            facts = {
                "world_size": world_size,
                "threads": threads,
                "versions": installed_versions() | dict(versions or {}),
            }
            new = json.loads(json.dumps(recipe))
            run = self.read()
            if run is not None:
                run["recipe"] = json.loads(json.dumps(refill(run["recipe"])))
            return self._begin(run, new, recipe_yaml, dict(fingerprints), facts, resume, allow_changes)
        except OSError as error:
            self.close()
            raise UserError(f"output_dir {self.path} cannot be used: {error.strerror} ({error.filename})") from error
        except UserError:
            self.close()
            raise

    def end(self, status: Status, message: str | None = None, exit_code: int | None = None) -> None:
        """Say how this attempt ended; the lock stays until `close`."""
        run = self.read()
        assert run is not None
        said = {"message": message, "exit_code": exit_code}
        run["status"] = status
        run["attempts"][-1] |= {"status": status, "ended": _now(), **{key: one for key, one in said.items() if one}}
        self._write(run)

    def note_end(self, status: Status, message: str) -> None:
        """Say it for an attempt that could not. While a live process has the folder, nothing is changed."""
        with contextlib.suppress(UserError):
            self._lock.take(1.0)
            try:
                self.end(status, message)
            finally:
                self.close()

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint by its name, whole or damaged; None if there is none."""
        names = [path.name for path in self.checkpoints.iterdir()] if self.checkpoints.is_dir() else []
        return max((int(name[5:]) for name in names if re.fullmatch(r"step_\d+", name)), default=None)

    def end_for_rank_zero(self, attempt: int, message: str) -> None:
        """The lowest rank that lives says how `attempt` ended, unless rank 0 could or another attempt has begun."""
        run = self.read()
        if run is not None and run["status"] == "running" and len(run["attempts"]) == attempt:
            self.end("failed", message)

    def close(self) -> None:
        """Give the folder free."""
        self._lock.release()

    def _begin(
        self,
        run: dict[str, Any] | None,
        recipe: dict[str, Any],
        recipe_yaml: str,
        fingerprints: dict[str, str],
        facts: dict[str, Any],
        resume: str,
        allow_changes: Sequence[str],
    ) -> Start:
        has_checkpoint = self.checkpoints.is_dir() and any(
            re.match(r"(\.replaced_)?step_\d+", path.name) for path in self.checkpoints.iterdir()
        )
        if resume == "never" and (run or has_checkpoint):
            status = f" (status {run['status']})" if run else ""
            raise UserError(
                f"output_dir {self.path} already holds a run{status} and checkpoint.resume is never: "
                "give another output_dir, or go on with it by checkpoint.resume=auto"
            )
        if run is None and has_checkpoint:
            raise UserError(
                f"output_dir {self.path} holds checkpoints but no run.json, so nothing says which recipe they "
                "belong to: give another output_dir"
            )
        allowed: dict[str, list[Any]] = {}
        if run is not None:
            rows = self.path / "metrics.jsonl"
            if not has_checkpoint and not (rows.exists() and rows.stat().st_size):
                allow_changes = SECTIONS  # it ended before its first row: nothing of another recipe is here
            allowed = allowed_changes(self.path, run, recipe, fingerprints, allow_changes)
            if run["status"] == "finished" and not allowed:
                text = f"the run in {self.path} is finished; to train again, give another output_dir"
                return Start(run["run_id"], len(run["attempts"]), finished=True, message=text)
        if resume == "must" and not has_checkpoint:
            raise UserError(f"checkpoint.resume is must, but there is no checkpoint in {self.checkpoints}")

        now = _now()
        attempt = {"status": "running", "started": now, "host": socket.gethostname(), "pid": os.getpid()}
        attempt |= {**facts, "from_step": self.newest_step(), **_slurm_job()}
        changed: dict[str, list[Any]] = {}
        copied_from: str | None = None
        if run is None:
            run = {"run_id": secrets.token_hex(4), "created": now, "attempts": []}
        else:
            copied_from = self._original(run)
            if copied_from is not None:
                run |= {"run_id": secrets.token_hex(4), "copied_from": copied_from}
            before = run["attempts"][-1]
            if before["status"] == "running":
                before["status"] = "killed"
            old = {**run["recipe"], **{key: before[key] for key in facts}}
            new = {**recipe, **facts}
            changed = {key: plain(was, now) for key, was, now in differences(old, new)} | allowed
        run |= {"status": "running", "folder": str(self.path.resolve()), "fingerprints": fingerprints, "recipe": recipe}
        run["attempts"].append(attempt)
        if allowed or not (self.path / "recipe.yaml").exists():
            replace_file(self.path / "recipe.yaml", recipe_yaml.encode())
        self._write(run)
        number = len(run["attempts"])
        return Start(run["run_id"], number, changed=changed, allowed=list(allowed), copied_from=copied_from)

    def _original(self, run: Mapping[str, Any]) -> str | None:
        """Where the folder lies that this one is a copy of; None if it was moved, or the other one is gone."""
        recorded = Path(run.get("folder", self.path))  # an earlier version wrote none
        try:
            there = json.loads((recorded / "run.json").read_bytes())
            copied = there["run_id"] == run["run_id"] and not recorded.samefile(self.path)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return str(recorded) if copied else None

    def read(self) -> dict[str, Any] | None:
        """What run.json says; None if there is none yet."""
        try:
            run = json.loads(self._run_file.read_bytes())
            if not isinstance(run, dict) or "recipe" not in run:
                raise ValueError("it holds no run")
            return run
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self._run_file} is damaged ({error}): mend it, or give another output_dir") from error

    def _write(self, run: dict[str, Any]) -> None:
        replace_file(self._run_file, json.dumps(run, indent=1).encode() + b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _slurm_job() -> dict[str, Any]:
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    return {"job": os.environ["SLURM_JOB_ID"], "restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0)}
