"""`distcls predict`: what a trained model sees in images."""

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from distcls.errors import UserError

Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Run folder (its best weights are used), its weights file, or recipe (the weights of its model.init).",
    ),
]


def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files, or folders with images.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write a .csv file instead of printing.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes per image.")] = 3,
) -> None:
    """Classify images, preprocessed as in the run's evaluations."""
    from distcls.data.errors import DataError
    from distcls.engine.trained_model import TrainedModel

    if output is not None:  # found out now and not after a million images
        output.parent.mkdir(parents=True, exist_ok=True)
    trained = TrainedModel(run)
    for text in trained.report.warnings if trained.report else ():
        print(f"warning: {trained.file}: {text}", file=sys.stderr)
    unreadable, rows = [], []
    for file, found in trained.predict(images, top):
        if isinstance(found, DataError):
            unreadable.append(str(found))
        elif output is None:
            print(f"{file}: {', '.join(f'{name} {score:.4f}' for name, score in found)}", flush=True)
        else:
            rows.append([file, *(cell for name, score in found for cell in (name, f"{score:.6f}"))])
    if output is not None:
        ranks = range(1, (len(rows[0]) + 1) // 2 if rows else 1)
        with output.open("w", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows(
                [["path", *(f"{key}{rank}" for rank in ranks for key in ("class", "score"))], *rows]
            )
        print(f"{output}: {len(rows)} images")
    if unreadable:
        raise UserError("\n".join([f"{len(unreadable)} of the images left out:", *unreadable]))
