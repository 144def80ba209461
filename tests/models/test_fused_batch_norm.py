"""BatchNorm fused with what follows it against the plain layers in float64: forward, all gradients, statistics.

On a machine without a GPU the kernels run in Triton's interpreter, in a process of their own.
"""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from distcls.models.backbones.resnet import ResNet
from distcls.models.common.batch_norm import fused as fused_batch_norm
from distcls.models.common.batch_norm.fused import norm_add_relu, norm_relu, norm_relu_pool, run_layers, shortcut_of

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RELU = nn.ReLU(inplace=True)
on_gpu = pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="needs a GPU or the interpreter")


def run(kind, norm, x, shortcut, fused, monkeypatch, norm2=None):
    """Output, gradients and statistics of one pass whose result is used twice, as a block's is."""
    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: fused)
    x, shortcut = x.clone().requires_grad_(), shortcut.clone().requires_grad_()
    if kind == "relu":
        y = norm_relu(norm, RELU, x)
    elif kind == "add":
        y = norm_add_relu(norm, RELU, x, shortcut)
    elif kind == "add normalised":
        y = norm_add_relu(norm, RELU, x, shortcut, norm2)
    else:
        y = norm_relu_pool(norm, RELU, nn.MaxPool2d(3, 2, 1), x)
    assert y.grad_fn.name().startswith("_Fused") == fused
    random = torch.Generator().manual_seed(1)
    first, second = (torch.randn(y.shape, generator=random, dtype=torch.float64).to(y) for _ in range(2))
    loss = (y * first).sum()
    if kind != "relu":
        loss = loss + (shortcut_of(y) * second).sum()
    loss.backward()
    values = {"y": y, "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    values |= {"mean": norm.running_mean, "variance": norm.running_var}
    if kind.startswith("add"):
        values["shortcut"] = shortcut.grad
    if kind == "add normalised":
        values |= {"weight2": norm2.weight.grad, "bias2": norm2.bias.grad, "variance2": norm2.running_var}
    return {name: value.detach().double().cpu() for name, value in values.items()}


@on_gpu
@pytest.mark.parametrize("shape", [(2, 24, 9, 7), (3, 160, 16, 10), (2, 64, 33, 18)])
@pytest.mark.parametrize("kind", ["relu", "add", "add normalised", "pool"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3)])
def test_equals_the_plain_layers_in_float64(kind, shape, dtype, tolerance, monkeypatch):
    random = torch.Generator().manual_seed(0)
    x = 30 + 2 * torch.randn(shape, generator=random, dtype=torch.float64)  # a mean that is large against the deviation
    x, shortcut = (
        one.to(DEVICE, dtype).to(memory_format=torch.channels_last)
        for one in (x, torch.randn(shape, generator=random, dtype=torch.float64))
    )
    norm, plain = nn.BatchNorm2d(shape[1]).to(DEVICE), nn.BatchNorm2d(shape[1]).to(DEVICE).double()
    with torch.no_grad():
        norm.weight.copy_(torch.rand(shape[1], generator=random) + 0.5)
        norm.bias.copy_(torch.randn(shape[1], generator=random))
    plain.load_state_dict(norm.state_dict())
    norm2, plain2 = copy.deepcopy(norm), copy.deepcopy(plain)
    got = run(kind, norm, x, shortcut, True, monkeypatch, norm2)
    expected = run(kind, plain, x.double(), shortcut.double(), False, monkeypatch, plain2)
    for name, value in expected.items():
        distance = (got[name] - value).abs().max() / value.abs().max()
        assert distance < tolerance, f"{name}: {distance:.2e}"
    assert norm.num_batches_tracked == 1


@on_gpu
def test_evaluation_uses_the_running_statistics_and_moves_nothing(monkeypatch):
    norm = nn.BatchNorm2d(16).to(DEVICE).eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(2, 16, 6, 6, device=DEVICE).to(memory_format=torch.channels_last)
    pool = nn.MaxPool2d(3, 2, 1)
    with torch.no_grad():
        expected = pool(norm(x).relu()), (norm(x) + x).relu()
        monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
        got = run_layers([norm, nn.ReLU(), pool], x), norm_add_relu(norm, RELU, x, x)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@on_gpu
@pytest.mark.parametrize("with_cp", [False, True], ids=["kept", "computed again"])
def test_a_network_learns_what_it_learns_of_plain_layers(with_cp, monkeypatch):
    """Stem with pooling, shortcuts with and without a norm, results used twice; activations computed again or kept."""
    found = []
    for fused in (True, False):
        monkeypatch.setattr(fused_batch_norm, "on_device", lambda _, fused=fused: fused)
        torch.manual_seed(0)
        model = ResNet(18, stem_channels=8, base_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1),
                       out_indices=(0, 1), with_cp=with_cp, zero_init_residual=False).to(DEVICE)  # fmt: skip
        model.to(memory_format=torch.channels_last)
        images = torch.randn(3, 3, 18, 14).to(DEVICE).to(memory_format=torch.channels_last)
        early, late = model(images)
        assert type(late.grad_fn).__name__.startswith("_Fused") == fused or with_cp
        (early.square().mean() + late.square().mean()).backward()
        model.eval()
        with torch.no_grad():
            seen = model(images)[-1]
        found.append([early, late, seen, *(one.grad for one in model.parameters()), *model.buffers()])
    for one, other in zip(*found, strict=True):
        one, other = one.detach().double(), other.detach().double()
        assert (one - other).abs().max() <= 2e-5 * other.abs().max()


