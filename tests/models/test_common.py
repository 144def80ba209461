"""Building blocks: names and errors of the builders, initial weights, drop path, activation checkpointing."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from distcls.errors import UserError
from distcls.models.common import (
    NORM_LAYERS,
    BaseModule,
    ConvModule,
    DropPath,
    SELayer,
    build_activation_layer,
    build_conv_layer,
    build_norm_layer,
    constant_init,
    drop_path_rates,
    init_layers,
    kaiming_init,
    make_divisible,
    normal_init,
    run_checkpointed,
    trunc_normal_init,
    uniform_init,
    xavier_init,
)


@pytest.mark.parametrize(
    ("cfg", "postfix", "name", "layer"),
    [
        ({"type": "BN"}, 1, "bn1", nn.BatchNorm2d),
        ({"type": "BN1d"}, "", "bn", nn.BatchNorm1d),
        ({"type": "SyncBN"}, 2, "bn2", nn.SyncBatchNorm),
        ({"type": "GN", "num_groups": 2}, 1, "gn1", nn.GroupNorm),
        ({"type": "LN", "eps": 1e-6}, "_pre", "ln_pre", nn.LayerNorm),
        ({"type": "IN"}, 3, "in3", nn.InstanceNorm2d),
    ],
)
def test_norm_layers_and_their_names(cfg: dict, postfix: int | str, name: str, layer: type) -> None:
    found_name, found = build_norm_layer(cfg, 4, postfix=postfix)
    assert (found_name, type(found)) == (name, layer)
    assert found.eps == cfg.get("eps", 1e-5)


def test_norm_layer_without_gradient_leaves_the_block_as_it_was() -> None:
    cfg = {"type": "BN", "requires_grad": False}
    assert not any(p.requires_grad for p in build_norm_layer(cfg, 4)[1].parameters())
    assert cfg == {"type": "BN", "requires_grad": False}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: build_norm_layer({"type": "BatchNorm"}, 4),
            "norm_cfg: no type 'BatchNorm'. Known: BN, BN1d, BN2d, BN3d, GN, IN, LN, LN2d, SyncBN",
        ),
        (
            lambda: build_norm_layer({"type": "GN"}, 4),
            "norm_cfg: type GN needs num_groups, for example {type: GN, num_groups: 32}",
        ),
        (
            lambda: build_conv_layer({"type": "Conv2D"}, 3, 4, 3),
            "conv_cfg: no type 'Conv2D'. Did you mean 'Conv2d'? Known: BlurPoolConv2d, Conv, Conv1d, Conv2d, Conv2dAdaptivePadding, Conv3d",
        ),
    ],
)
def test_messages(build, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value) == message


def test_unknown_activation() -> None:
    with pytest.raises(UserError, match=r"^act_cfg: no type 'ReLu'\. Did you mean 'ReLU'\?"):
        build_activation_layer({"type": "ReLu"})


def test_activation_arguments() -> None:
    assert build_activation_layer({"type": "ReLU"}, inplace=True).inplace
    assert not build_activation_layer({"type": "ReLU", "inplace": False}, inplace=True).inplace
    assert build_activation_layer({"type": "LeakyReLU", "negative_slope": 0.2}).negative_slope == 0.2
    assert isinstance(build_activation_layer({"type": "GELU"}, inplace=True), nn.GELU)


def test_conv_module_has_the_names_of_mmcv_and_a_bias_only_without_norm() -> None:
    with_norm = ConvModule(3, 4, 3, padding=1, norm_cfg={"type": "BN"})
    assert [name for name, _ in with_norm.named_children()] == ["conv", "bn", "activate"]
    assert with_norm.conv.bias is None
    plain = ConvModule(3, 4, 1, act_cfg=None)
    assert [name for name, _ in plain.named_children()] == ["conv"]
    assert plain.conv.bias is not None
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(plain(x), plain.conv(x))
    assert torch.equal(with_norm.eval()(x), with_norm.bn(with_norm.conv(x)).relu())


class Part(BaseModule):
    """Counts how often it is initialised."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.calls = 0

    def init_weights(self) -> None:
        self.calls += 1
        constant_init(self.layer, 5.0)


