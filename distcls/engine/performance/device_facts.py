"""Utilisation and memory of device and process, for each training row; measured without waiting."""

import resource
import statistics
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn

from distcls.data.augmenting.resolution import Resolution
from distcls.engine.performance.flops import training_flops
from distcls.engine.performance.gpu_peaks import peak_flops

GIB = 2**30


class DeviceFacts:
    """Memory and GPU utilisation of this process, by metric name.

    Args:
        device: of the model.
        peak_flops: FLOP/s of one device, if known.
        training_flops: floating-point operations per image by resolution; None if they could not be counted.
        devices: number of ranks, with one device each.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        peak_flops: float | None = None,
        training_flops: dict[int, float | None] | None = None,
        devices: int = 1,
    ) -> None:
        self._device = device
        self._peak = peak_flops
        self._flops = training_flops or {}
        self._devices = devices
        self._asks_utilisation = device.type == "cuda"

    def now(self) -> dict[str, float]:
        """The current figures; takes well under a millisecond."""
        # Linux counts kilobytes
        found = {"perf/rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB}
        if self._device.type == "cuda":
            found["perf/mem_gb"] = torch.cuda.max_memory_allocated(self._device) / GIB
        if self._asks_utilisation:
            try:
                found["perf/gpu_util"] = torch.cuda.utilization(self._device) / 100
            except Exception:  # no NVML for Python, a MIG slice, a container without the driver's library
                self._asks_utilisation = False
        return found

    def mfu(self, images_per_second: float, resolutions: Sequence[int]) -> dict[str, float]:
        """Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B) of all devices together, if known.

        Args:
            resolutions: of each step in which the speed was measured.
        """
        flops = [found for side in resolutions if (found := self._flops.get(side)) is not None]
        if self._peak is None or not flops or len(flops) < len(resolutions):
            return {}
        return {"perf/mfu": images_per_second * statistics.fmean(flops) / (self._peak * self._devices)}


def device_facts(accelerator: Accelerator, model: nn.Module, precision: str, resolution: Resolution) -> DeviceFacts:
    """Make the DeviceFacts. FLOPs are counted only if they are used: on rank 0, with a GPU whose peak is known.

    Args:
        model: not yet wrapped or compiled.
        precision: `train.precision`.
        resolution: of the training images.
    """
    device = accelerator.device
    peak = peak_flops(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
    sides: set[int] = set()
    if peak is not None and accelerator.is_main_process:
        sides = resolution.sides()
    return DeviceFacts(
        device,
        peak_flops=peak,
        training_flops={side: training_flops(model, side) for side in sorted(sides)},
        devices=accelerator.num_processes,
    )