@on_gpu
@pytest.mark.parametrize("kind", ["relu", "add", "pool"])
def test_what_is_not_a_number_stays_none(kind, monkeypatch):
    """A run that has diverged must be seen in its loss: with 0 in the place of NaN it would go on as if it learned."""
    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
    x = torch.randn(2, 16, 6, 6, device=DEVICE).to(memory_format=torch.channels_last)
    found = []
    for norm in (nn.BatchNorm2d(16).to(DEVICE), nn.BatchNorm2d(16).to(DEVICE).eval()):
        norm.running_mean[3] = float("nan")
        broken = x.clone()
        broken[0, 3, 1, 1] = float("nan")
        with torch.no_grad():
            if kind == "add":
                y = norm_add_relu(norm, RELU, x, broken)[0, 3, 1, 1]
            else:
                y = run_layers([norm, nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if kind == "pool" else [])], broken)[0, 3]
        found.append(y.isnan().all().item())
    assert found == [True, True]


@on_gpu
def test_the_same_bits_every_time(monkeypatch):
    x = torch.randn(4, 64, 31, 17, device=DEVICE).to(memory_format=torch.channels_last)
    first, second = (
        run(
            "add",
            nn.BatchNorm2d(64).to(DEVICE),
            x,
            x.flip(0).contiguous(memory_format=torch.channels_last),
            True,
            monkeypatch,
        )
        for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(4, 16), nn.BatchNorm2d(16, affine=False), nn.BatchNorm2d(16, momentum=None)],
    ids=["GroupNorm", "no scale", "cumulative"],
)
def test_other_layers_run_as_they_are(norm, monkeypatch):
    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
    x = torch.randn(2, 16, 5, 5).to(memory_format=torch.channels_last)
    assert torch.equal(norm_relu(norm, RELU, x), norm(x).relu())


def test_maps_that_are_not_channels_last_run_as_they_are(monkeypatch):
    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
    norm, x = nn.BatchNorm2d(16), torch.randn(2, 16, 5, 5)
    assert torch.equal(norm_relu(norm, RELU, x), norm(x).relu())


def test_maps_in_double_precision_run_as_they_are(monkeypatch):
    """The kernels' sums would round them to float32."""
    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
    norm, x = nn.BatchNorm2d(16).double(), torch.randn(2, 16, 5, 5, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last)
    assert torch.equal(norm_relu(norm, RELU, x), norm(x).relu())


def test_a_single_value_a_channel_is_refused_as_by_the_layer(monkeypatch):
    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        norm_relu(nn.BatchNorm2d(16), RELU, torch.randn(1, 16, 1, 1).to(memory_format=torch.channels_last))


def test_kernels_are_launched_where_the_map_is(monkeypatch):
    """Triton launches on the current device, which another GPU of the process may be."""
    entered = []

    class Guard:
        def __init__(self, x):
            self.x = x

        def __enter__(self):
            entered.append(self.x)

        def __exit__(self, *_): ...

    def apply(x, *_):
        assert entered == [x]
        return x.clone(), x

    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    monkeypatch.setattr(fused_batch_norm._FusedBatchNorm, "apply", apply)
    norm_relu(nn.BatchNorm2d(16), RELU, torch.randn(2, 16, 5, 5).to(memory_format=torch.channels_last))
    assert len(entered) == 1


@pytest.mark.parametrize("hooked", ["norm", "shortcut's norm", "relu", "pool", "relu before pool"])
@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_forward_hook"])
def test_a_layer_with_hooks_is_called(hooked, register, monkeypatch):
    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
    monkeypatch.setattr(fused_batch_norm, "_fused", lambda norm, x, *_, **__: x)
    norm, shortcut_norm, relu, pool = nn.BatchNorm2d(16), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    called = []
    layer = {"norm": norm, "shortcut's norm": shortcut_norm, "pool": pool}.get(hooked, relu)
    getattr(layer, register)(lambda *_: called.append(hooked))
    x = torch.randn(2, 16, 6, 6).to(memory_format=torch.channels_last)
    if "pool" in hooked:
        norm_relu_pool(norm, relu, pool, x)
    else:
        norm_add_relu(norm, relu, x, x, shortcut_norm)
    assert called == [hooked]


def test_another_activation_in_the_place_of_relu_is_called(monkeypatch):
    monkeypatch.setattr(fused_batch_norm, "on_device", lambda _: True)
    norm, x = nn.BatchNorm2d(16), torch.randn(2, 16, 5, 5).to(memory_format=torch.channels_last)
    assert torch.equal(norm_relu(norm, nn.SiLU(), x), nn.functional.silu(norm(x)))


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="the tests above have run")
def test_the_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.split()[0].strip(".") == "s"  # only this one is skipped there
