import pytest
import torch
from torch import nn

import distcls
from distcls.engine.performance.device_facts import DeviceFacts
from distcls.engine.performance.flops import training_flops
from distcls.engine.performance.gpu_peaks import peak_flops


def conv_net():
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))


def test_flops_are_those_counted_by_hand():
    conv = 2 * 3 * 9 * 8 * 36  # 2 for multiplication and addition; 6 x 6 output pixels
    linear = 2 * 8 * 36 * 5
    # backward: the gradients of weights and inputs each cost as much again, but the images need no gradient
    assert training_flops(conv_net(), 8) == 2 * conv + 3 * linear


def test_what_is_frozen_has_no_backward_pass():
    model = conv_net()
    model[0].weight.requires_grad_(False)
    model[1].requires_grad_(False)
    assert training_flops(model, 8) == 2 * 3 * 9 * 8 * 36 + 2 * 2 * 8 * 36 * 5


def test_what_checkpointing_computes_again_counts_once():
    plain, again = (
        distcls.build_model(
            {
                "backbone": {"type": "ResNet", "depth": 18, "with_cp": with_cp},
                "neck": {"type": "GlobalAveragePooling"},
                "head": {"type": "LinearClsHead", "num_classes": 5},
            }
        )
        for with_cp in (False, True)
    )
    assert training_flops(again, 64) == training_flops(plain, 64)


def test_counting_leaves_the_model_as_it_is():
    model = conv_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training_flops(model, 8)
    assert all(before[name].equal(value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_needs_data_has_none():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    assert training_flops(nn.Sequential(nn.Flatten(), Branching(3 * 64, 2)), 8) is None


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4e12),
        ("NVIDIA H100 PCIe", "fp16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "fp32", 156e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA H100 80GB HBM3", "fp64", None),
        ("A card of next year", "bf16", None),
        ("NVIDIA A10G", "bf16", 70e12),
        ("NVIDIA L40", "bf16", 181e12),
        ("NVIDIA RTX A1000", "bf16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
    ],
)
def test_peaks_of_gpus(name, precision, peak):
    assert peak_flops(name, precision) == peak


def test_mfu_is_of_all_devices_and_absent_where_it_is_not_known():
    facts = DeviceFacts(torch.device("cpu"), peak_flops=1e12, training_flops={224: 1e9, 160: None}, devices=2)
    assert facts.mfu(1000, [224]) == {"perf/mfu": 0.5}
    assert facts.mfu(1000, [160]) == {}
    assert DeviceFacts(torch.device("cpu")).mfu(1000, [224]) == {}
    assert 0 < facts.now().pop("perf/rss_gb") < 1000
    assert set(facts.now()) == {"perf/rss_gb"}
