"""What `accelerate launch` is given on one node of a SLURM step."""

import subprocess
import sys

from distcls.engine.slurm.accelerate_launch import options
from tests.engine.launching import ENVIRONMENT, HANGS_S

NODE = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_NODES": "4", "SLURM_NODEID": "2", "SLURM_STEP_NODELIST": "gpu[003-006]"}


def test_eight_gpus_on_each_of_four_nodes():
    assert " ".join(options({**NODE, "SLURM_GPUS_ON_NODE": "8"}, ["train.py", "a.yaml"])) == (
        "--num_machines 4 --num_processes 32 --machine_rank 2 --main_process_ip gpu003 --main_process_port 20056 "
        "--mixed_precision no --dynamo_backend no --max_restarts 0 --multi_gpu train.py a.yaml"
    )


def test_one_process():
    alone = {**NODE, "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0"}
    assert "--multi_gpu" not in options(alone, ["train.py"])


def test_a_heterogeneous_job_is_refused_in_one_line():
    command = [sys.executable, "-m", "distcls.engine.slurm.accelerate_launch", "train.py"]
    heterogeneous = {**ENVIRONMENT, **NODE, "SLURM_STEP_NUM_TASKS": "4", "SLURM_HET_SIZE": "2"}
    done = subprocess.run(command, env=heterogeneous, capture_output=True, text=True, timeout=HANGS_S)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: SLURM_HET_SIZE=2: a heterogeneous job, ")
