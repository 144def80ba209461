"""The Accelerator that the recipe asks for."""

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from distcls.errors import UserError


def make_accelerator(*, precision: str, timeout: timedelta, sharded: bool = False) -> Accelerator:
    """The process group and device. Data stays out of `prepare`, and the learning rate is set by the trainer, never
    stepped.

    DDP does not broadcast buffers: each rank's BatchNorm statistics are its own in training and in the checkpoint, or a
    preempted run would not be the uninterrupted one. `averaged_buffers` serves evaluation and export.

    Every strategy starts from this one: accelerate gives process group, device and autocast, and its own DeepSpeed and
    FSDP modes, which the launcher's environment switches on, stay off.

    Args:
        precision: `train.precision`.
        timeout: of collectives, see `collective_timeout`.
        sharded: make a process group for a single process, too, which has none otherwise.
    """
    cpu = not torch.cuda.is_available()
    torch.backends.cudnn.benchmark = True  # batches have one shape
    if precision == "fp64" and not cpu:
        raise UserError(
            "train.precision=fp64 is for checks of exactness on a CPU: set CUDA_VISIBLE_DEVICES= to hide the GPUs"
        )
    AcceleratorState._reset_state(reset_partial_state=True)  # of a run before this one in the same process
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
