"""The report's part on the last evaluation: worst images, confusion matrix, classes; scripts in page/ draw them."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from distcls.tracking.report_tables import table
from distcls.tracking.run_record import json_of

SHOWN = 16  # of the worst images, until all are requested
DIFFERENT = 20  # classes in which several runs differ


def read_predictions(folder: Path) -> dict[str, Any] | None:
    """`val_predictions.json`, with the `ap` of each class if `eval.metrics` includes map; None if not written yet."""
    file, metrics = folder / "val_predictions.json", folder / "val_per_class.json"
    if not file.exists():
        return None
    found = json_of(file)
    measured = json_of(metrics) if metrics.exists() else {}
    if measured.get("step") == found["step"] and "ap" in measured["classes"][0]:
        found["classes"]["ap"] = [row["ap"] for row in measured["classes"]]
    return found


def drawn(found: dict[str, Any]) -> dict[str, Any]:
    """The part of it that the page's scripts need."""
    worst = [{key: one[key] for key in ("labels", "guesses", "loss", "place")} for one in found["worst"]]
    return {key: found[key] for key in ("multi_label", "classes", "pairs")} | {"worst": worst}


def sections(found: dict[str, Any], folder: Path) -> list[tuple[str, str, str]]:
    """Anchor, title and HTML of the three sections."""
    weights = "the averaged weights" if found.get("weights") == "average" else "the last weights"
    about = f"highest loss first; {weights} on {found['images']:,} images, after step {found['step']:,}"
    total = len(found["classes"]["name"])
    return [
        ("worst", f"Worst images <small>{about}</small>", _worst(found, folder)),
        ("confusion", "Confusion", NO_CONFUSION if found["multi_label"] else CONFUSION),
        ("classes", f"Classes <small>{total:,}</small>", CLASSES),
    ]


def compared(runs: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """HTML of the classes in which runs differ most; empty unless all runs have the same classes.

    Args:
        runs: name and predictions of each run that has any.
    """
    names = [found["classes"]["name"] for _, found in runs]
    if len(runs) < 2 or any(other != names[0] for other in names):
        return ""
    columns = [found["classes"] for _, found in runs]
    shares = [
        [right / images if images else 0.0 for right, images in zip(column["right"], column["images"], strict=True)]
        for column in columns
    ]
    each = list(zip(*shares, strict=True))
    order = sorted(range(len(each)), key=lambda number: min(each[number]) - max(each[number]))[:DIFFERENT]
    lines = [
        [escape(names[0][number]), *(_share(value, max(each[number])) for value in each[number]), _points(each[number])]
        for number in order
    ]
    head = ["class", *(escape(name) for name, _ in runs), "apart"]
    return table(head, lines, [False, *[True] * (len(runs) + 1)])


def _share(value: float, highest: float) -> str:
    text = f"{100 * value:.1f} %"
    return f"<b>{text}</b>" if value == highest else text


def _points(values: Sequence[float]) -> str:
    return f"{100 * (max(values) - min(values)):.1f}"


NO_CONFUSION = (
    '<p class="muted">A confusion matrix is for one label per image; these have any number of them. '
    "Recall and precision of each class are below.</p>"
)
CONFUSION = (
    '<div class="confusion"><div class="card map"><div class="bar-of-tools">'
    '<input id="focus" list="names" placeholder="Find a class" aria-label="find a class" autocomplete="off">'
    '<button id="whole">All classes</button><span class="spring"></span>'
    '<button id="closer" aria-label="zoom in">+</button>'
    '<button id="farther" aria-label="zoom out">&minus;</button></div>'
    '<canvas id="matrix" tabindex="0" role="img" aria-label="confusion matrix"></canvas>'
    '<p class="muted caption"></p></div>'
    '<div class="card"><h3>Most confused</h3><ol class="pairs"></ol></div></div>'
)


CLASSES = (
    '<div class="card"><div class="bar-of-tools">'
    '<input id="search" type="search" placeholder="Search classes" aria-label="search classes">'
    '<span class="muted" id="hits"></span></div><div class="table plain"><table id="class-table">'
    "<thead></thead><tbody></tbody></table></div></div>"
)


def _worst(found: dict[str, Any], folder: Path) -> str:
    names, cards = found["classes"]["name"], []
    for number, one in enumerate(found["worst"]):
        label = ", ".join(names[label] for label in one["labels"]) or "no class"
        guess, confidence = one["guesses"][0]
        right = [guess] == one["labels"] or (found["multi_label"] and guess in one["labels"])
        cards.append(
            f'<button class="shot{" more" if number >= SHOWN else ""}" data-worst="{number}">'
            f"{_picture(one, folder, label)}"
            f'<span class="guess {"good" if right else "bad"}"><b>{escape(names[guess])}</b>'
            f"<i>{100 * confidence:.0f} %</i></span>"
            f'<span class="label">is {escape(label)}</span></button>'
        )
    rest = len(cards) - SHOWN
    more = f'<button id="all-worst">Show all {len(cards)}</button>' if rest > 0 else ""
    return f'<div class="worst">{"".join(cards)}</div>{more}<dialog id="closeup"></dialog>'


def _picture(one: dict[str, Any], folder: Path, label: str) -> str:
    file = folder / one["picture"] if "picture" in one else None
    if file is None or not file.exists():
        return '<span class="lost">no picture</span>'
    kind = "png" if file.suffix == ".png" else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return f'<img class="{kind}" alt="{escape(label)}" decoding="async" src="{source}">'
