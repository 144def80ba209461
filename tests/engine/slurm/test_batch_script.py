"""The batch scripts obey: with programs in the place of SLURM's that say what they were given. tests/slurm has the real ones."""

import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from distcls.engine.slurm.batch_script import seconds_of
from tests.engine.launching import HANGS_S

SCRIPTS = sorted((Path(__file__).resolve().parents[3] / "launch/slurm").glob("*.sbatch"))
SRUN = """#!/bin/sh
echo "srun $*"
[ -z "$WAITS" ] && exit 3
trap 'echo heard; exit 75' USR2
touch started
while :; do sleep 0.1; done
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder whose bin/ has srun, scontrol, and a Python that answers with $VERDICT."""
    programs = {
        "srun": SRUN,
        "scontrol": '#!/bin/sh\necho "scontrol $*"\n',
        "python": '#!/bin/sh\necho "python $*"\nexit $VERDICT\n',
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("bash", "sh", "sleep", "touch"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    return tmp_path


def start(cluster: Path, script: Path, verdict: int, **environment: str) -> subprocess.Popen:
    environment = {"PATH": str(cluster / "bin"), "DISTCLS_PYTHON": "python", "SLURM_JOB_ID": "7", **environment}
    return subprocess.Popen(
        ["bash", script, "a recipe.yaml", "train.seed=%a"],
        cwd=cluster,
        env=environment | {"VERDICT": str(verdict)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def after(job: str = "scontrol --oneliner show job 7") -> str:
    return (
        f"python -m distcls.engine.slurm.after --job {job} --max-restarts 100 --max-crashes 3 a recipe.yaml train.seed="
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_it_asks_and_requeues(cluster, script):
    output, error = (process := start(cluster, script, 75)).communicate(timeout=HANGS_S)
    module = "" if script.name == "train.sbatch" else "-m distcls.engine.slurm.accelerate_launch "
    assert output.splitlines() == [
        f"srun --kill-on-bad-exit=1 python {module}launch/train.py a recipe.yaml train.seed=",
        after(),
        "scontrol requeue 7",
    ]
    assert (process.returncode, error) == (75, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_of_an_array_it_asks_and_requeues_its_own_task(cluster, script):
    """The last task of array 7 is job 7, and `scontrol requeue 7` starts all its tasks again, finished ones too."""
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4"}
    output, _ = start(cluster, script, 75, **array).communicate(timeout=HANGS_S)
    assert output.splitlines()[1:] == [after("scontrol --oneliner show job 7_4") + "4", "scontrol requeue 7_4"]


@pytest.mark.parametrize("verdict", [0, 1, 76])
def test_every_other_verdict_is_its_status(cluster, verdict):
    output, _ = (process := start(cluster, SCRIPTS[0], verdict, SLURM_ARRAY_TASK_ID="4")).communicate(timeout=HANGS_S)
    assert output.splitlines()[-1] == after() + "4"
    assert process.returncode == verdict


def test_without_scontrol_it_says_what_to_do(cluster):
    (cluster / "bin/scontrol").unlink()
    output, error = (process := start(cluster, SCRIPTS[0], 75)).communicate(timeout=HANGS_S)
    assert output.splitlines()[-1] == after(job="")
    assert error.splitlines()[-1] == (
        "slurm job 7 could not be requeued from here: start it again with sbatch, or set RequeueExit=75 in slurm.conf"
    )
    assert process.returncode == 75


def test_the_warning_goes_on_to_srun_and_the_end_is_waited_for(cluster):
    process = start(cluster, SCRIPTS[0], 0, WAITS="1")
    deadline = time.monotonic() + HANGS_S
    while not (cluster / "started").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)  # SLURM's to the tasks as well: the script only outlives it
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGUSR2)
    output, _ = process.communicate(timeout=HANGS_S)
    assert output.splitlines()[1:] == ["heard", after()]


def test_the_two_scripts_differ_in_how_they_start_the_ranks_alone():
    first, second = (set(script.read_text().splitlines()) for script in SCRIPTS)
    assert sorted(line for line in first ^ second if not line.startswith("#")) == [
        'srun --kill-on-bad-exit=1 "${in_step[@]}" "$python" "$train" "$@" &',
        'srun --kill-on-bad-exit=1 "${in_step[@]}" "$python" -m distcls.engine.slurm.accelerate_launch "$train" "$@" &',
    ]


def test_a_time_limit_in_seconds() -> None:
    limits = {"90": 5400, "5:30": 330, "8:00:00": 28_800, "2-0": 172_800, "1-12:30": 131_400, "1-0:0:1": 86_401}
    assert {time: seconds_of(time) for time in limits} == limits
    assert seconds_of("UNLIMITED") == math.inf
