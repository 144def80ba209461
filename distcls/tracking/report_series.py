"""The data of the report's diagrams: the panels, and each run's lines, reduced to what a screen can show."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from distcls.tracking.run_record import AXES, RunRecord
from distcls.tracking.tracker import kind_of

POINTS = 1500  # per line: more than a screen has


class Panel(NamedTuple):
    """One diagram: `form` names a format of page/report.js; `zero` starts the y axis there.

    The form ``stack`` puts the metrics on top of each other, for the run of number `run`.
    """

    title: str
    metrics: tuple[str, ...]
    form: str
    zero: bool = False
    wide: bool = False
    run: int = 0
    colors: tuple[int, ...] = ()  # of the metrics; else by their order


# Of engine/performance, with their colours.
PHASES = {"compute": 0, "data": 1, "copy": 5, "communication": 3, "evaluation": 2, "checkpoint": 4}
SHARES = "perf/share_"
PANELS = (
    Panel("Loss", ("train/loss", "val/loss", "val_ema/loss"), "loss", wide=True),
    Panel("Top-1 accuracy", ("train/top1", "val/top1", "val_ema/top1"), "percent", wide=True),
    Panel("Learning rate", ("optim/lr",), "rate", zero=True),
    Panel("Gradient norm", ("optim/grad_norm",), "number", zero=True),
    Panel("Images per second", ("perf/img_per_s",), "number", zero=True),
    Panel("Time spent waiting for data", ("perf/data_wait_frac",), "percent", zero=True),
    Panel("Model FLOPs utilisation", ("perf/mfu",), "percent", zero=True),
    Panel("GPU utilisation", ("perf/gpu_util",), "percent", zero=True),
    Panel("GPU memory in GiB", ("perf/mem_gb",), "number", zero=True),
    Panel("Host memory in GiB", ("perf/rss_gb",), "number", zero=True),
    Panel("Seconds per evaluation", ("perf/eval_s",), "number", zero=True),
    Panel("Seconds lost to checkpoints", ("perf/checkpoint_stall_s",), "number", zero=True),
    Panel("Loss scale", ("optim/loss_scale",), "number", zero=True),
)
# Shown in tables, or the same as images per second.
NOT_DRAWN = ("best/", "val/n", "perf/step_ms", "perf/img_per_s_per_gpu")
GROUPS = ("train", "val", "val_ema")


def panels_of(runs: Sequence[RunRecord]) -> list[Panel]:
    """The panels and their metrics that have data, followed by one panel for each other metric."""
    found = dict.fromkeys(name for run in runs for row in run.rows for name in row if "/" in name)
    stacks = [
        Panel(
            "Where the time goes" + (f": {run.name}" if len(runs) > 1 else ""),
            shares,
            "stack",
            run=index,
            colors=_colors(shares),
        )
        for index, run in enumerate(runs)
        if (shares := _shares(run))
    ]
    ranks = sorted({int(rank[1]) for name in found if (rank := re.fullmatch(r"\w+/top(\d+)", name))} - {1})
    topk = [Panel(f"Top-{k} accuracy", tuple(f"{group}/top{k}" for group in GROUPS), "percent") for k in ranks]
    all_panels = [*PANELS[:2], *topk, *PANELS[2:]]
    known = {metric for panel in all_panels for metric in panel.metrics}
    panels = [panel._replace(metrics=tuple(name for name in panel.metrics if name in found)) for panel in all_panels]
    others = [name for name in found if name not in known and not name.startswith((*NOT_DRAWN, SHARES))]
    shown = [panel for panel in panels if panel.metrics]
    at = 2 if len(runs) == 1 else len(shown)  # of one run, under the two main ones
    return [*shown[:at], *stacks, *shown[at:], *(Panel(name, (name,), "number") for name in others)]


def _shares(run: RunRecord) -> tuple[str, ...]:
    """The metrics of where the time goes, known phases first."""
    found = {name for row in run.rows for name in row if name.startswith(SHARES)}
    known = [f"{SHARES}{phase}" for phase in PHASES if f"{SHARES}{phase}" in found]
    return (*known, *sorted(found - set(known)))


def _colors(shares: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(PHASES.get(name.removeprefix(SHARES), 6) for name in shares)


def lines_of(run: RunRecord) -> dict[str, Any]:
    """The run for page/report.js: columns of numbers by kind of row, and the restarts."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in run.rows:
        kinds.setdefault(kind_of(row), []).append(row)
    return {
        "name": run.name,
        "series": {kind: _columns(rows) for kind, rows in kinds.items()},
        "restarts": [{"attempt": again.attempt, "after": again.after, **again.position} for again in run.restarts],
    }


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[float | str | None]]:
    """Columns of at most POINTS means over neighbouring rows."""
    size = math.ceil(len(rows) / POINTS)
    groups = [rows[start : start + size] for start in range(0, len(rows), size)]
    columns: dict[str, list[float | str | None]] = {
        axis: [_brief(group[-1][axis]) for group in groups] for axis in AXES
    }
    for name in dict.fromkeys(name for row in rows for name in row if "/" in name):
        columns[name] = [_mean([row[name] for row in group if name in row]) for group in groups]
    return columns


def _mean(values: Sequence[Any]) -> float | str | None:
    """None without values, which makes a gap in the line; ``NaN`` if one of them is not finite."""
    numbers = [value for value in values if isinstance(value, (int, float))]
    if not numbers:
        return None
    mean = sum(numbers) / len(numbers)
    return _brief(mean) if math.isfinite(mean) else "NaN"


def _brief(value: float) -> float:
    """Rounded to nine digits: enough for a number of samples, and half the file size."""
    return float(f"{value:.9g}")
