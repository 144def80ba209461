"""`distcls recipe record` and `check-run` on run folders that are made up."""

import contextlib
import json
import shutil
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distcls.cli.recipe import app
from distcls.engine.checks.plugins import import_parts
from distcls.engine.records.measured_runs import MeasuredRuns
from distcls.engine.records.run_folder import RunFolder
from distcls.errors import UserError
from distcls.recipe.schema import check
from distcls.recipe.source import read
from distcls.tracking.jsonl import MetricsLog

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = {"data.train": "one", "data.val": "two"}


@cache
def resolved(*overrides: str) -> str:
    import_parts()
    return json.dumps(check(read(RECIPES / "fashion_mnist_quick.yaml", list(overrides))).resolved())


def run(folder: Path, seed: int, *top1: float, status: str = "finished", overrides: tuple[str, ...] = ()) -> Path:
    recipe, work = json.loads(resolved(f"train.seed={seed}", *overrides)), RunFolder(folder)
    work.begin(recipe, recipe_yaml="name: fashion_mnist_quick\n", fingerprints=FILES, world_size=1, threads=2)
    log = MetricsLog(folder, clock=lambda: 1_790_000_000.0)
    for epoch, value in enumerate(top1, 1):
        place = {"step": 468 * epoch, "epoch": float(epoch), "samples": 59904 * epoch}
        log.log({**place, "val/loss": 1 - value, "val/top1": value, "val/n": 10_000})
    log.finish("finished")
    if status != "running":
        work.end(status)
    work.close()
    return folder


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    with contextlib.chdir(folder):
        record()
    return folder


def record() -> None:
    runs = [run(Path(f"seed{i}"), i, *top1) for i, top1 in enumerate([(0.80, 0.900), (0.82, 0.902), (0.84, 0.904)])]
    assert invoke("record", *runs) == "recipes/results/fashion_mnist_quick.json: 3 runs of fashion_mnist_quick\n"


