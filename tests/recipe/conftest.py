"""Every test writes its recipes into a folder of its own and works there."""

from pathlib import Path

import pytest

from tests.recipe import parts


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of parts.py in place of the real ones; what a test registers beside them is gone after it."""
    parts.stand_in(monkeypatch)
