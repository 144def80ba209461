"""`distcls eval`: how often a trained model is right, on any data set with its classes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from distcls.cli.predict import Run

SHOWN = 40  # classes in the table; of more those with the lowest F1


def evaluate(
    run: Run,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE.beton",
            help="Data set to evaluate on instead of the run's data.val. For a recipe also KEY=VALUE.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the results: JSON, confusion matrix, worst images."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per batch. Default: as in the run.")] = None,
) -> None:
    """Evaluate a model: loss, top-k accuracy, and precision, recall and F1 of each class."""
    from distcls.engine.building.recipe_start import is_recipe
    from distcls.engine.evaluation import class_file, prediction_files
    from distcls.engine.records.durable_file import replace_file
    from distcls.engine.trained_model import TrainedModel

    if output is not None:  # found out now and not after the evaluation
        output.mkdir(parents=True, exist_ok=True)
    overrides = [word for word in data or () if is_recipe(run) and "=" in word]
    trained = TrainedModel(run, overrides)
    dataset = trained.dataset([word for word in data or () if word not in overrides] or trained.val_paths)
    metrics = ["precision", "recall", "f1", "map" if dataset.multi_label else "confusion"]
    found = trained.evaluate(dataset, metrics, batch_size)
    look = trained.protocol
    shape = f"{len(dataset)} images at {look['resolution']} pixels, crop ratio {look['crop_ratio']}"
    if trained.report is not None:
        print("\n".join([*trained.report.lines(), *(f"warning: {text}" for text in trained.report.warnings)]))
    print(f"{trained.file} on {', '.join(map(str, dataset.paths))}: {shape}, on a {trained.device.type}")
    print(
        "  ".join(f"{name} {value:.4f}" for name, value in found.means.items() if name != "n" and "micro" not in name)
    )
    _print_classes(found.per_class["classes"])
    content = prediction_files.summary(found.predicted, dataset)
    names = dataset.class_names
    if content["pairs"]:
        worst = [f"{names[real]} as {names[guess]} {times}" for real, guess, times in content["pairs"][:5]]
        print(f"most confused: {', '.join(worst)}")
    if output is not None:
        prediction_files.write(output, content, dataset)
        replace_file(output / class_file.FILE, class_file.encoded({**found.means, **found.per_class}))
        print(f"{output}: {class_file.FILE}, {prediction_files.FILE}, {prediction_files.PICTURES}/")


def _print_classes(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = rows if len(rows) <= SHOWN else sorted(rows, key=lambda row: row["f1"])[:SHOWN]
    if len(shown) < len(rows):
        print(f"the {SHOWN} of {len(rows)} classes with the lowest F1:")
    table = Table(box=None, header_style="bold")
    for title in rows[0]:
        table.add_column(title.replace("support", "images"), justify="left" if title == "name" else "right")
    for row in shown:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    Console(soft_wrap=True).print(table)
