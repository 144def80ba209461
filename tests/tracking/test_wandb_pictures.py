"""The last evaluation's tables and images, read back from the file that real wandb writes."""

import json
from pathlib import Path

from PIL import Image

from distcls.tracking.wandb import WandbTracker
from distcls.tracking.wandb_file import history, records

CONTENT = {
    "step": 30,
    "images": 40,
    "multi_label": False,
    "classes": {"name": ["cat", "dog", "owl"], "images": [20, 20, 0], "predicted": [21, 19, 0], "right": [18, 17, 0]},
    "pairs": [[1, 0, 3], [0, 1, 2]],
    "worst": [
        {"index": 7, "loss": 3.2, "labels": [1], "guesses": [[0, 0.94], [1, 0.04]], "picture": "pictures/worst_01.png"},
        {"index": 9, "loss": 2.2, "labels": [0], "guesses": [[1, 0.88], [0, 0.11]]},  # it could not be decoded
    ],
}


def logged(run, content):
    """The history row of the predictions, each table as its rows."""
    (run / "pictures").mkdir(parents=True)
    for name in ("worst_01.png", "confusion.png"):
        Image.new("RGB", (8, 8), "red").save(run / "pictures" / name)
    tracker = WandbTracker(run, "0123abcd", mode="offline", note=lambda line: None)
    tracker.predictions({"step": 30, "epoch": 3.0, "samples": 960}, content)
    tracker.finish("finished")
    [file] = run.glob("wandb/offline-run-*/*.wandb")
    [row] = [row for row in history(file) if "predictions/classes/path" in row]
    files = file.parent / "files"
    tables = {
        name.split("/")[1]: json.loads((files / row[f"{name}/path"]).read_text())["data"]
        for name in (name.removesuffix("/ncols") for name in row if name.endswith("/ncols"))
    }
    return row, tables, file


def test_tables_and_pictures(no_wandb_account, tmp_path):
    row, tables, file = logged(tmp_path / "run", CONTENT)
    assert row["progress/samples"] == 960
    assert "progress/step" not in row  # it is not taken for one of metrics.jsonl's
    assert tables["classes"] == [
        ["cat", 20, 18, 0.9, 18 / 21],
        ["dog", 20, 17, 0.85, 17 / 19],
        ["owl", 0, 0, None, None],
    ]
    assert tables["confused"] == [["dog", "cat", 3, 0.15], ["cat", "dog", 2, 0.1]]
    (image, *first), (missing, *second) = tables["worst"]
    # a table's images travel in an artifact of its own
    stored = [entry.path for record in records(file) for entry in record.artifact.manifest.contents]
    assert image == "Image"
    assert [Path(path).suffix for path in stored if "media/images" in path] == [".png"]
    assert first == ["dog", "cat", 0.94, 3.2, 7]
    assert missing is None
    assert second == ["cat", "dog", 0.88, 2.2, 9]
    assert (file.parent / "files" / row["predictions/confusion/path"]).is_file()


def test_several_labels_have_no_confusion(no_wandb_account, tmp_path):
    content = {**CONTENT, "multi_label": True, "pairs": []}
    content["worst"] = [{"index": 7, "loss": 3.2, "labels": [0, 1], "guesses": [[2, 0.94], [1, 0.04]]}]
    row, tables, _ = logged(tmp_path / "run", content)
    assert {name.split("/")[1] for name in row if name.startswith("predictions/")} == {"classes", "worst"}
    assert tables["worst"] == [[None, "cat, dog", "owl", 0.94, 3.2, 7]]
