"""`distcls verify-resume` as a user calls it, from a folder that is not the project's."""

import os
import sys

import pytest
from typer.testing import CliRunner

from distcls.cli.main import app
from distcls.cli.verify_resume import verdict
from distcls.engine.verify.proofs import Proof
from distcls.errors import UserError
from tests.engine.launching import launch

COMMAND = [sys.executable, "-c", "from distcls.cli.main import main; main()", "verify-resume"]


@pytest.mark.slow
def test_a_recipe_survives(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The seed draws steps soon after the first checkpoint: a busy machine has 40 steps to be late.
    arguments = [tiny_recipe, "--kills", 1, "--ranks", "1", "--steps", 60, "--keep", tmp_path / "kept", "--seed", 39]
    code, output = launch(COMMAND, *arguments)
    assert code == 0, output
    assert "1 process, kill -9 once and resumed" in output
    assert "1 process, preempted once and resumed" in output
    assert output.count("equal: 1,920 samples") == 2
    assert output.count("bit for bit") == 2
    assert "all 8 comparisons hold" in output
    assert sorted(os.listdir(tmp_path / "kept")) == ["killed_1", "preempted_1", "whole_1"]


def test_mistakes_come_before_the_first_run(tiny_recipe):
    def refusal(*arguments):
        return str(CliRunner().invoke(app, ["verify-resume", str(tiny_recipe), *arguments]).exception)

    assert "command line: optimizer.lr: wrong type" in refusal("optimizer.lr=fast")
    assert "--ranks: got '1,x', expected numbers of processes such as 1,2" in refusal("--ranks", "1,x")


EQUAL = Proof("1 process, preempted once and resumed", "losses", 24, "equal", True)
EXCUSED = Proof("2 processes, undisturbed", "losses", 24, "differ by 0.1 at most: why", None)
DIFFERS = Proof("2 processes, kill -9 once and resumed", "losses", 24, "differ by 0.1 at most", False)
MISSED = Proof("2 processes, preempted 0 times and resumed", "interruption", 24, "its 24 steps were over", False)


def test_the_last_words():
    text = "all 2 comparisons hold; where a difference is expected, the table says why"
    assert verdict([EQUAL, EXCUSED], steps=24) == text


@pytest.mark.parametrize(
    ("proofs", "words"),
    [
        ([EQUAL, DIFFERS], ["1 of 2 comparisons failed"]),
        ([EQUAL, MISSED], ["{missed}"]),
        ([EQUAL, DIFFERS, MISSED], ["1 of 2 comparisons failed", "{missed}"]),
    ],
)
def test_nothing_holds_that_was_not_tried(proofs, words):
    missed = (
        "2 processes, preempted 0 times and resumed: 24 steps are too few to interrupt this run and resume it, "
        "so nothing is proved: give more, for example --steps 48"
    )
    with pytest.raises(UserError) as caught:
        verdict(proofs, steps=24)
    assert str(caught.value) == "\n".join(words).format(missed=missed)
