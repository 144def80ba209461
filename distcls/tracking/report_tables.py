"""The tables of the report."""

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from distcls.tracking.console import duration, number
from distcls.tracking.run_record import RunRecord

NOT_COMPARED = ("name", "output_dir")
SCORES = ("val_ema/top1", "val/top1", "val_ema/map", "val/map")


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool], marks: Sequence[str] = ()
) -> str:
    """HTML of a table of ready cells; `marks` are classes of the rows."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=num' if right else ''}>{cell}</{tag}>" for cell, right in zip(row, numeric, strict=True)
        )

    lines = list(rows)
    classes = [f' class="{mark}"' if mark else "" for mark in marks] or [""] * len(lines)
    body = "".join(f"<tr{style}>{cells('td', row)}</tr>" for style, row in zip(classes, lines, strict=True))
    return f'<div class="table"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def best_row(run: RunRecord) -> dict[str, Any] | None:
    """The first evaluation with the highest `score`."""
    name = score(run)
    return max((row for row in run.of_kind("val") if name in row), key=lambda row: row[name], default=None)


def score(run: RunRecord) -> str:
    """The metric that compares evaluations, as in training: that of the averaged weights if any; mAP without top-1."""
    return next((name for name in SCORES if any(name in row for row in run.rows)), "val/top1")


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def evaluations_table(run: RunRecord) -> str:
    """Every evaluation, the newest first, with all that was measured."""
    rows, best = run.of_kind("val")[::-1], best_row(run)
    names = [
        name for name in dict.fromkeys(name for row in rows for name in row) if name.startswith(("val/", "val_ema/"))
    ]
    names = sorted((name for name in names if not name.endswith("/n")), key=lambda name: name.startswith("val_ema/"))
    head = ("epoch", "step", "images seen", "time", *(measure(name) for name in names), "on images")
    lines = (
        (
            f"{row['epoch']:.4g}",
            f"{row['step']:,}",
            f"{row['samples']:,}",
            duration(row["elapsed"]),
            *(number(row.get(name)) if "loss" in name else percent(row.get(name)) for name in names),
            f"{row['val/n']:,}" if "val/n" in row else "-",
        )
        for row in rows
    )
    return table(head, lines, [True] * len(head), ["best" if row is best else "" for row in rows])


def measure(name: str) -> str:
    """``val_ema/top1`` -> ``EMA top-1``."""
    group, measure = name.split("/", 1)
    words = {"loss": "val loss", "map": "mAP", "f1": "F1", "ece": "ECE"}
    text = words.get(measure) or re.sub(r"^top(?=\d)", "top-", measure)
    return escape(f"EMA {text.removeprefix('val ')}" if group == "val_ema" else text)


def attempts_table(run: RunRecord) -> str:
    """When and where each attempt ran, and how it ended."""
    starts = {again.attempt: again.position["step"] for again in run.restarts}
    head = ("attempt", "started (UTC)", "host", "ranks x threads", "from step", "end", "")
    lines = (
        (
            str(index),
            f"<time>{escape(attempt.get('started', '')[:19].replace('T', ' '))}</time>",
            escape(str(attempt.get("host", ""))),
            f"{attempt.get('world_size', '?')} x {attempt.get('threads', '?')}",
            f"{starts[index]:,.0f}" if index in starts else "0" if index == 1 else "-",
            status(attempt.get("status", "unknown")),
            escape(attempt.get("message", "")),
        )
        for index, attempt in enumerate(run.attempts, 1)
    )
    return table(head, lines, [True, False, False, False, True, False, False])


def runs_table(runs: Sequence[RunRecord]) -> str:
    """The runs side by side, the best value of each measure marked."""
    best = [best_row(run) for run in runs]
    last = [run.rows[-1] if run.rows else {} for run in runs]
    tops = [row[score(run)] if row else None for run, row in zip(runs, best, strict=True)]
    highest = max((top for top in tops if top is not None), default=None)
    head = (
        "run",
        "status",
        "best val " + " or ".join(dict.fromkeys(measure(score(run)) for run in runs)),
        "at epoch",
        "val loss there",
        "epochs",
        "images seen",
        "time",
        "attempts",
    )
    lines = (
        (
            f'<span class="dot" style="--color:var(--c{index % 8})"></span> {escape(run.name)}'
            f'<br><span class="muted">{escape(str(run.folder))}</span>',
            status(run.status),
            f"<b>{percent(top)}</b>{' ★' if top is not None and top == highest else ''}",
            f"{row['epoch']:.4g}" if row else "-",
            number(row.get(score(run).split("/")[0] + "/loss")) if row else "-",
            f"{end.get('epoch', 0):.4g}",
            f"{end.get('samples', 0):,}",
            duration(end.get("elapsed", 0)),
            str(max(len(run.attempts), 1)),
        )
        for index, (run, row, end, top) in enumerate(zip(runs, best, last, tops, strict=True))
    )
    return table(head, lines, [False, False, *[True] * 7])


def differing_keys(runs: Sequence[RunRecord]) -> list[tuple[str, list[str | None]]]:
    """Recipe keys whose values differ between runs, with each run's value; None if it does not have the key."""
    keys = dict.fromkeys(key for run in runs for key in run.recipe if key not in NOT_COMPARED)
    values = [(key, [run.recipe.get(key) for run in runs]) for key in keys]
    return [(key, row) for key, row in values if len(set(row)) > 1]


