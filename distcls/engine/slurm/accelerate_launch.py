"""`srun python -m distcls.engine.slurm.accelerate_launch SCRIPT ...` is this node's `accelerate launch`.

One task a node; the launcher starts a process for each of the node's GPUs. Where the nodes meet is read from SLURM's
environment, without scontrol, which containers lack.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from distcls.engine.ranks.topology import refuse_components, slurm_meeting_point
from distcls.errors import UserError

# A signal reaches the launcher alone when SLURM tracks processes by cgroup; by itself it dies of USR2, and after TERM
# it gives its workers 30 s. With these it passes both on and waits while they save.
ENVIRONMENT = {"PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGUSR2", "PET_SHUTDOWN_TIMEOUT": "120"}


def options(said: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """What this node's `accelerate launch` is given.

    Args:
        said: the environment that srun gives a task.
        arguments: the training script and what it is given.

    Raises:
        UserError: it is a task of a heterogeneous job.
    """
    refuse_components(said)
    nodes = int(said["SLURM_STEP_NUM_NODES"])
    processes = nodes * int(said.get("SLURM_GPUS_ON_NODE", "1"))
    address, port = slurm_meeting_point(said)
    line = ["--num_machines", str(nodes), "--num_processes", str(processes), "--machine_rank", said["SLURM_NODEID"]]
    line += ["--main_process_ip", address, "--main_process_port", str(port)]
    # The recipe says the precision. A rank that dies ends the job, which is started again as a whole.
    line += ["--mixed_precision", "no", "--dynamo_backend", "no", "--max_restarts", "0"]
    return [*line, *(["--multi_gpu"] if processes > 1 else []), *arguments]


def main(arguments: Sequence[str]) -> None:
    os.environ.update(ENVIRONMENT)
    try:
        sys.argv = ["accelerate-launch", *options(os.environ, arguments)]
    except UserError as error:
        sys.exit(f"error: {error}")
    from accelerate.commands import launch
    from torch.distributed.elastic.multiprocessing.api import SignalException

    try:
        launch.main()
    except SignalException as stopped:  # the workers have saved and said so: no traceback
        sys.exit(128 + stopped.sigval)


if __name__ == "__main__":
    main(sys.argv[1:])
