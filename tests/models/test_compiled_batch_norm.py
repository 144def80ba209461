"""The kernels of the fused BatchNorm compiled for A100 and H100 as a ResNet-50 launches them; no GPU is needed.

What they compute is tested in test_fused_batch_norm.py.
"""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

import distcls
from distcls.models.common.batch_norm import fused, launches

pytest.importorskip("triton", reason="triton comes with torch for CUDA")
from tests.compiled_kernels import launches_compiled

pytestmark = pytest.mark.slow
BLOCK = {
    "backbone": {"type": "ResNet", "depth": 50},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {"type": "LinearClsHead", "num_classes": 1000, "loss": {"type": "CrossEntropyLoss"}},
}
OF_A_MAP = {"moments", "forward", "forward_pooled", "unpooled", "backward_sums", "backward"}


@pytest.fixture
def compiled(monkeypatch, tmp_path, request):
    monkeypatch.setattr(fused, "on_device", lambda x: True)
    monkeypatch.setattr(launches, "TUNING", launches.TUNING)
    capability = getattr(request, "param", 90)
    with launches_compiled(capability, tmp_path, monkeypatch) as kernels:
        yield kernels


def rows(*shape, dtype=torch.float16):
    """A map without data, channels-last, as a convolution in half precision gives it."""
    images = torch.empty(shape, dtype=dtype, device="meta").to(memory_format=torch.channels_last)
    return images.requires_grad_()


def assert_fit(kernels):
    """No register is spilled, and as many programs share a multiprocessor as the sums are parted for."""
    for kernel in kernels:
        assert kernel.stack == 0, kernel
        assert kernel.shared <= 227 * 1024 // max(1, kernel.resident), kernel
        if kernel.name in ("moments", "backward_sums"):
            assert kernel.resident >= (3 if kernel.constants.get("SCALED") else 4), kernel


@pytest.mark.parametrize("compiled", [80, 90], indirect=True, ids=["sm_80", "sm_90"])
def test_a_resnet50_compiles_and_spills_nothing(compiled):
    model = distcls.build_model(BLOCK, image_size=(224, 224)).to("meta").to(memory_format=torch.channels_last)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.half()  # what autocast does; it is off where there is no GPU
        if isinstance(layer, nn.Conv2d):  # a meta tensor's is not channels-last
            layer.register_forward_hook(lambda *call: call[-1].contiguous(memory_format=torch.channels_last))
    images, target = rows(512, 3, 224, 224).detach(), torch.empty(512, dtype=torch.int64, device="meta")
    model(images, target)["loss"].backward()
    model.eval()
    with torch.no_grad():
        model(images)
    assert_fit(compiled)
    assert {kernel.name for kernel in compiled} == OF_A_MAP | {"normalisation", "backward_factors"}
    kinds = {
        tuple(kernel.constants[key] for key in ("ADD", "SCALED", "KEEP"))
        for kernel in compiled
        if kernel.name == "forward"
    }
    assert kinds == {(False, False, False), *product([True], [True, False], [True, False])}


@pytest.mark.parametrize("change", [{"stages": 3, "descending": True}, {"warps": 4, "stages": 2}])
def test_what_the_benchmark_tries_compiles_and_spills_nothing(change, compiled, monkeypatch):
    monkeypatch.setattr(launches, "TUNING", replace(launches.TUNING, **change))
    norm, relu = nn.BatchNorm2d(256, device="meta"), nn.ReLU()
    fused.norm_relu(norm, relu, rows(512, 256, 56, 56)).sum().backward()
    for shortcut_norm in (None, norm):
        y = fused.norm_add_relu(norm, relu, rows(512, 256, 56, 56), rows(512, 256, 56, 56), shortcut_norm)
        (y + fused.shortcut_of(y)).sum().backward()
    assert {kernel.name for kernel in compiled} >= {"moments", "forward", "backward_sums", "backward"}
    assert all(kernel.stack == 0 for kernel in compiled)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.bfloat16, (2, 24, 5, 7)),
        (torch.float32, (1, 1, 1, 2)),
        (torch.float32, (3, 160, 16, 10)),
        (torch.float16, (1, 8, 1, 3)),
    ],
)
def test_other_types_and_odd_shapes_compile(dtype, shape, compiled):
    """Single rows, columns and channels are constants to the compiler, and tables of odd length are not aligned."""
    norm, relu = nn.BatchNorm2d(shape[1], device="meta"), nn.ReLU()
    fused.norm_relu_pool(norm, relu, nn.MaxPool2d(3, 2, 1), rows(*shape, dtype=dtype)).sum().backward()
    y = fused.norm_add_relu(norm, relu, rows(*shape, dtype=dtype), rows(*shape, dtype=dtype), norm)
    y.sum().backward()
    assert {kernel.name for kernel in compiled} >= OF_A_MAP - {"forward"} | {"normalisation", "backward_factors"}
