"""The run on Weights & Biases, beside `metrics.jsonl`: the same numbers, once each, over all restarts of a run."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distcls.tracking.bounded import within
from distcls.tracking.jsonl import read_rows, strict
from distcls.tracking.redact import redact
from distcls.tracking.tracker import Row, Status, kind_of
from distcls.tracking.wandb_access import Mode, first_line, wanted_mode
from distcls.tracking.wandb_file import history
from distcls.tracking.wandb_pictures import pictures
from distcls.tracking.wandb_service import close_service, end_service, redacted_argv

INIT_SECONDS = 30.0  # wandb waits up to twice as long for an online run
UPLOAD_SECONDS = 120.0  # for the rest of an upload at the end of a run
# Until the run is left to `wandb sync`: the upload's bound is wandb's own, the others fit into a grace period.
FINISH_SECONDS: Mapping[Status, float] = {"finished": UPLOAD_SECONDS + 10, "preempted": 6.0, "failed": 20.0}
EXIT_CODES: Mapping[Status, int] = {"finished": 0, "preempted": 128 + signal.SIGTERM, "failed": 1}
PROGRESS = ("samples", "epoch", "step")


class WandbTracker:
    """One W&B run, gone on with under the same id by every attempt; on rank 0, and not at all for `mode: disabled`.

    Every row becomes one committed history row with the x axes ``progress/samples`` (the default: it does not change
    with batch size or number of GPUs), ``progress/epoch`` and ``progress/step``; wandb's own step is left alone, as it
    loses rows that come out of order. ``best/*`` goes to the summary too: wandb's own maximum starts anew with every
    attempt.

    What wandb has been given is read from its own files: rows that a restart from a checkpoint makes again are not
    logged again, and rows that a kill kept from it (its service writes every 2 s, and dies of the SIGTERM that SLURM
    sends to all processes of a job) are added from `metrics.jsonl` by the next attempt, or when the run closes.

    Args:
        run_folder: wandb's files go to its `wandb/`; its `metrics.jsonl` has the rows of earlier attempts.
        run_id: the id that all attempts share.
        mode: ``offline`` writes files for a later `wandb sync`; ``online`` insists on an API key; ``auto`` is online if
            there is a key and the server answers, else offline, unless the environment variable WANDB_MODE decides.
        project, entity, name, group, tags, notes: as W&B shows them.
        config: the recipe and other facts; secrets are redacted.
        note: called with the line that says where the run is, and with one if wandb's service dies.

    Raises:
        UserError: mode ``online`` without an API key.
    """

    def __init__(
        self,
        run_folder: Path,
        run_id: str,
        *,
        mode: Mode = "auto",
        project: str = "distcls",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        config: Mapping[str, Any] | None = None,
        note: Callable[[str], None] = print,
    ) -> None:
        self.run_folder, self.mode, self.note = run_folder, mode, note
        self._labels = {
            "id": run_id,
            "project": project,
            "entity": entity,
            "name": name,
            "group": group,
            "tags": list(tags),
            "notes": notes,
            "config": redact(strict(config or {})),
        }
        self._folder = run_folder / "wandb"
        self._folder.mkdir(parents=True, exist_ok=True)
        for variable in ("WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR", "WANDB_CACHE_DIR"):  # else under the home folder
            os.environ.setdefault(variable, str(self._folder.resolve() / "cache"))
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb's own crash reports
        os.environ.setdefault("WANDB_SILENT", "true")  # the setting of that name comes too late for some messages
        self._left = False
        self._open()

    def log(self, row: Row) -> None:
        self._try(lambda: self._send(row, history=_key(row) not in self._earlier))

    def event(self, kind: str, **fields: Any) -> None:
        """The latest event of each kind stands in the run's summary."""
        self._try(lambda: self.run.summary.update({f"event/{kind}": redact(strict(fields))}))

    def predictions(self, row: Row, content: Mapping[str, Any]) -> None:
        """Images, tables and the confusion picture of the last evaluation, in a history row of their own."""
        at = {"progress/samples": row["samples"]}  # no step: it is not one of metrics.jsonl's rows
        self._try(lambda: self.run.log({**at, **pictures(self.run_folder, content)}))

    def finish(self, status: Status, message: str | None = None) -> None:
        """Close the run: W&B shows it as finished, preempted (it goes on) or failed.

        Raises:
            TimeoutError: it was not all uploaded in time; the rest is on disk.
        """
        try:
            within(FINISH_SECONDS[status], lambda: self._close(status, message))
        except TimeoutError:
            self._left = True
            end_service()
            rest = f"wandb sync {Path(self.run.dir).parent}"
            raise TimeoutError(f"not everything was uploaded in time. To upload the rest: {rest}") from None

    def _open(self) -> None:
        """Start or go on with the run, and give it the earlier rows that it lacks."""
        given, earlier = self._given(), read_rows(self.run_folder)
        mode, why = wanted_mode(self.mode)
        if mode == "online":
            try:
                self.run = self._init(mode)
                self.note(f"W&B: {self.run.url}")
            except Exception as error:  # a key that the server refuses, a server that stopped answering
                mode, why = "offline", f"{type(error).__name__}: {first_line(error)}"
                end_service()  # which holds the run's id
        if mode != "online":
            self.run = self._init(mode)
            self.note(f"W&B: {mode} ({why}). To upload it later: wandb sync {self._folder}/offline-run-*")
        self._broken = False
        for axis in PROGRESS:
            self.run.define_metric(f"progress/{axis}")
        self.run.define_metric("*", step_metric="progress/samples")
        self._earlier = {_key(row) for row in earlier}
        for row in earlier:
            self._send(row, history=given is not None and _key(row) not in given)

    def _init(self, mode: str) -> Any:
        import wandb  # takes half a second, and reads the environment

        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            init_timeout=INIT_SECONDS,
            finish_timeout=UPLOAD_SECONDS,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=2,  # seconds; 15 by default
        )
        with redacted_argv():
            return wandb.init(
                **self._labels,
                mode=mode,  # type: ignore[arg-type]
                dir=self.run_folder,
                resume="allow",
                allow_val_change=True,
                save_code=False,
                settings=settings,
            )

    def _given(self) -> set[tuple[int, str]] | None:
        """Step and kind of all rows that wandb has on disk; None if that is not known."""
        files = list(self._folder.glob("*run-*/*.wandb"))
        try:
            rows = [row for file in files for row in history(file)]
        except ValueError as error:
            self.note(f"W&B: {error}: rows of earlier attempts that it lacks are not added")
            return None
        # No file at all: never logged, or uploaded and cleared away. Twice would be worse than not at all.
        return (
            {_key({**row, "step": row["progress/step"]}) for row in rows if "progress/step" in row} if files else None
        )

    def _send(self, row: Row, history: bool) -> None:
        metrics = {name: value for name, value in row.items() if "/" in name}
        if best := {name: value for name, value in metrics.items() if name.startswith("best/")}:
            self.run.summary.update(best)
        if history:
            self.run.log({**{f"progress/{axis}": row[axis] for axis in PROGRESS}, **metrics})

    def _try(self, call: Callable[[], None]) -> None:
        """`call`, unless wandb's service is gone: then the rows wait in `metrics.jsonl` until the run closes."""
        if self._broken:
            return
        try:
            call()
        except TimeoutError:
            raise
        except Exception as error:
            if self._left:  # `finish` waits no longer, and has ended the service itself
                raise
            self._broken = True
            self.note(f"W&B: its service is gone ({type(error).__name__}): the rest is added when the run closes")

    def _close(self, status: Status, message: str | None) -> None:
        self._try(lambda: self._end(status, message))
        if self._broken:
            end_service()
            self._open()
            self._end(status, message)

    def _end(self, status: Status, message: str | None) -> None:
        if message:
            self.run.summary.update({"message": redact(message)})
        if status == "preempted":
            self.run.mark_preempting()
        self.run.finish(exit_code=EXIT_CODES[status])
        close_service()


def _key(row: Row) -> tuple[int, str]:
    return row["step"], kind_of({name: None for name in row if not name.startswith("progress/")})
