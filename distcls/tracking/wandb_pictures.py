"""The last evaluation's predictions as W&B shows them: tables that sort and filter, with images, and one picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAIRS = 200  # rows of the table of confused pairs


def pictures(run_folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Values for `run.log`. wandb's own confusion matrix takes a minute for 1000 classes: ours is drawn already.

    Args:
        run_folder: where the pictures lie.
        content: of `val_predictions.json`.
    """
    import wandb

    classes, several = content["classes"], content["multi_label"]
    names, images, right = classes["name"], classes["images"], classes["right"]
    predicted = classes["predicted"]
    rows = [
        [name, of, yes, yes / of if of else None, yes / as_it if as_it else None]
        for name, of, yes, as_it in zip(names, images, right, predicted, strict=True)
    ]
    found: dict[str, Any] = {
        "predictions/classes": wandb.Table(["class", "images", "right", "recall", "precision"], rows),
        "predictions/worst": wandb.Table(
            ["image", "label", "prediction", "confidence", "loss", "index"],
            [
                [
                    wandb.Image(str(run_folder / one["picture"])) if "picture" in one else None,
                    ", ".join(names[label] for label in one["labels"]),
                    names[one["guesses"][0][0]],
                    one["guesses"][0][1],
                    one["loss"],
                    one["index"],
                ]
                for one in content["worst"]
            ],
        ),
    }
    if not several:
        found["predictions/confusion"] = wandb.Image(str(run_folder / "pictures" / "confusion.png"))
        found["predictions/confused"] = wandb.Table(
            ["label", "taken for", "images", "share of the label's"],
            [[names[label], names[best], n, n / images[label]] for label, best, n in content["pairs"][:PAIRS]],
        )
    return found