def test_parts_are_initialised_once_in_order_and_rules_stop_at_a_part() -> None:
    order: list[nn.Module] = []

    class Whole(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.inner = nn.Sequential(Part(), nn.ModuleList([nn.Linear(2, 2)]))
            self.norm = nn.BatchNorm2d(2)

        def init_weights(self) -> None:
            init_layers(self, {nn.Linear: order.append, NORM_LAYERS: order.append})

    whole = Whole()
    whole.init_weights()
    assert order == [whole.first, whole.inner[1][0], whole.norm]
    assert whole.inner[0].calls == 1
    assert (whole.inner[0].layer.weight == 5).all()


def test_a_part_without_rules_reaches_the_parts_under_it() -> None:
    class Whole(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([Part(), Part()])

    whole = Whole()
    whole.init_weights()
    assert [part.calls for part in whole.parts] == [1, 1]


def test_initial_weights_follow_their_distribution() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(400, 100)

    def std(init) -> float:
        init(layer)
        return layer.weight.std().item()

    assert std(partial(normal_init, std=0.01, bias=3.0)) == pytest.approx(0.01, rel=0.02)
    assert (layer.bias == 3).all()
    assert std(kaiming_init) == pytest.approx((2 / 100) ** 0.5, rel=0.02)
    assert std(partial(kaiming_init, mode="fan_in", distribution="uniform")) == pytest.approx(
        (2 / 400) ** 0.5, rel=0.02
    )
    assert std(xavier_init) == pytest.approx((2 / 500) ** 0.5, rel=0.02)
    assert std(partial(uniform_init, a=-1.0, b=1.0)) == pytest.approx(3**-0.5, rel=0.02)
    assert std(partial(trunc_normal_init, std=0.02)) == pytest.approx(0.02, rel=0.02)
    trunc_normal_init(layer, std=1.0, a=-0.5, b=0.5)
    assert layer.weight.abs().max() <= 0.5
    constant_init(nn.BatchNorm2d(2, affine=False), 1.0)  # without weight there is nothing to do


def test_drop_path_skips_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop_path = DropPath(0.25)
    out = drop_path(torch.ones(4000, 2, 3))
    per_image = out.flatten(1)
    assert sorted(per_image.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert (per_image == per_image[:, :1]).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop_path.eval()(torch.ones(4)), torch.ones(4))


def test_checkpointed_block_counts_a_batch_once_and_replays_its_random_draws() -> None:
    """Plain torch.utils.checkpoint moves BatchNorm's averages twice per step."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    x = torch.randn(4, 3, 8, 8)
    results = []
    start = {key: entry.clone() for key, entry in block.state_dict().items()}
    for checkpointed in (False, True):
        block.load_state_dict(start)
        block.zero_grad()
        buffer = block[1].running_mean
        torch.manual_seed(1)
        inputs = x.clone().requires_grad_()
        out = run_checkpointed(block, block, inputs) if checkpointed else block(inputs)
        out.square().sum().backward()
        assert block[1].running_mean is buffer
        results.append([inputs.grad, *(p.grad for p in block.parameters()), *(b.clone() for b in block.buffers())])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)
    assert block[1].num_batches_tracked == 1


@pytest.mark.parametrize(
    ("value", "divisor", "expected"), [(16, 8, 16), (17, 8, 16), (20, 8, 24), (3, 8, 8), (10, 8, 16), (4.5, 1, 5)]
)
def test_make_divisible_never_loses_more_than_a_tenth(value: float, divisor: int, expected: int) -> None:
    assert make_divisible(value, divisor) == expected


def test_se_layer_weights_channels_by_their_mean() -> None:
    torch.manual_seed(0)
    layer = SELayer(32, ratio=4)
    assert layer.conv1.conv.out_channels == 8
    x = torch.randn(2, 32, 3, 3)
    mean = x.mean((2, 3))
    hidden = torch.relu(mean @ layer.conv1.conv.weight[:, :, 0, 0].T + layer.conv1.conv.bias)
    weight = torch.sigmoid(hidden @ layer.conv2.conv.weight[:, :, 0, 0].T + layer.conv2.conv.bias)
    assert torch.allclose(layer(x), x * weight[:, :, None, None], atol=1e-6)
    assert SELayer(32, squeeze_channels=3).conv1.conv.out_channels == 3


@pytest.mark.parametrize(("size", "kernel_size", "stride"), [(8, 3, 2), (7, 3, 2), (9, 5, 2), (6, 1, 1), (5, 3, 1)])
def test_adaptive_padding_is_tensorflows_same(size: int, kernel_size: int, stride: int) -> None:
    """timm's Conv2dSame is the other implementation of it."""
    torch.manual_seed(0)
    layer = build_conv_layer(
        {"type": "Conv2dAdaptivePadding"}, 2, 3, kernel_size, stride=stride, padding=kernel_size // 2
    )
    other = timm.layers.Conv2dSame(2, 3, kernel_size, stride=stride)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 2, size, size)
    assert layer(x).shape[2] == -(-size // stride)
    assert torch.equal(layer(x), other(x))


@pytest.mark.parametrize(
    ("rate", "blocks", "expected"), [(0.3, 4, [0, 0.1, 0.2, 0.3]), (0.3, 1, [0]), (0.0, 2, [0, 0])]
)
def test_drop_path_rates(rate: float, blocks: int, expected: list[float]) -> None:
    assert drop_path_rates(rate, blocks) == pytest.approx(expected)
