"""The results of finished runs of a recipe, kept in a file, and the band in which its further runs should lie."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from distcls.engine.records.durable_file import replace_file
from distcls.engine.records.run_folder import RunFolder
from distcls.engine.records.same_run import FREE, SECTIONS, differences, show
from distcls.errors import UserError
from distcls.recipe.refill import refilled
from distcls.tracking.jsonl import read_events, read_rows
from distcls.tracking.run_record import read_run

CURVES = ("val/top1", "val_ema/top1")
# Keys in which measured runs may differ: besides FREE, the seed, whose spread is measured, and what only affects speed.
OPEN = FREE | {"train.seed", "train.compile", "train.cuda_graphs", "train.channels_last", "data.gpu_decode_share"}
#: Two-sided 99% quantiles of Student's t for 1, 2, ... degrees of freedom; the last one also stands for more.
T99 = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169)


@dataclass(frozen=True)
class MeasuredRun:
    """One run: `curves` are (epoch, value) by metric, `seconds` the working time of all attempts up to the last row."""

    seed: int
    date: str
    seconds: float | None
    hardware: str
    versions: dict[str, str]
    commit: str | None
    curves: dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Band:
    """99% prediction interval for a further run at one epoch, for normally distributed runs: mean +- t s sqrt(1 + 1/n).

    It is clipped to 0 ... 1; `deviation` is s.
    """

    metric: str
    epoch: float
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class MeasuredRuns:
    """Runs of one recipe that differ at most in the keys of `OPEN`.

    Attributes:
        recipe: the resolved sections that must be equal, see `sections`.
        fingerprints: of the data sets.
    """

    name: str
    recipe: dict[str, Any]
    fingerprints: dict[str, str]
    runs: list[MeasuredRun]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Self:
        """Read the results of finished run folders.

        Raises:
            UserError: one is not a run folder, is not finished, belongs to another recipe, or repeats a seed.
        """
        records = [finished(folder) for folder in folders]
        first = records[0]
        made = cls(first["recipe"]["name"], sections(first["recipe"]), first["fingerprints"], [])
        for folder, record in zip(folders, records, strict=True):
            made.refuse_another_recipe(folder, record["recipe"])
            run = _measured(folder, record)
            if any(run.seed == other.seed for other in made.runs):
                raise UserError(f"{folder}: train.seed {run.seed} is there already: give runs of different seeds")
            made.runs.append(run)
        return made

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file written by `write`.

        Raises:
            UserError: the file does not exist, cannot be read, or was not written by `write`.
        """
        try:
            content = json.loads(path.read_bytes())
            runs = [MeasuredRun(**run) for run in content.pop("runs")]
            return cls(**content, runs=runs)
        except FileNotFoundError as error:
            raise UserError(
                f"no measured runs of {path.stem}: there is no file {path}: write it by `distcls recipe record RUN RUN "
                f"-o {path}` from finished runs of two seeds or more, or name another with --against"
            ) from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} holds no measured runs ({error}): write it by `distcls recipe record`") from error

    def write(self, path: Path) -> None:
        """Write the runs as JSON, for `read`; creates the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(asdict(self), indent=1).encode() + b"\n")

    def refuse_another_recipe(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """Check that a run trained with the same settings as these runs, except for those in `OPEN`.

        Args:
            folder: of the run; its events show changes during the run.
            recipe: of the run, resolved.

        Raises:
            UserError: the settings differ, or changed during the run.
        """
        lines = [
            f"  {key}: {show(was)} measured, {show(is_)} in the run"
            for key, was, is_ in differences(sections(refilled(self.recipe)), sections(refilled(recipe)))
            if key not in OPEN
        ]
        lines += [
            f"  {key}: changed after step {event['step']} (checkpoint.allow_changes)"
            for event in read_events(folder)
            if event["kind"] == "resumed" and event["step"] > 0
            for key in event.get("allowed", ())
            if key not in OPEN
        ]
        if lines:
            last = "expected the same settings; seed, paths and workers may differ, and what only changes speed"
            raise UserError("\n".join([f"{folder} is not a run of {self.name} as it was measured:", *lines, last]))

    def bands(self) -> list[Band]:
        """The band of each metric at every epoch that all runs evaluated.

        Raises:
            UserError: there is only one run, which shows no spread; or there is no such epoch.
        """
        if len(self.runs) < 2:
            raise UserError(
                f"{self.name} was measured once, which says nothing about the spread: record 2 runs or more"
            )
        width = T99[min(len(self.runs) - 1, len(T99)) - 1] * math.sqrt(1 + 1 / len(self.runs))
        bands = []
        for metric in CURVES:
            curves = [dict(run.curves.get(metric, ())) for run in self.runs]
            for epoch in sorted(set.intersection(*map(set, curves))):
                values = [curve[epoch] for curve in curves]
                mean, deviation = statistics.fmean(values), statistics.stdev(values)
                low, high = max(0.0, mean - width * deviation), min(1.0, mean + width * deviation)
                bands.append(Band(metric, epoch, mean, deviation, low, high))
        if not bands:
            raise UserError(f"the measured runs of {self.name} share no epoch at which they were evaluated")
        return bands


def sections(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a recipe that determine a run's results, and `eval.tta`, which determines its evaluation."""
    found = {key: recipe[key] for key in SECTIONS if key in recipe}
    return found | {"eval": {"tta": recipe.get("eval", {}).get("tta")}}


def read_record(folder: Path) -> dict[str, Any]:
    """The content of a run folder's run.json.

    Raises:
        UserError: `folder` is not a run folder.
    """
    record = RunFolder(folder).read() if folder.is_dir() else None
    if record is None:
        raise UserError(f"{folder} is not a run folder: it has no run.json")
    return record


def finished(folder: Path) -> dict[str, Any]:
    """The content of a finished run's run.json.

    Raises:
        UserError: the run is not finished, or `folder` is not a run folder.
    """
    record = read_record(folder)
    if record["status"] != "finished":
        raise UserError(f"{folder}: the run is {record['status']}: only finished runs are recorded")
    return record


def read_curves(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Metric -> (epoch, value) of every evaluation so far."""
    rows = read_rows(folder)
    curves = {name: [(row["epoch"], row[name]) for row in rows if name in row] for name in CURVES}
    return {name: curve for name, curve in curves.items() if curve}


def _measured(folder: Path, record: Mapping[str, Any]) -> MeasuredRun:
    last, rows = record["attempts"][-1], read_run(folder).rows
    file = folder / "environment.json"
    place = json.loads(file.read_bytes())[str(len(record["attempts"]))] if file.exists() else {}
    devices = place.get("devices", [])
    cores = f" with {place['cores']} cores" if "cores" in place else ""
    return MeasuredRun(
        seed=record["recipe"]["train"]["seed"],
        date=last["ended"][:10],
        seconds=rows[-1]["elapsed"] if rows else None,
        hardware=f"{len(devices)} x {devices[0]}{cores}" if devices else "unknown",
        versions={name: last["versions"][name] for name in ("python", "torch", "distcls") if name in last["versions"]},
        commit=next((one["commit"] for one in place.get("code", [])), None),
        curves=read_curves(folder),
    )
