"""launch/test.sh: fast tests before slow ones, a failure hides nothing, and nothing of the caller's accounts reaches a test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import os, pathlib, pytest

def test_fast(): assert "fast" != os.environ.get("FAILS")

@pytest.mark.slow
def test_slow(): assert "slow" != os.environ.get("FAILS")

@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "WANDB_MODE", "SLURM_PROCID", "ACCELERATE_USE_CPU", "RANK"])
def test_unset(variable): assert variable not in os.environ

def test_no_account(): assert not pathlib.Path(os.environ["NETRC"]).exists()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with tests of its own, set up already."""
    folder = tmp_path / "a checkout"
    for name in ("launch", "tests", ".venv/bin"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "launch/test.sh", folder / "launch")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "launch/setup.sh").write_text("exit 0\n")
    (folder / "tests/test_it.py").write_text(TESTS)
    (folder / ".venv/bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / ".venv/bin/python").chmod(0o755)
    return folder


def run_tests(checkout: Path, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    """Exit status, and the lines that say which suite ran and what came of all."""
    done = subprocess.run(
        ["bash", checkout / "launch/test.sh", *arguments],
        cwd=checkout.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, [line for line in done.stdout.splitlines() if line.startswith(("== tests", "distcls:"))]


def test_all_tests_run_and_are_added_up(checkout: Path) -> None:
    caller = {
        "WANDB_API_KEY": "x",
        "WANDB_MODE": "online",
        "SLURM_PROCID": "3",
        "ACCELERATE_USE_CPU": "true",
        "RANK": "3",
    }
    lines = ["== tests: not slow", "== tests: slow", "distcls: 8 passed, 0 failed, 0 skipped"]
    assert run_tests(checkout, **caller) == (0, lines)


@pytest.mark.parametrize("fails", ["fast", "slow"])
def test_a_failure_hides_nothing_and_is_not_hidden(checkout: Path, fails: str) -> None:
    lines = ["== tests: not slow", "== tests: slow", "distcls: 7 passed, 1 failed, 0 skipped"]
    assert run_tests(checkout, FAILS=fails) == (1, lines)


def test_some_of_the_tests(checkout: Path) -> None:
    assert run_tests(checkout, "-k", "fast") == (
        0,
        ["== tests: not slow", "== tests: slow", "distcls: 1 passed, 0 failed, 0 skipped"],
    )
    assert run_tests(checkout, "-m", "slow") == (0, ["== tests", "distcls: 1 passed, 0 failed, 0 skipped"])


def test_no_test_is_no_success(checkout: Path) -> None:
    assert run_tests(checkout, "-k", "nothing")[0] == 1