@pytest.fixture
def measured(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("recipes/results/fashion_mnist_quick.json")


def test_the_band_is_of_one_further_run(measured: Path) -> None:
    early, late = MeasuredRuns.read(measured).bands()
    assert (early.metric, early.epoch, late.epoch) == ("val/top1", 1.0, 2.0)
    assert late.mean == pytest.approx(0.902)
    assert late.high - late.mean == pytest.approx(9.925 * 0.002 * (4 / 3) ** 0.5)
    assert (early.low, early.high) == (pytest.approx(0.82 - 9.925 * 0.02 * (4 / 3) ** 0.5), 1.0)  # never above 1


def test_a_run_that_was_changed_on_its_way_is_another(measured: Path) -> None:
    folder = run(Path("mine"), 7, 0.79, 0.905)
    MetricsLog(folder, 1).event("resumed", step=0, allowed=["optimizer.lr"])  # before its first step
    log = MetricsLog(folder, 2)
    log.event("resumed", step=936, allowed=["train.compile"])
    assert "on course" in invoke("check-run", folder)
    log.event("resumed", step=936, allowed=["train.global_batch_size"])
    for command in (["check-run", folder], ["record", "seed0", folder]):
        with pytest.raises(UserError) as refused:
            invoke(*command)
        assert str(refused.value) == (
            "mine is not a run of fashion_mnist_quick as it was measured:\n"
            "  train.global_batch_size: changed after step 936 (checkpoint.allow_changes)\n"
            "expected the same settings; seed, paths and workers may differ, and what only changes speed"
        )


def test_on_course(measured: Path) -> None:
    assert invoke("check-run", run(Path("mine"), 7, 0.79, 0.905)) == (
        "mine: finished, evaluated up to epoch 2; measured: fashion_mnist_quick, seeds 0, 1, 2\n"
        "val/top1 at epoch 1: 0.7900, within (measured 0.8200, band 0.5908 to 1.0000)\n"
        "val/top1 at epoch 2: 0.9050, within (measured 0.9020, band 0.8791 to 0.9249)\n"
        "on course: 2 of 2 points compared, all within their bands\n"
    )


def test_a_run_that_goes_on_is_compared_as_far_as_it_is(measured: Path) -> None:
    said = invoke("check-run", run(Path("mine"), 7, 0.79, status="running"))
    assert "val/top1 at epoch 2: not yet (measured 0.9020, band 0.8791 to 0.9249)\n" in said
    assert said.endswith("on course: 1 of 2 points compared, all within their bands\n")


def test_below_and_above(measured: Path) -> None:
    with pytest.raises(
        UserError, match=r"^off course: below the band of val/top1 at epoch 1, and 1 more\. Look at the"
    ):
        invoke("check-run", run(Path("low"), 7, 0.10, 0.10))
    text = "off course: above the band of val/top1 at epoch 2. Are images to evaluate on among those to train on?"
    with pytest.raises(UserError, match=f"^{text.replace('?', '[?]')}$"):
        invoke("check-run", run(Path("high"), 7, 0.83, 0.999))


def test_too_young(measured: Path) -> None:
    said = invoke("check-run", run(Path("young"), 7, status="running"))
    assert said.endswith("\ntoo young: the first point to compare is at epoch 1\n")
    assert said.startswith("young: running, evaluated up to epoch 0;")


def test_never_evaluated_where_it_could_be_compared(measured: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"^young was not evaluated at any epoch that was measured, which are 1, 2: set eval\.every_epochs to match$",
    ):
        invoke("check-run", run(Path("young"), 7))


def test_another_recipes_run(measured: Path) -> None:
    other = run(Path("other"), 7, 0.8, overrides=("optimizer.lr=0.1", "train.compile=true", "data.workers=3"))
    with pytest.raises(UserError) as told:
        invoke("check-run", other)
    assert str(told.value) == (
        "other is not a run of fashion_mnist_quick as it was measured:\n  optimizer.lr: 0.2 measured, 0.1 in the run\n"
        "expected the same settings; seed, paths and workers may differ, and what only changes speed"
    )
    with pytest.raises(UserError, match="other is not a run of fashion_mnist_quick as it was measured"):
        invoke("record", "seed0", other)


def test_another_evaluation_is_another_measurement(measured: Path) -> None:
    mirrored = run(Path("mirrored"), 7, 0.8, overrides=("eval.tta=flip",))
    with pytest.raises(UserError, match=r'eval\.tta: null measured, "flip" in the run'):
        invoke("check-run", mirrored)
    content = json.loads(measured.read_text())
    del content["recipe"]["eval"]  # as files were written before it was compared
    measured.write_text(json.dumps(content))
    invoke("check-run", run(Path("mine"), 7, 0.79, 0.905, overrides=("eval.every_epochs=1",)))


def test_other_data_is_noted(measured: Path) -> None:
    content = json.loads(measured.read_text())
    content["fingerprints"]["data.val"] = "three"
    measured.write_text(json.dumps(content))
    said = invoke("check-run", run(Path("mine"), 7, 0.79, 0.905))
    assert "note: data.val is not the file that was measured with\n" in said


def test_no_run_folder_and_nothing_measured(measured: Path) -> None:
    with pytest.raises(UserError, match=r"^recipes is not a run folder: it has no run\.json$"):
        invoke("check-run", "recipes")
    text = (
        r"^no measured runs of none: there is no file none\.json: write it by `distcls recipe record RUN RUN -o none\.json` "
        "from finished runs of two seeds or more, or name another with --against$"
    )
    with pytest.raises(UserError, match=text):
        invoke("check-run", "seed0", "--against", "none.json")
    with pytest.raises(UserError, match=r"^seed0/run\.json holds no measured runs "):
        invoke("check-run", "seed0", "--against", "seed0/run.json")


def test_only_finished_runs_of_several_seeds_are_recorded(measured: Path) -> None:
    with pytest.raises(UserError, match=r"^mine: the run is preempted: only finished runs are recorded$"):
        invoke("record", "seed0", run(Path("mine"), 7, 0.8, status="preempted"))
    with pytest.raises(UserError, match=r"^again: train\.seed 1 is there already: give runs of different seeds$"):
        invoke("record", "seed1", run(Path("again"), 1, 0.8))
    assert invoke("record", "seed1", "-o", "one.json") == (
        "one.json: 1 run of fashion_mnist_quick\n"
        "note: check-run needs two or more, of different seeds: a single one does not say how much runs scatter\n"
    )
    with pytest.raises(
        UserError, match="was measured once, which says nothing about the spread: record 2 runs or more"
    ):
        invoke("check-run", "seed0", "--against", "one.json")
