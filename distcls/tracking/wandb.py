"""The run on Weights & Biases, beside `metrics.jsonl`: the same numbers, once each, over all restarts of a run."""

import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distcls.errors import ArgumentError, first_line
from distcls.tracking.bounded import Overdue, within
from distcls.tracking.jsonl import read_rows, strict
from distcls.tracking.redact import redact
from distcls.tracking.tracker import Row, Status, kind_of
from distcls.tracking.wandb_access import Mode, wanted_mode
from distcls.tracking.wandb_file import history
from distcls.tracking.wandb_pictures import pictures
from distcls.tracking.wandb_service import close_service, end_service, kill_service, redacted_argv

INIT_SECONDS = 30.0  # wandb waits up to twice as long for an online run
ANSWER_SECONDS = 20.0  # of wandb's service: a row takes a millisecond
PICTURES_SECONDS = 120.0
UPLOAD_SECONDS = 120.0  # for the rest of an upload at the end of a run
# Until the run is left to `wandb sync`: the upload's bound is wandb's own, the others fit into a grace period.
FINISH_SECONDS: Mapping[Status, float] = {"finished": UPLOAD_SECONDS + 10, "preempted": 6.0, "failed": 20.0}
EXIT_CODES: Mapping[Status, int] = {"finished": 0, "preempted": 128 + signal.SIGTERM, "failed": 1}
LEFT = "left_unfinished"  # beside an online run's file of which the server may lack the end
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
        required: what cannot be had as `mode` says is an error; ``auto`` then insists on an online run.
        project, entity, name, group, tags, notes: as W&B shows them.
        config: the recipe and other facts; secrets are redacted.
        tables: images in the table of the worst predictions; 0: no tables and pictures.
        artifact: ``best`` or ``last``: the weights that a finished run uploads as a model.
        code: the run shows the run folder's `code*.diff`, which hold no secrets, among its files.
        anew: the id is a new one, which gets all rows of `metrics.jsonl`.
        note: called with the line that says where the run is, and with one if wandb's service dies.

    Raises:
        UserError: mode ``online`` without an API key, or `required` and out of reach.
    """

    def __init__(
        self,
        run_folder: Path,
        run_id: str,
        *,
        mode: Mode = "auto",
        required: bool = False,
        project: str = "distcls",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        config: Mapping[str, Any] | None = None,
        tables: int = 64,
        artifact: str | None = None,
        code: bool = True,
        anew: bool = False,
        note: Callable[[str], None] = print,
    ) -> None:
        self.run_folder, self.mode, self.required, self.note = run_folder, mode, required, note
        self._tables, self._artifact, self._code, self._anew = tables, artifact, code, anew
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
        self._earlier: set[tuple[int, str]] = set()  # step and kind of the rows that W&B has, or had a chance to get
        self._open()

    def log(self, row: Row) -> None:
        self._try(lambda: self._send(row, history=_key(row) not in self._earlier))

    def event(self, kind: str, **fields: Any) -> None:
        """The latest event of each kind stands in the run's summary."""
        if kind == "resumed" and fields.get("allowed"):  # the steps from there on come with other numbers
            self._earlier = {key for key in self._earlier if key[0] <= fields["step"]}
        self._try(lambda: self.run.summary.update({f"event/{kind}": redact(strict(fields))}))

    def predictions(self, row: Row, content: Mapping[str, Any]) -> None:
        """Images, tables and the confusion picture of the last evaluation, in a history row of their own."""
        if not self._tables:
            return
        content = {**content, "worst": content["worst"][: self._tables]}
        at = {"progress/samples": row["samples"]}  # no step: it is not one of metrics.jsonl's rows
        self._try(lambda: self.run.log({**at, **pictures(self.run_folder, content)}), PICTURES_SECONDS)

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
            (Path(self.run.dir).parent / LEFT).touch()
            rest = f"distcls track sync {self.run_folder}"
            raise TimeoutError(f"not everything was uploaded in time. To upload the rest: {rest}") from None

    def _open(self) -> None:
        """Start or go on with the run, and give it the earlier rows that it lacks."""
        earlier = read_rows(self.run_folder, repeated=True)
        mode, why = wanted_mode(self.mode)
        if mode == "online":
            try:
                self.run = self._init(mode)
                self.note(f"W&B: {self.run.url}")
            except Exception as error:  # a key that the server refuses, a server that stopped answering
                mode, why = "offline", f"{type(error).__name__}: {first_line(error)}"
                end_service()  # which holds the run's id
        if mode != "online":
            if self.required and self.mode != "offline":
                raise ArgumentError(
                    "tracking.required",
                    f"no W&B run: {why}. Mend that, or take tracking.mode=offline (files for a "
                    "later `distcls track sync`) or tracking.required=false",
                )
            self.run = self._init(mode)
            later = f". To upload it later: distcls track sync {self.run_folder}" if mode == "offline" else ""
            self.note(f"W&B: {mode} ({why}){later}")
        self._broken = False
        for axis in PROGRESS:
            self.run.define_metric(f"progress/{axis}")
        self.run.define_metric("*", step_metric="progress/samples")
        for file in sorted(self.run_folder.glob("code*.diff")) if self._code else []:
            self.run.save(str(file), base_path=str(self.run_folder), policy="now")
        given = set() if self._anew else self._given(online=mode == "online")
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

    def _given(self, online: bool) -> set[tuple[int, str]] | None:
        """Step and kind of all rows that wandb has; None if that is not known.

        Its files hold what it was given. Of that an online run's server may lack the end, which a kill kept back:
        everything from the row on at which the server lets the run go on.
        """
        files = [file for file in self._folder.glob("*run-*/*.wandb") if file.parent != Path(self.run.dir).parent]
        arrived = self.run.starting_step if online else math.inf
        try:
            rows = [
                row
                for file in files
                for row in history(file)
                if file.parent.name.startswith("offline-") or row.get("_step", 0) < arrived
            ]
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

    def _try(self, call: Callable[[], None], seconds: float | None = None) -> None:
        """`call`, unless wandb's service is gone or hangs: then the rows wait in `metrics.jsonl` until the run closes.

        A service that cannot write, because its disk hangs, takes what fits into a socket; then `log` would wait for it
        for ever.
        """
        if self._broken:
            return
        seconds = ANSWER_SECONDS if seconds is None else seconds
        try:
            within(seconds, call)
        except Overdue:
            self._broken = True
            kill_service()
            self.note(f"W&B: no answer from its service in {seconds:g} s: the rest is added when the run closes")
        except TimeoutError:
            raise
        except Exception as error:
            if self._left:  # `finish` waits no longer, and has ended the service itself
                raise
            self._broken = True
            self.note(f"W&B: its service is gone ({type(error).__name__}): the rest is added when the run closes")

    def _close(self, status: Status, message: str | None) -> None:
        self._try(lambda: self._end(status, message), math.inf)
        if self._broken:
            end_service()
            self._open()
            self._end(status, message)

    def _end(self, status: Status, message: str | None) -> None:
        if message:
            self.run.summary.update({"message": redact(message)})
        if status == "preempted":
            self.run.mark_preempting()
        if status == "finished" and self._artifact is not None:
            self._upload(self._artifact)
        self.run.finish(exit_code=EXIT_CODES[status])
        close_service()

    def _upload(self, which: str) -> None:
        """The weights as a model artifact, taken from where they lie: nothing is copied first."""
        import wandb

        file = self.run_folder / "weights" / f"{which}.safetensors"
        if not file.exists():
            self.note(f"W&B: no artifact: {file} is not there")
            return
        artifact = wandb.Artifact(f"{self._labels['name'] or self._labels['id']}-weights", type="model")
        artifact.add_file(str(file), policy="immutable")
        self.run.log_artifact(artifact, aliases=[which])


def _key(row: Row) -> tuple[int, str]:
    return row["step"], kind_of({name: None for name in row if not name.startswith("progress/")})
