"""Starting runs as users do, each in its own process, which ends with its test."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
TRAIN = str(ROOT / "launch" / "train.py")
# Sums in another order round differently: one thread, as every run that is compared bit for bit.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
PLAIN = [sys.executable, TRAIN]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", TRAIN]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no"]
ACCELERATE_ONE = [*ACCELERATE, "--cpu", TRAIN]
# A free port: the launcher's own choice, 29500, may be taken.
# --cpu --num_processes 2 starts one process, silently; --multi_gpu starts two, which find no GPU and use gloo.
ACCELERATE_TWO = [*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", TRAIN]


# Against hangs: what takes seconds takes minutes on a machine that others use, too.
HANGS_S = 900
STARTED: list[subprocess.Popen[str]] = []


def held(command: list[str], step: int) -> list[str]:
    """`command`, whose run waits at `step` until it is asked to stop or killed."""
    return [*command[:-1], str(Path(__file__).with_name("held_train.py")), str(step)]


def start(
    command: list[str], *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        env={**ENVIRONMENT, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    return process


def finish(process: subprocess.Popen[str], timeout: float = HANGS_S) -> tuple[int, str]:
    """(exit status, all it printed); the timeout is a bound against hangs."""
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def launch(command: list[str], *arguments: str | Path, timeout: float = HANGS_S) -> tuple[int, str]:
    return finish(start(command, *arguments), timeout)


def reported(command: list[str], *arguments: str | Path) -> Any:
    """What a worker script prints as JSON behind REPORT."""
    code, output = launch(command, *arguments)
    assert code == 0, output
    [line] = [line for line in output.splitlines() if line.startswith("REPORT ")]
    return json.loads(line.removeprefix("REPORT "))


def end_all() -> None:
    """Kill what a test that failed has left running: launchers and all that they have started."""
    for process in STARTED:
        if process.poll() is None:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            process.communicate()
    STARTED.clear()
