"""benchmarks/fashion_mnist.py: a run that the clock cuts goes on, and what is printed is what was measured."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

from distcls.engine.checks.plugins import import_parts
from distcls.recipe.schema import check
from distcls.recipe.source import read

SCRIPT = Path(__file__).parents[2] / "benchmarks/fashion_mnist.py"
SPEC = importlib.util.spec_from_file_location("fashion_mnist", SCRIPT)
fashion_mnist = importlib.util.module_from_spec(SPEC)
sys.modules["fashion_mnist"] = fashion_mnist  # its dataclass looks for it
SPEC.loader.exec_module(fashion_mnist)


@pytest.mark.slow
def test_a_run_that_is_cut_goes_on_and_is_counted_once(tiny_recipe, tmp_path, capfd):
    case = fashion_mnist.Case(f"{tiny_recipe}+train.epochs=1")
    folder = case.folder(tmp_path / "runs", 5)
    fashion_mnist.run(case, folder, 5, time.monotonic())  # no time at all
    assert fashion_mnist.status(folder) != "finished"
    options = [case.written, "--seeds", "5", "--runs", str(tmp_path / "runs"), "-o", str(tmp_path / "all.json")]
    fashion_mnist.main([*options, "--no-warm-up", "--limit-seconds", "900"])
    capfd.readouterr()
    fashion_mnist.main(options)  # nothing is left to do, so nothing is warmed up
    [result] = json.loads((tmp_path / "all.json").read_text())["cases"]
    [run] = result["runs"]
    assert (run["seed"], len(run["whole_seconds"])) == (5, 2)
    assert run["top1"] == run["curves"]["val/top1"][-1][1]
    row = f"| {case.written} | 1 | {100 * run['top1']:.2f}% | {100 * run['top1']:.2f} | cut | {run['hardware']} |"
    assert (
        capfd.readouterr().out
        == f"\n| recipe | n | top-1 | each | whole run | on |\n|---|---|---|---|---|---|\n{row}\n"
    )


def test_the_table_has_mean_spread_and_the_seconds_of_whole_runs():
    runs = [
        {"top1": top1, "whole_seconds": seconds, "hardware": "1 x GPU"}
        for top1, seconds in ((0.94, [12.0]), (0.942, [14.0]), (0.944, [9.0, 8.0]))
    ]
    expected = "| fast | 3 | 94.20% +- 0.20 | 94.00, 94.20, 94.40 | 13.00 s +- 1.41 | 1 x GPU |"
    assert fashion_mnist.line({"case": "fast", "runs": runs}) == expected
    assert fashion_mnist.line({"case": "fast", "runs": []}) == "| fast | 0 | | | | |"


@pytest.mark.parametrize("written", [*fashion_mnist.RECIPES, "fashion_mnist_fast+train.epochs=8"])
def test_what_is_started_are_recipes(written):
    import_parts()
    case = fashion_mnist.Case(written)
    for more in ([], fashion_mnist.WARM_UP):
        _, _, recipe, *changes = case.command(Path("run"), "train.seed=1", *more)
        one = check(read(Path(recipe), changes))
        assert (one.output_dir, one.train.seed, one.tracking.mode) == ("run", 1, "disabled")
