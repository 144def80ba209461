"""When a rank is killed, stopped, or fails, the other one says which and where it was, and exits in time."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.engine.launching import HANGS_S, TORCHRUN, finish, start

pytestmark = pytest.mark.slow
ENDLESS = ["train.epochs=100000", "train.log_every_steps=1000", "distributed.timeout_s=8", "distributed.warn_after_s=3"]


def sign(run: Path, rank: int) -> dict:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((run / f"heartbeat/rank_{rank:05d}").read_text())
    return {"step": 0}


def trained(run: Path, process: subprocess.Popen, rank: int) -> int:
    """The process id of a rank, once it trains."""
    deadline = time.monotonic() + HANGS_S
    while sign(run, rank)["step"] <= 4:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return sign(run, rank)["pid"]


def error_line(output: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    return line


def test_rank_0_is_killed_and_the_survivor_says_so_in_run_json(tiny_recipe, tmp_path):
    process = start(TORCHRUN, tiny_recipe, *ENDLESS)
    os.kill(trained(tmp_path / "run", process, 0), signal.SIGKILL)
    _, output = finish(process)
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert "error: rank 1 on " in error_line(output)
    assert ": lost rank 0 on " in error_line(output)
    assert "Traceback (most recent call last):\n  File" not in output.split("elastic")[0]
    assert run["status"] == "failed"
    assert run["attempts"][0]["message"].startswith("RankLost: lost rank 0 on ")
    assert run["attempts"][0]["message"].endswith("the same command goes on from the last checkpoint")


def test_a_rank_that_is_gone_before_there_are_signs_of_life_is_one_line(tiny_recipe, tmp_path):
    (tmp_path / "gone.py").write_text(
        "import os\nfrom distcls.engine.ranks import collectives\n"
        "if os.environ['RANK'] == '0':\n    collectives.on_rank_zero = lambda *_: os._exit(1)\n"
    )
    tiny_recipe.write_text("plugins: [./gone.py]\n" + tiny_recipe.read_text())
    _, output = finish(start(TORCHRUN, tiny_recipe))
    assert error_line(output).startswith(f"error: rank 1 on {os.uname().nodename}: lost another rank (")
    assert error_line(output).endswith("; the same command goes on from the last checkpoint")
    assert "Traceback (most recent call last):\n  File" not in output.split("elastic")[0]


def test_a_rank_that_is_stopped_is_named_in_a_warning_then_in_the_error(tiny_recipe, tmp_path):
    process = start(TORCHRUN, tiny_recipe, *ENDLESS)
    stopped = trained(tmp_path / "run", process, 1)
    os.kill(stopped, signal.SIGSTOP)
    deadline = time.monotonic() + HANGS_S
    try:
        while json.loads((tmp_path / "run/run.json").read_text())["status"] != "failed":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.kill(stopped, signal.SIGKILL)  # the launcher would wait another 30 s for it
    _, output = finish(process)
    warnings = [line for line in output.splitlines() if line.startswith("warning: no step for ")]
    assert f": lost rank 1 on {os.uname().nodename} (process {stopped}): last seen " in warnings[-1]
    assert warnings[-1].endswith("; the run ends after 8 s (distributed.timeout_s)")
    assert f": lost rank 1 on {os.uname().nodename} (process {stopped}): last seen " in error_line(output)


def test_a_rank_that_hangs_or_fails_in_the_users_code_is_named_with_its_place(tiny_recipe, tmp_path):
    """Rank 1 hangs in its first attempt, and raises in its second."""
    (tmp_path / "odd.py").write_text(
        "import os, time\nfrom torch import nn\nfrom distcls.registry import NECKS\n\n\n"
        "@NECKS.register\nclass Odd(nn.Module):\n"
        "    calls = 0\n\n"
        "    def forward(self, x):\n"
        "        Odd.calls += 1\n"
        "        if Odd.calls > 8 and os.environ['RANK'] == '1':\n"
        "            if os.environ.get('ODD') == 'hang':\n"
        "                time.sleep(1000)\n"
        "            raise ValueError('no luck')\n"
        "        return x.mean((2, 3))\n"
    )
    tiny_recipe.write_text("plugins: [./odd.py]\n" + tiny_recipe.read_text())
    arguments = [tiny_recipe, *ENDLESS, "model.neck.type=Odd", "eval.every_epochs=100"]
    _, output = finish(start(TORCHRUN, *arguments, environment={"ODD": "hang"}))
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert " is behind, at step " in lines[0]
    assert "training (odd.py:14 forward), while rank 0 on " in lines[0]
    _, output = finish(start(TORCHRUN, *arguments))
    message = json.loads((tmp_path / "run/run.json").read_text())["attempts"][-1]["message"]
    assert ": ValueError: no luck. See what that rank printed" in message
    assert "RankLost: rank 1 on " in message
