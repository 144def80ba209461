"""`srun python -m distcls.engine.slurm.accelerate_launch SCRIPT ...` runs `accelerate launch` on each node.

srun starts one task per node, in which the launcher starts a process per GPU. The rendezvous address comes from SLURM's
environment, without scontrol, which containers lack.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from distcls.engine.ranks.topology import refuse_components, slurm_meeting_point
from distcls.errors import UserError

# If SLURM tracks processes by cgroup, a signal reaches only the launcher, which by default dies of USR2 and kills its
# workers 30 s after TERM. With these it forwards both signals and waits while the workers save.
ENVIRONMENT = {"PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGUSR2", "PET_SHUTDOWN_TIMEOUT": "120"}


def options(said: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """The command-line arguments of this node's `accelerate launch`.

    Args:
        said: the environment that srun provides to a task.
        arguments: the training script and its arguments.

    Raises:
        UserError: the process is a task of a heterogeneous job.
    """
    refuse_components(said)
    nodes = int(said["SLURM_STEP_NUM_NODES"])
    processes = nodes * int(said.get("SLURM_GPUS_ON_NODE", "1"))
    address, port = slurm_meeting_point(said)
    line = ["--num_machines", str(nodes), "--num_processes", str(processes), "--machine_rank", said["SLURM_NODEID"]]
    line += ["--main_process_ip", address, "--main_process_port", str(port)]
    # The recipe sets the precision. A rank that dies ends the whole job, which is then requeued.
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
    except SignalException as stopped:  # the workers have saved and reported it: no traceback
        sys.exit(128 + stopped.sigval)


if __name__ == "__main__":
    main(sys.argv[1:])
