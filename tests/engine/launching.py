"""Starting runs as users do, each in its own process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAIN = str(ROOT / "launch" / "train.py")
# Sums in another order round differently: one thread, as every run that is compared bit for bit.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
PLAIN = [sys.executable, TRAIN]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", TRAIN]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no"]
ACCELERATE_ONE = [*ACCELERATE, "--cpu", TRAIN]
# --cpu --num_processes 2 starts one process, silently; --multi_gpu starts two, which find no GPU and use gloo.
ACCELERATE_TWO = [*ACCELERATE, "--multi_gpu", "--num_processes", "2", TRAIN]


def start(
    command: list[str], *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        env={**ENVIRONMENT, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 180) -> tuple[int, str]:
    """(exit status, all it printed); the timeout is a bound against hangs."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def launch(command: list[str], *arguments: str | Path, timeout: float = 180) -> tuple[int, str]:
    return finish(start(command, *arguments), timeout)
