"""What a rank leaves of itself when its attempt has ended."""

import sys
from pathlib import Path

import pytest

from tests.engine.launching import TORCHRUN, launch

THREADS = """\
import sys
from pathlib import Path

from distcls.engine.run import train

train(sys.argv[1], sys.argv[2:])
names = sorted(task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir())
print(f"left: {names}", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_thread_of_gloos_outlives_the_run(tiny_recipe: Path, tmp_path: Path) -> None:
    """One that frees its last tensor while the interpreter shuts down aborts the process: seen once in twenty runs."""
    script = tmp_path / "threads.py"
    script.write_text(THREADS)
    code, output = launch([*TORCHRUN[:-1], str(script)], tiny_recipe, "train.epochs=null", "train.max_steps=4")
    assert code == 0, output
    left = [line for line in output.splitlines() if line.startswith("left: ")]
    assert len(left) == 2
    assert not [line for line in left if "gloo" in line]
