import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.launching import HANGS_S


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


class Server:
    """stand_in_server.py in a process of its own."""

    def __init__(self, behaviour):
        script = Path(__file__).with_name("stand_in_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), behaviour], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()

    def got(self):
        """Stop it and see what has arrived."""
        return json.loads(self.process.communicate("")[0])

    def client(self, code, *arguments):
        """A Python process that has ended well, to which this is the W&B server."""
        run = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0" * 40},
            capture_output=True,
            text=True,
            timeout=HANGS_S,
        )
        assert run.returncode == 0, run.stderr
        return run


@pytest.fixture
def serve():
    """Starts a server with a behaviour; all of them end with the test."""
    servers = []

    def start(behaviour):
        servers.append(Server(behaviour))
        return servers[-1]

    yield start
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            server.process.kill()
        server.process.wait()
