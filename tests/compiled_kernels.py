"""Triton's kernels compiled down to the GPU's code on a machine that has none, exactly as they are launched."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton comes with torch for CUDA")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

A_MULTIPROCESSORS_REGISTERS = 65536


@dataclass(frozen=True)
class Kernel:
    """One kernel, compiled for the types, constants and alignments of a launch.

    Attributes:
        registers: of a thread. stack: bytes of a thread's memory, where registers that did not suffice were spilled.
        shared: bytes of a program.
    """

    name: str
    constants: dict
    registers: int
    stack: int
    shared: int
    warps: int

    @property
    def resident(self) -> int:
        """Programs that a multiprocessor's registers hold at once: a warp takes them in units of 256."""
        of_a_warp = -(-self.registers * 32 // 256) * 256
        return A_MULTIPROCESSORS_REGISTERS // (of_a_warp * self.warps)


class _Driver:
    """Of a GPU that is not there."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return self._target.arch  # kernels are kept by device: this is none that exists

    def get_current_stream(self, device: int) -> int:
        return 0


class _Pointer:
    """A tensor to the compiler, which looks at its type and whether its address is a multiple of 16."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.dtype, self.shape = tensor.dtype, tensor.shape
        self._address = 2**20 + tensor.storage_offset() * tensor.element_size()

    def data_ptr(self) -> int:
        return self._address

    def ptr_range(self) -> int:
        return 2**40


@contextmanager
def launches_compiled(capability: int, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Kernel]]:
    """Within the block a launch compiles its kernel for sm_<capability> and does not run it; tensors may be meta ones.

    Yields:
        What has been compiled, once for each different launch.
    """
    compiled: dict[int, Kernel] = {}
    kept = []  # so that no id is given twice
    run = JITFunction.run

    def compile_only(self, *arguments, grid, warmup, **constants):
        arguments = [_Pointer(value) if isinstance(value, torch.Tensor) else value for value in arguments]
        kernel = run(self, *arguments, grid=grid, warmup=True, **constants)
        if id(kernel) not in compiled:
            kept.append(kernel)
            compiled[id(kernel)] = _measured(kernel, constants, cache)
            found.append(compiled[id(kernel)])

    found: list[Kernel] = []
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    with monkeypatch.context() as patch:
        patch.setattr(JITFunction, "run", compile_only)
        patch.setattr(driver, "_active", _Driver(capability))
        yield found


def _measured(kernel, constants: dict, folder: Path) -> Kernel:
    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    said = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    usage = dict(part.split(":") for part in said.strip().splitlines()[-1].split())
    shared = max(int(usage["SHARED"]), kernel.metadata.shared)
    return Kernel(
        kernel.metadata.name, constants, int(usage["REG"]), int(usage["STACK"]), shared, kernel.metadata.num_warps
    )
