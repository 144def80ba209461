"""The kernel from packed windows to images compiled for A100 and H100, as the loader launches it; no GPU is needed."""

from typing import get_args

import pytest
import torch

from distcls.data.decoding import packed
from tests.data.decoding.test_packed import batches, make, pack

pytest.importorskip("triton", reason="triton comes with torch for CUDA")
from tests.compiled_kernels import launches_compiled


@pytest.mark.parametrize("capability", [80, 90], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("interpolation", get_args(packed.Interpolation))
def test_every_filter_compiles_and_spills_nothing(interpolation, capability, mixed, monkeypatch, tmp_path):
    from distcls.data.decoding.decode_gpu import resize_windows

    monkeypatch.setattr(packed, "_resizer", lambda _: resize_windows)
    with launches_compiled(capability, tmp_path, monkeypatch) as kernels:
        for dtype in (torch.float16, torch.float32):  # float32: raw levels for what is done to pixels
            loader = make(mixed, interpolation=interpolation)
            pack(loader, dtype)
            batches(loader, 0, 1)
    assert [kernel.name for kernel in kernels] == ["_resize", "_resize"]
    for kernel in kernels:
        assert kernel.stack == 0
        assert kernel.resident * kernel.warps >= 24  # of 64 warps: enough to wait for memory by turns
