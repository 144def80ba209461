"""The processes of `verify-resume` are interrupted only once they train, and ended when one of them has exited."""

import pytest

from distcls.engine.verify import processes as module
from distcls.engine.verify.processes import Processes, last_step
from distcls.errors import UserError


def test_a_rank_that_waits_for_one_that_is_gone_is_ended(tmp_path, monkeypatch):
    """As a launcher would do: before the process group has formed, no watchdog ends them."""
    monkeypatch.setattr(module, "START", "import os, time; time.sleep(1000 * int(os.environ['RANK'])); os._exit(1)")
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    with Processes([], tmp_path, 2, threads=1, cpu=True) as processes:
        with pytest.raises(UserError, match="is not begun, expected finished"):
            processes.end("finished")
        assert not processes.running


def test_an_attempt_is_disturbed_after_a_step_of_its_own(tmp_path, monkeypatch):
    """Before that step, its signal handlers may not be installed yet."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 5}\n')
    monkeypatch.setattr(module, "START", "pass")
    with Processes([], tmp_path, 1, threads=1, cpu=True) as process:
        assert not process.wait_for_step(3), "it has logged nothing"
    script = f"import time; open({str(file)!r}, 'a').write('{{\"step\": 6}}\\n'); time.sleep(1000)"
    monkeypatch.setattr(module, "START", script)
    with Processes([], tmp_path, 1, threads=1, cpu=True) as process:
        assert process.wait_for_step(3)
        assert last_step(tmp_path) == 6
