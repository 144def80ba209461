"""What the last evaluation leaves: every image's prediction counted once, and the worst ones, on any number of ranks."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from distcls.data.dataset import BetonDataset
from distcls.engine.evaluation.prediction_files import summary, write
from distcls.engine.evaluation.predictions import WORST, Predicted, Predictions, Worst
from distcls.models.heads import ClsHead, MultiLabelClsHead
from distcls.tracking.jsonl import read_events, read_rows
from tests.engine.evaluation.two_ranks import on_two_ranks
from tests.engine.launching import PLAIN, TORCHRUN, launch

CPU = torch.device("cpu")
NUMBER, CLASSES = 203, 7
LOGITS = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (NUMBER, CLASSES))).float()
LABELS = torch.arange(NUMBER) % CLASSES
SEVERAL = torch.from_numpy(np.random.default_rng(1).integers(0, 2, (NUMBER, CLASSES))).float()


def collect(multi_label: bool = False, head=None, rank: int = 0, world_size: int = 1, batch: int = 10) -> Predicted:
    """The batches that EvalLoader would give a rank: padded to the same number and size on every rank."""
    head = head or (MultiLabelClsHead() if multi_label else ClsHead())
    collector = Predictions(head=head, num_classes=CLASSES, multi_label=multi_label, device=CPU, world_size=world_size)
    target = SEVERAL if multi_label else LABELS
    for step in range(-(-NUMBER // (batch * world_size))):
        start = (step * world_size + rank) * batch
        index = torch.arange(start, start + batch)
        index[index >= NUMBER] = -1
        labels = target[index] if multi_label else torch.where(index >= 0, target[index], -1)
        collector.add(LOGITS[index], labels, index)
    return collector.result()


def test_every_prediction_in_the_data_set_s_order_and_the_worst_first() -> None:
    predicted = collect()
    assert predicted.best is not None
    assert predicted.best.tolist() == LOGITS.argmax(1).tolist()
    losses = torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")
    order = losses.argsort(descending=True)[:WORST].tolist()
    assert [one.index for one in predicted.worst] == order
    assert [one.loss for one in predicted.worst] == pytest.approx(losses[order].tolist(), rel=1e-5)
    first = LOGITS[order[0]].softmax(0)
    assert predicted.worst[0].guesses == [(int(at), pytest.approx(first[at].item())) for at in first.topk(5).indices]


def test_half_precision_of_a_head_of_ones_own_keeps_the_images_numbers() -> None:
    class Half(ClsHead):
        def scores(self, cls_score: torch.Tensor) -> torch.Tensor:
            return cls_score.bfloat16().softmax(1)

    collector = Predictions(head=Half(), num_classes=CLASSES, multi_label=False, device=CPU, world_size=1)
    collector.add(LOGITS[:2], torch.zeros(2, dtype=torch.long), torch.tensor([257, 259]))
    assert {one.index for one in collector.result().worst} == {257, 259}


def test_images_of_nan_are_the_worst() -> None:
    collector = Predictions(head=MultiLabelClsHead(), num_classes=2, multi_label=True, device=CPU, world_size=1)
    collector.add(torch.tensor([[0.0, 0.0], [torch.nan, 0.0]]), torch.tensor([[0, 1], [1, 1]]), torch.arange(2))
    first = collector.result().worst[0]
    assert (first.index, first.guesses) == (1, [(1, 0.5), (0, 0.0)])


def test_several_labels() -> None:
    predicted = collect(multi_label=True)
    assert predicted.best is None
    assert predicted.counts is not None
    decided = LOGITS.sigmoid() >= 0.5
    assert predicted.counts.tolist() == [(decided & (SEVERAL == 1)).sum(0).tolist(), decided.sum(0).tolist()]
    losses = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, SEVERAL, reduction="none").mean(1)
    assert [one.index for one in predicted.worst] == losses.argsort(descending=True)[:WORST].tolist()
    assert predicted.worst[0].loss == pytest.approx(losses.max().item(), rel=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_plug_in_s_head_without_scores(multi_label) -> None:
    ours, theirs = collect(multi_label), collect(multi_label, head=torch.nn.Identity())
    assert ours.worst == theirs.worst
    assert np.array_equal(ours.counts if multi_label else ours.best, theirs.counts if multi_label else theirs.best)


def test_equal_losses_and_impossible_labels() -> None:
    """A probability of 0 is a number, and equal images come in the data set's order, whatever the batches."""
    for batch in (3, 50):
        collector = Predictions(head=ClsHead(), num_classes=2, multi_label=False, device=CPU, world_size=1)
        for start in range(0, 100, batch):
            index = torch.arange(start, min(start + batch, 100))
            collector.add(torch.tensor([[1000.0, 0.0]]).expand(len(index), 2), torch.ones_like(index), index)
        worst = collector.result().worst
        assert [one.index for one in worst] == list(range(WORST))
        assert worst[0].loss == pytest.approx(30 * math.log(10), rel=1e-5)


