"""One HTML file about one or more runs, without network or libraries, for laptops and phones; also of a live run."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

from distcls.tracking import report_tables as tables
from distcls.tracking.console import duration
from distcls.tracking.report_mistakes import compared, drawn, read_predictions, sections
from distcls.tracking.report_series import SHARES, Panel, lines_of, panels_of
from distcls.tracking.report_status import notice
from distcls.tracking.run_record import RunRecord, read_run

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("report.js", "mistakes.js", "confusion.js")
_WHAT = "share of each class's images that is right, in the last evaluation"
AXES = (("samples", "Images"), ("epoch", "Epochs"), ("elapsed", "Time"))


def render(run_folders: Sequence[Path], reload_s: int | None = None) -> str:
    """The report as HTML.

    Args:
        run_folders: of one run, or of several to compare.
        reload_s: seconds after which a browser reloads the page; None: never.

    Raises:
        UserError: a folder is not a run folder.
    """
    runs = [read_run(Path(folder)) for folder in run_folders]
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    panels = panels_of(runs)
    predictions = read_predictions(runs[0].folder) if len(runs) == 1 else None
    now = datetime.now(UTC)
    body = [
        _header(runs, title),
        *(_one(runs[0], panels, predictions, now) if len(runs) == 1 else _several(runs, panels)),
        f"<footer>Written by distcls, {_moment(now)}.</footer>",
    ]
    data: dict[str, Any] = {"runs": [lines_of(run) for run in runs], "panels": [panel._asdict() for panel in panels]}
    data |= {"predictions": drawn(predictions)} if predictions else {}
    return Template((PAGE / "report.html").read_text()).substitute(
        title=escape(f"{title} · distcls"),
        style=(PAGE / "report.css").read_text(),
        script="\n".join((PAGE / name).read_text() for name in SCRIPTS),
        reload="" if reload_s is None else f'<meta http-equiv="refresh" content="{reload_s}">',
        body="\n".join(body),
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )


def write_report(run_folders: Sequence[Path], file: Path, reload_s: int | None = None) -> None:
    """Write the page of `render` atomically, so that a browser never loads half of it."""
    page = render(run_folders, reload_s)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(page, encoding="utf-8")
    beside.replace(file)


def _header(runs: Sequence[RunRecord], title: str) -> str:
    status = tables.status(runs[0].status) if len(runs) == 1 else ""
    times = [line["time"] for run in runs for line in (*run.rows, *run.events)]
    seen = f"last line {_moment(datetime.fromtimestamp(max(times), UTC))}" if times else "no line yet"
    where = runs[0].folder if len(runs) == 1 else ", ".join(run.name for run in runs)
    return (
        f"<header><h1>{escape(title)}</h1>{status}"
        '<button class="theme" title="light or dark" aria-label="light or dark">◐</button>'
        f"<p>{escape(str(where))} · {seen}</p></header>"
    )


def _moment(when: datetime) -> str:
    """A time; page/report.js adds how long ago it is."""
    return f'<time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{when:%Y-%m-%d %H:%M:%S} UTC</time>'


def _one(run: RunRecord, panels: Sequence[Panel], predictions: dict[str, Any] | None, now: datetime) -> Iterable[str]:
    parts = [
        ("curves", "", _diagrams([run], panels)),
        ("time", "What bounds it", tables.verdicts(run)),
        *(sections(predictions, run.folder) if predictions else ()),
        ("evaluations", "Evaluations", tables.evaluations_table(run) if run.of_kind("val") else ""),
        ("attempts", "Attempts", tables.attempts_table(run)),
        ("run", "Run", tables.facts(run) + tables.events_table(run) + tables.recipe_text(run, "Recipe")),
    ]
    parts = [part for part in parts if part[2]]
    yield notice(run, now)
    yield _tiles(run)
    yield f"<nav>{''.join(f'<a href=#{name}>{_linked(title)}</a>' for name, title, _ in parts)}</nav>"
    for name, title, content in parts:
        yield f"<h2 id={name}{'' if title else ' hidden'}>{title}</h2>{content}"


def _linked(title: str) -> str:
    return title.split("<")[0].strip() or "Curves"


def _several(runs: Sequence[RunRecord], panels: Sequence[Panel]) -> Iterable[str]:
    yield f"<h2>Runs</h2>{tables.runs_table(runs)}"
    yield _diagrams(runs, panels)
    predictions = [(run.name, found) for run in runs if (found := read_predictions(run.folder))]
    if differing := compared(predictions):
        yield f"<h2>Classes that differ most <small>{_WHAT}</small></h2>{differing}"
    yield f"<h2>What differs in the recipes</h2>{tables.recipe_table(runs)}"
    yield f"<h2>Recipes</h2>{''.join(tables.recipe_text(run, run.name) for run in runs)}"


def _tiles(run: RunRecord) -> str:
    """The most important figures."""
    if not run.rows:
        return '<p class="muted">No row has been written yet.</p>'
    train, val, last = run.of_kind("train"), run.of_kind("val"), run.rows[-1]
    tiles = []
    if best := tables.best_row(run):
        name = tables.score(run)
        title, newest = tables.measure(name), [row for row in val if name in row][-1]
        tiles.append((f"Best val {title}", tables.percent(best[name]), f"at epoch {best['epoch']:.4g}"))
        other = f"{name.split('/')[0]}/top5"
        top5 = f"top-5 {tables.percent(newest[other])}" if other in newest else ""
        tiles.append((f"Last val {title}", tables.percent(newest[name]), top5))
    if train and "train/loss" in train[-1]:
        val_loss = f"val {val[-1]['val/loss']:.4f}" if val and "val/loss" in val[-1] else ""
        loss = train[-1]["train/loss"]
        text = f"{loss:.4f}" if math.isfinite(loss) else '<span class="bad">not finite</span>'
        tiles.append(("Train loss", text, val_loss))
    total = run.total_epochs
    part = f'<i style="width:{100 * min(1.0, last["epoch"] / total):.1f}%"></i>' if total else ""
    done = f'<div class="bar">{part}</div>' if part and run.status != "finished" else f"{last['samples']:,} images"
    of = f" <small>of {total:g}</small>" if total else ""
    tiles.append(("Epochs", f"{last['epoch']:.4g}{of}", done))
    attempts = len(run.attempts)
    tiles.append(("Working time", duration(last["elapsed"]), "in one go" if attempts < 2 else f"{attempts} attempts"))
    if speeds := [row["perf/img_per_s"] for row in train if "perf/img_per_s" in row]:
        waits = [row["perf/data_wait_frac"] for row in train if "perf/data_wait_frac" in row]
        wait = f"{100 * median(waits):.1f} % waiting for data" if waits else ""
        tiles.append(("Images per second", f"{median(speeds):,.0f}", wait))
    return f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles)}</div>'


def _tile(label: str, value: str, note: str) -> str:
    return f'<div class="tile"><span>{label}</span><b>{value}</b><span>{note}</span></div>'


def _diagrams(runs: Sequence[RunRecord], panels: Sequence[Panel]) -> str:
    """Controls, and an empty picture for each panel, which page/report.js draws."""
    if not panels:
        return ""
    axes = "".join(
        f'<button data-axis="{axis}" aria-pressed="{"true" if axis == "samples" else "false"}">{label}</button>'
        for axis, label in AXES
    )
    chips = "".join(
        f'<button data-run="{index}" aria-pressed="true" style="--color:var(--c{index % 8})">'
        f'<span class="dot"></span>{escape(run.name)}</button>'
        for index, run in enumerate(runs)
    )
    several = len(runs) > 1
    return (
        f'<section><div class="controls"><div class="segments" role="group" aria-label="x axis">{axes}</div>'
        '<label>Smoothing <input id="smooth" type="range" min="0" max="0.98" step="0.02" value="0.5"></label>'
        f"{f'<div class=runs>{chips}</div>' if several else ''}</div>"
        f'<div class="panels">{"".join(_figure(panel, at, several) for at, panel in enumerate(panels))}</div></section>'
    )


def _figure(panel: Panel, index: int, several: bool) -> str:
    groups = [metric.split("/")[0] for metric in panel.metrics]
    names = [group if group in ("train", "val", "val_ema") else "" for group in groups]  # else the title is enough
    if panel.form == "stack":
        names = [metric.removeprefix(SHARES) for metric in panel.metrics]
    colors = panel.colors or range(len(names))
    keys = "".join(
        f'<span class="key" style="--color:var(--c{colors[order]})">{escape(names[order])} '
        f'<b data-metric="{escape(metric)}"></b></span>'
        for order, metric in enumerate(panel.metrics)
    )
    if several and panel.form != "stack":
        keys = '<span class="muted">dashed: train</span>' if len(panel.metrics) > 1 else ""
    log = '<button aria-pressed="false">log</button>' if panel.form == "loss" else ""
    wide = " wide" if panel.wide else " whole" if panel.form == "stack" and not several else ""
    return (
        f'<figure class="panel{wide}" data-panel="{index}"><figcaption>{escape(panel.title)}{keys}{log}</figcaption>'
        f'<svg role="img" aria-label="{escape(panel.title)}"></svg></figure>'
    )
