import json
import re

import pytest

from distcls.tracking.report import render
from distcls.tracking.report_series import POINTS, lines_of, panels_of
from distcls.tracking.report_tables import differing_keys, evaluations_table
from distcls.tracking.run_record import read_run
from tests.tracking.example_runs import add_predictions, make_run

ATTEMPTS = ((0, 250, "preempted"), (234, 10**9, "finished"))


@pytest.fixture
def quick(tmp_path):
    return make_run(tmp_path / "quick", epochs=3, steps_per_epoch=234, attempts=ATTEMPTS, final=0.92)


def data_of(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1], parse_constant=pytest.fail)


def test_the_page_holds_every_value_of_a_short_run(quick):
    run = read_run(quick)
    page = render([quick])
    (drawn,) = data_of(page)["runs"]
    for kind, metric in (("train", "train/loss"), ("val", "val/top1"), ("train", "optim/lr")):
        assert drawn["series"][kind][metric] == pytest.approx([row[metric] for row in run.rows if metric in row])
    assert drawn["series"]["val"]["step"] == [234, 468, 702]
    assert [(again["attempt"], again["step"]) for again in drawn["restarts"]] == [(2, 234)]
    best = max(row["val/top1"] for row in run.rows if "val/top1" in row)
    assert f"<span>Best val top-1</span><b>{100 * best:.2f} %</b>" in page
    assert "lr</span>: <span class=n>0.5</span>" in page


def test_nothing_is_fetched(quick):
    page = render([quick])
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)", page)
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,"]


def test_names_and_messages_are_text(tmp_path):
    bad = make_run(
        tmp_path / "<!--<script><b>", epochs=1, steps_per_epoch=60, attempts=((0, 55, "failed"),), message="<i>"
    )
    page = render([bad])
    assert "<b>" not in page.split("<header>")[1].split("</header>")[0]
    assert '<p class="notice bad"><b>Crashed after step 50.</b> <code>&lt;i&gt;</code></p>' in page
    assert data_of(page)["runs"][0]["name"] == "<!--<script><b>"


def test_a_loss_that_is_not_finite_is_shown(tmp_path):
    run = make_run(tmp_path / "r", epochs=1, steps_per_epoch=300, nan_at=250, attempts=((0, 250, "failed"),))
    page = render([run])
    assert data_of(page)["runs"][0]["series"]["train"]["train/loss"][-1] == "NaN"
    assert '<b><span class="bad">not finite</span></b>' in page


def test_a_long_run_is_thinned_out_to_its_end(tmp_path):
    run = read_run(make_run(tmp_path / "long", epochs=4, steps_per_epoch=1000, log_every=1))
    columns = lines_of(run)["series"]["train"]
    losses = [row["train/loss"] for row in run.of_kind("train")]
    assert len(losses) == 4000
    assert len(columns["train/loss"]) == len(columns["samples"]) <= POINTS
    assert columns["step"][-1] == 4000
    assert columns["train/loss"][0] == pytest.approx(sum(losses[:3]) / 3)


def test_metrics_that_no_panel_knows_get_their_own(quick):
    run = read_run(quick)
    run.rows[0]["lab/purity"] = 0.4
    titles = [panel.title for panel in panels_of([run])]
    assert titles[:4] == ["Loss", "Top-1 accuracy", "Where the time goes", "Top-5 accuracy"]
    assert titles[-1] == "lab/purity"


def test_several_runs_are_compared_by_what_differs(tmp_path, quick):
    other = make_run(tmp_path / "other", epochs=3, steps_per_epoch=234, depth=34, lr=0.1, final=0.8)
    assert differing_keys([read_run(quick), read_run(other)]) == [
        ("model.backbone.depth", ["50", "34"]),
        ("optimizer.lr", ["0.5", "0.1"]),
    ]
    page = render([quick, other])
    assert "<code>optimizer.lr</code>" in page
    assert "2 runs compared" in page
    assert page.count("★") == 1
    same = render([quick, quick])
    assert "Nothing: the recipes are the same." in same


def test_a_run_without_a_row_has_a_page(tmp_path):
    page = render([make_run(tmp_path / "r", attempts=((0, 10, "running"),))])
    assert "No row has been written yet." in page


