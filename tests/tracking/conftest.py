import os

import pytest


@pytest.fixture
def no_wandb_account(monkeypatch, tmp_path):
    """A machine on which nobody has logged in to W&B, whatever the developer's has."""
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR", "WANDB_CACHE_DIR", "WANDB_ERROR_REPORTING", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")  # so that what the tracker sets is taken back afterwards
        del os.environ[name]
    yield
    import wandb

    wandb.teardown()