def test_one_evaluation_after_another_starts_from_nothing() -> None:
    collector = Predictions(head=ClsHead(), num_classes=CLASSES, multi_label=False, device=CPU, world_size=1)
    for _ in range(2):
        collector.start()
        collector.add(LOGITS, LABELS, torch.arange(NUMBER))
        assert len(collector.result().best) == NUMBER


@pytest.mark.parametrize("multi_label", [False, True])
def test_two_ranks_give_the_same(multi_label, tmp_path) -> None:
    def on_rank(rank):
        predicted = collect(multi_label, rank=rank, world_size=2)
        return predicted.best, predicted.counts, predicted.worst

    got = on_two_ranks(on_rank, tmp_path)
    alone = collect(multi_label)
    for best, counts, worst in got:
        assert np.array_equal(best, alone.best)
        assert np.array_equal(counts, alone.counts)
        assert worst == alone.worst


def test_the_files_of_a_data_set(tiny_data, tmp_path) -> None:
    dataset = BetonDataset(tiny_data / "val.beton")
    best = dataset.labels.copy()
    best[:3], best[21] = 2, 3  # three of class 0 taken for 2, one of class 1 for 3
    worst = [Worst(0, 2.5, [(2, 0.9), (0, 0.08)]), Worst(21, 1.5, [(3, 0.7), (1, 0.22)])]
    content = {"step": 30, **summary(Predicted(best, None, worst), dataset)}
    assert content["images"] == 103
    assert content["pairs"] == [[0, 2, 3], [1, 3, 1]]
    assert content["classes"] == {
        "name": [f"class_{number}" for number in range(5)],
        "images": [21, 21, 21, 20, 20],
        "predicted": [18, 20, 24, 21, 20],
        "right": [18, 20, 21, 20, 20],
    }
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "worst_09.png").write_text("of an earlier evaluation")
    write(tmp_path, content, dataset)
    assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == [
        "confusion.png",
        "worst_01.png",
        "worst_02.png",
    ]
    found = json.loads((tmp_path / "val_predictions.json").read_text())
    assert found["worst"][0] == {
        "index": 0,
        "place": f"{tiny_data}/val.beton: sample 0",
        "loss": 2.5,
        "labels": [0],
        "guesses": [[2, 0.9], [0, 0.08]],
        "picture": "pictures/worst_01.png",
    }
    shown, stored = (
        Image.open(file).convert("L")
        for file in (tmp_path / "pictures/worst_01.png", tiny_data / "val/class_0/0000.png")
    )
    assert np.abs(np.asarray(shown, int) - np.asarray(stored, int)).mean() < 8  # it is a JPEG there


def test_pictures_of_raw_large_and_damaged_images(tmp_path) -> None:
    """Pixels are stored as they are; a large JPEG is shrunk; one that is damaged has no picture, and costs no run."""
    from distcls.data.converting.convert import convert
    from distcls.data.converting.sources import open_source

    for label, side in (("large", 700), ("small", 40)):
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.new("RGB", (side, side // 2), "teal").save(tmp_path / "images" / label / "0.png")
    shapes = {}
    for mode in ("raw", "jpg"):
        convert(open_source(tmp_path / "images"), tmp_path / f"{mode}.beton", write_mode=mode, workers=1)
        dataset = BetonDataset(tmp_path / f"{mode}.beton")
        content = summary(Predicted(dataset.labels, None, [Worst(at, 1.0, [(0, 1.0)]) for at in (0, 1)]), dataset)
        write(tmp_path, content, dataset)
        pictures = [Image.open(tmp_path / one["picture"]) for one in content["worst"]]
        shapes[mode] = [(picture.size, picture.format) for picture in pictures]
        assert pictures[1].getpixel((5, 5)) == pytest.approx((0, 128, 128), abs=4)
    assert shapes == {mode: [((256, 128), "JPEG"), ((40, 20), "PNG")] for mode in ("raw", "jpg")}
    dataset.samples["size"][0] = 20  # the last one opened: JPEG
    write(tmp_path, content := summary(Predicted(dataset.labels, None, [Worst(0, 1.0, [(0, 1.0)])]), dataset), dataset)
    assert "picture" not in content["worst"][0]


@pytest.mark.slow
@pytest.mark.parametrize("command", [PLAIN, TORCHRUN], ids=["one rank", "two ranks"])
def test_a_run_leaves_what_its_last_evaluation_counted(command, tiny_recipe, tmp_path) -> None:
    code, output = launch(command, tiny_recipe, "train.epochs=1", "train.ema={decay: 0.9}")
    assert code == 0, output
    run = tmp_path / "run"
    found = json.loads((run / "val_predictions.json").read_text())
    [last] = [row for row in read_rows(run) if "val/top1" in row]
    assert (found["step"], found["weights"], found["images"]) == (10, "average", 103)
    assert sum(found["classes"]["right"]) / 103 == pytest.approx(last["val_ema/top1"])
    assert sum(pair[2] for pair in found["pairs"]) + sum(found["classes"]["right"]) == 103
    assert len(found["worst"]) == WORST
    assert all((run / one["picture"]).is_file() for one in found["worst"])
    assert [event["step"] for event in read_events(run) if event["kind"] == "val_predictions"] == [10]