def test_several_labels_have_classes_but_no_matrix(quick):
    add_predictions(quick, ["day", "night", "rain"], 40, pictures=3)
    file = quick / "val_predictions.json"
    found = json.loads(file.read_text())
    found |= {"multi_label": True, "pairs": []}
    found["worst"][0] |= {"labels": [0, 2], "guesses": [[2, 0.8], [0, 0.1]]}
    found["worst"][1] |= {"labels": []}
    del found["worst"][2]["picture"]
    file.write_text(json.dumps(found))
    metrics = quick / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"val/top1"', '"val/map"'))
    measured = {"step": 702, "classes": [{"name": name, "ap": 0.5} for name in found["classes"]["name"]]}
    (quick / "val_per_class.json").write_text(json.dumps(measured))
    page = render([quick])
    best = max(row["val/map"] for row in read_run(quick).of_kind("val"))
    assert f"<span>Best val mAP</span><b>{100 * best:.2f} %</b>" in page
    assert "best val mAP" in render([quick, quick])
    assert "A confusion matrix is for one label per image" in page
    assert '<canvas id="matrix"' not in page
    assert '<b>rain</b><i>80 %</i></span><span class="label">is day, rain</span>' in page
    assert "is no class</span>" in page
    assert page.count("no picture") == 1
    assert data_of(page)["predictions"]["classes"]["ap"] == [0.5, 0.5, 0.5]
    (quick / "val_per_class.json").write_text(json.dumps({**measured, "step": 468}))  # of another evaluation
    assert "ap" not in data_of(render([quick]))["predictions"]["classes"]


def test_a_heartbeat_is_a_sign_of_life(tmp_path):
    run = make_run(tmp_path / "r", epochs=1, steps_per_epoch=60, attempts=((0, 50, "running"),))
    assert "Says running, but is silent since step 50" in render([run])
    (run / "heartbeat").mkdir()
    (run / "heartbeat" / "rank_00000").write_text("{}")
    assert '<p class="notice busy"><b>Running: epoch 0.8333 of 1, about ' in render([run])


def test_best_is_the_average_s_where_one_is_kept(quick, tmp_path):
    """As training goes by it: weights/best.safetensors is of that evaluation."""
    metrics = quick / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        if "val/top1" in line:
            line |= {"val_ema/loss": 0.25, "val_ema/top1": 0.99 - line["epoch"] / 10, "val_ema/top5": 1.0}
    metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    page = render([quick])
    assert "<span>Best val EMA top-1</span><b>89.00 %</b><span>at epoch 1</span>" in page
    assert "<span>Last val EMA top-1</span><b>69.00 %</b><span>top-5 100.00 %</span>" in page
    other = make_run(tmp_path / "other", epochs=3, steps_per_epoch=234, final=0.8)
    compared = render([quick, other])
    assert "best val EMA top-1 or top-1" in compared
    assert "<b>89.00 %</b> ★</td><td class=num>1</td><td class=num>0.2500</td>" in compared


@pytest.mark.parametrize("status", ["killed", "cancelled"])
def test_what_a_batch_script_has_noted(tmp_path, status):
    page = render([make_run(tmp_path / "r", epochs=1, steps_per_epoch=60, attempts=((0, 50, status),))])
    title = f"{status.capitalize()} after step 50"
    assert f'<p class="notice wait"><b>{title}.</b> The same command goes on from its last checkpoint.</p>' in page


def test_an_evaluation_has_a_column_for_each_measure(quick):
    run = read_run(quick)
    for row in run.of_kind("val"):
        del row["val/top5"]
        row |= {"val/map": 0.25, "val_ema/loss": 0.5, "val_ema/top1": 0.875}
    text = evaluations_table(run)
    assert re.findall("<th class=num>(.*?)</th>", text)[4:] == [
        "val loss",
        "top-1",
        "mAP",
        "EMA loss",
        "EMA top-1",
        "on images",
    ]
    assert "<td class=num>25.00 %</td><td class=num>0.5000</td><td class=num>87.50 %</td>" in text
