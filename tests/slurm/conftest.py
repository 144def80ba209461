"""One cluster for all tests of this folder, and jobs on it that train on two ranks, one on each "node"."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distcls.tracking.jsonl import read_rows
from tests.conftest import TINY_RECIPE
from tests.engine.launching import ROOT
from tests.slurm.cluster import Cluster, NoCluster, wait_for

REQUIRED = os.environ.get("DISTCLS_REQUIRE_SLURM") == "1"
SRUN, ACCELERATE = ROOT / "launch/slurm/train.sbatch", ROOT / "launch/slurm/train_accelerate.sbatch"
ENDS = int(os.environ.get("DISTCLS_SLURM_ENDS", "5"))  # how often the run of test_requeues_in_a_row is ended
BOUND_S = 600.0  # against hangs, on a busy machine
SLOW_NECK = """\
import time

from distcls.models.necks.gap import GlobalAveragePooling
from distcls.registry import NECKS


@NECKS.register
class SlowPooling(GlobalAveragePooling):
    def __init__(self, seconds: float = 0.1):
        super().__init__()
        self.seconds = seconds

    def forward(self, inputs):
        if self.training:
            time.sleep(self.seconds)
        return super().forward(inputs)
"""
_skipped: list[str] = []


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    one: Cluster | None = None
    try:
        one = Cluster()
        one.start()
        yield one
    except NoCluster as reason:
        if REQUIRED:
            pytest.fail(f"DISTCLS_REQUIRE_SLURM=1, but there is no cluster: {reason}")
        _skipped.append(str(reason))
        pytest.skip(f"no SLURM cluster: {reason}")
    finally:
        if one is not None:
            one.stop()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _skipped:
        terminalreporter.section("THE SLURM TESTS DID NOT RUN", red=True, bold=True)
        terminalreporter.line(_skipped[0])


@dataclass
class Run:
    """A job and the run that it trains."""

    cluster: Cluster
    job: str
    folder: Path
    log: Path

    @property
    def step(self) -> int:
        """Of the newest checkpoint."""
        steps = [int(path.name[5:]) for path in self.folder.glob("checkpoints/step_*") if path.name[5:].isdigit()]
        return max(steps, default=0)

    def record(self) -> dict[str, Any]:
        """run.json."""
        return json.loads((self.folder / "run.json").read_bytes())

    def state(self) -> str:
        return self.cluster.job(self.job).get("JobState", "")

    def wait(self, condition: Callable[[], object]) -> None:
        assert wait_for(condition, BOUND_S), f"{self.cluster.job(self.job)}\n{self.text()}\n{self.cluster.logs()}"

    def wait_for_progress(self) -> None:
        """Wait until there is one more checkpoint."""
        before = self.step
        self.wait(lambda: self.step > before)

    def wait_for_restart(self, number: int, *update: str) -> None:
        """Wait until the job is in the queue again for the `number`-th time; it starts now and not two minutes later."""
        self.wait(lambda: self.state() == "PENDING" and self.cluster.job(self.job)["Restarts"] == str(number))
        self.wait_until_gone()
        self.cluster.run("scontrol", "update", f"jobid={self.job}", "StartTime=now", *update)

    def wait_until_gone(self) -> None:
        """Wait until the job can start again on the nodes that it has left."""
        self.wait(lambda: not self.cluster.steps(self.job))
        time.sleep(2)  # within the second in which a job left its node, slurmd refuses it there

    def make_room(self) -> None:
        """Let a short job of a higher partition take both nodes."""
        options = ["--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
        self.cluster.run("sbatch", *options)

    def wait_for_end(self, state: str) -> None:
        self.wait(lambda: self.state() not in ("PENDING", "RUNNING", "COMPLETING"))
        assert self.state() == state, self.text()

    def signal_rank(self, rank: int, signal: int) -> None:
        """To the process of one rank alone, as a machine's own accidents do."""
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                said = environ.read_bytes().split(b"\0")
                command = (environ.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if {f"SLURM_JOB_ID={self.job}".encode(), f"SLURM_PROCID={rank}".encode()} <= set(said) and (
                b"train.py" in command and b"SLURM_STEP_ID=0" in said
            ):
                os.kill(int(environ.parent.name), signal)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def verdicts(self) -> list[str]:
        """What the batch script decided, one line for each end of the job."""
        start = f"slurm job {self.job}, "
        return [line.removeprefix(start) for line in self.text().splitlines() if line.startswith(start)]

    def rows(self) -> list[dict[str, Any]]:
        """What was measured at each step, without what depends on the machine."""
        rows = [
            {key: one for key, one in row.items() if key not in ("attempt", "time") and not key.startswith("perf/")}
            for row in read_rows(self.folder)
        ]
        return [row for row in rows if any(key.startswith(("train/", "val/")) for key in row)]


def write_slow_recipe(folder: Path, data: Path) -> Path:
    """The tiny recipe, longer and with steps of a tenth of a second: time to interrupt them."""
    (folder / "slow_pooling.py").write_text(SLOW_NECK)
    text = TINY_RECIPE.format(out=folder / "run", data=data)
    changes = {
        "GlobalAveragePooling": "SlowPooling",
        "epochs: 3": f"epochs: {ENDS + 1}",
        "every_steps: 4}": "every_steps: 2}",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "slow.yaml").write_text("plugins: [./slow_pooling.py]\n" + text)
    return folder / "slow.yaml"


ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "MASTER_ADDR": "127.0.0.1",  # the nodes' names are in no name server
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": str(ROOT),
    "DISTCLS_PYTHON": sys.executable,
}


def sbatch(cluster: Cluster, recipe: Path, *overrides: str, script: Path = SRUN, options: tuple[str, ...] = ()) -> Run:
    """Submit a batch script as a user would, to both nodes."""
    folder, log = recipe.parent / "run", recipe.parent / "job.log"
    command = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", f"--chdir={ROOT}", f"--output={log}"]
    command += ["--time=10", *options, str(script), str(recipe)]
    return Run(cluster, cluster.run(*command, *overrides, **ENVIRONMENT).strip(), folder, log)


@pytest.fixture
def slow_recipe(tmp_path: Path, tiny_data: Path) -> Path:
    return write_slow_recipe(tmp_path, tiny_data)


@pytest.fixture
def submit(cluster: Cluster, slow_recipe: Path, time_limited: Run) -> Iterator[Callable[..., Run]]:
    """`sbatch` of a slow recipe; what still runs at the end of the test is cancelled."""
    runs: list[Run] = []

    def one(*overrides: str, **given: Any) -> Run:
        runs.append(sbatch(cluster, slow_recipe, *overrides, **given))
        return runs[-1]

    yield one
    cluster.run("scancel", *[run.job for run in runs], check=False)


@pytest.fixture(scope="session")
def time_limited(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Run:
    """A job that does not end within its minute. It begins with the first test and is looked at by one of the last."""
    recipe = write_slow_recipe(tmp_path_factory.mktemp("time_limited"), tiny_data)
    return sbatch(cluster, recipe, "model.neck.seconds=1.0", options=("--time=1", "--signal=B:USR2@30"))


@pytest.fixture(scope="session")
def uninterrupted(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, time_limited: Run
) -> Run:
    """The run that all others are compared with."""
    run = sbatch(cluster, write_slow_recipe(tmp_path_factory.mktemp("uninterrupted"), tiny_data))
    run.wait_for_end("COMPLETED")
    return run
