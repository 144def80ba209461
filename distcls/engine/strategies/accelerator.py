"""Makes the Accelerator: process group, device and autocast."""

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from distcls.errors import UserError


def make_accelerator(*, precision: str, timeout: timedelta, sharded: bool = False) -> Accelerator:
    """Make the Accelerator that every strategy starts from. The loaders and the schedule do not go through it.

    DDP does not broadcast buffers: each rank keeps its own BatchNorm statistics in training and in the checkpoint, or a
    resumed run would differ from an uninterrupted one. Evaluation and export use `averaged_buffers`.

    Accelerate's own DeepSpeed and FSDP modes, which the launcher's environment turns on, stay off.

    Args:
        precision: `train.precision`.
        timeout: of collectives, see `collective_timeout`.
        sharded: make a process group even for a single process.
    """
    cpu = not torch.cuda.is_available()
    torch.backends.cudnn.benchmark = True  # all batches have the same shape
    if precision == "fp64" and not cpu:
        raise UserError(
            "train.precision=fp64 is for checks of exactness on a CPU: set CUDA_VISIBLE_DEVICES= to hide the GPUs"
        )
    AcceleratorState._reset_state(reset_partial_state=True)  # left by an earlier run in this process
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision={"fp32": "no", "fp64": "no"}.get(precision, precision),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=timeout),
        ],
    )
    if sharded and not torch.distributed.is_initialized():
        backend = "gloo" if cpu else "nccl"
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    return accelerator