def recipe_table(runs: Sequence[RunRecord]) -> str:
    """The differing keys of several recipes."""
    if not (rows := differing_keys(runs)):
        return '<p class="muted">Nothing: the recipes are the same.</p>'
    head = ["key", *(escape(run.name) for run in runs)]
    lines = (
        [
            f"<code>{escape(key)}</code>",
            *('<span class="muted">not set</span>' if v is None else f"<code>{escape(v)}</code>" for v in row),
        ]
        for key, row in rows
    )
    return table(head, lines, [False] * len(head))


def facts(run: RunRecord) -> str:
    """Id, versions and sizes of the run."""
    newest = run.attempts[-1] if run.attempts else {}
    versions = newest.get("versions", {})
    pairs = {
        "run id": run.run_id,
        "classes": run.recipe.get("model.head.num_classes"),
        "backbone": run.recipe.get("model.backbone.type"),
        "global batch": run.recipe.get("train.global_batch_size"),
        "precision": run.recipe.get("train.precision"),
        "seed": run.recipe.get("train.seed"),
        **versions,
    }
    cells = (f"<div><dt>{escape(key)}</dt><dd>{escape(str(value))}</dd></div>" for key, value in pairs.items() if value)
    return f'<dl class="table facts">{"".join(cells)}</dl>'


def events_table(run: RunRecord) -> str:
    """All events, the newest first, folded."""
    lines = (
        (
            duration(event["time"] - run.events[0]["time"]),
            str(event["attempt"]),
            escape(event["kind"]),
            escape(", ".join(f"{k} {_text(v)}" for k, v in event.items() if k not in ("time", "attempt", "kind"))),
        )
        for event in run.events[::-1]
    )
    inner = table(("after", "attempt", "event", ""), lines, [True, True, False, False])
    return f"<details><summary>Events <small>{len(run.events)}</small></summary>{inner}</details>"


def verdicts(run: RunRecord) -> str:
    """What limited the speed in each epoch, newest first; equal verdicts in a row share a line."""
    found: list[dict[str, Any]] = []
    for event in run.events:
        if event["kind"] != "bottleneck":
            continue
        if found and (found[-1]["bottleneck"], found[-1]["advice"]) == (event["bottleneck"], event["advice"]):
            found[-1] |= {"until": event["step"], "share": event["share"]}
        else:
            found.append({**event, "until": event["step"]})
    if not found:
        return ""
    lines = (
        (
            f"{one['step']:,}" + (f" to {one['until']:,}" if one["until"] > one["step"] else ""),
            f"<b>{escape(one['bottleneck'])}</b>",
            percent(one["share"]),
            escape(one["advice"]),
        )
        for one in found[::-1]
    )
    return table(("steps", "bottleneck", "of the time", ""), lines, [True, False, True, False])


def recipe_text(run: RunRecord, title: str) -> str:
    """The recipe in the run folder, folded."""
    text = escape(run.recipe_text, quote=False)
    text = re.sub(r"(?m)(^\s*(?:- )*|\{|, )([A-Za-z_][\w.\-]*)(?=:(?: |$))", r"\1<span class=k>\2</span>", text)
    text = re.sub(r"(?m)(: |- |\[|, )(-?\d[\d.e+\-]*)(?=[,\]}\n]|$)", r"\1<span class=n>\2</span>", text)
    return f"<details><summary>{escape(title)} <small>recipe.yaml</small></summary><pre>{text}</pre></details>"


def status(word: str) -> str:
    return f'<span class="status {escape(word)}">{escape(word)}</span>'


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
