"""What ResNet's arguments do, beyond the numbers that the reference fixes."""

import pytest
import torch
from torch import nn

from distcls.errors import UserError
from distcls.models.backbones import ResNet, ResNet_CIFAR, ResNetV1c, ResNetV1d
from distcls.models.backbones.res_layer import BasicBlock, Bottleneck
from tests.models.example_images import images


def narrow(cls: type[ResNet] = ResNet, depth: int = 18, **kwargs) -> ResNet:
    return cls(depth=depth, stem_channels=8, base_channels=8, **kwargs)


@pytest.mark.parametrize(
    ("depth", "blocks", "width"), [(18, 8, 1), (34, 16, 1), (50, 16, 4), (101, 33, 4), (152, 50, 4)]
)
def test_depths(depth: int, blocks: int, width: int) -> None:
    model = narrow(depth=depth, out_indices=(0, 1, 2, 3)).eval()
    assert sum(isinstance(m, BasicBlock | Bottleneck) for m in model.modules()) == blocks
    maps = model(images())
    assert [tuple(m.shape) for m in maps] == [(2, 8 * width * 2**i, 8 // 2**i, 8 // 2**i) for i in range(4)]


def test_cifar_keeps_the_size_in_its_stem() -> None:
    maps = narrow(ResNet_CIFAR, out_indices=(0, 3)).eval()(images())
    assert [tuple(m.shape) for m in maps] == [(2, 8, 32, 32), (2, 64, 4, 4)]


def test_one_channel_and_fewer_stages() -> None:
    model = narrow(ResNet_CIFAR, in_channels=1, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)).eval()
    assert model(torch.zeros(1, 1, 28, 28))[0].shape == (1, 16, 14, 14)


def test_dilation_keeps_the_map_large() -> None:
    model = narrow(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)).eval()
    assert model(images())[0].shape == (2, 64, 4, 4)


def test_caffe_style_strides_in_the_first_convolution() -> None:
    strides = {style: narrow(depth=50, style=style).layer2[0] for style in ("pytorch", "caffe")}
    assert (strides["pytorch"].conv1.stride, strides["pytorch"].conv2.stride) == ((1, 1), (2, 2))
    assert (strides["caffe"].conv1.stride, strides["caffe"].conv2.stride) == ((2, 2), (1, 1))


def test_v1c_strides_in_the_shortcut_and_v1d_averages() -> None:
    assert [type(m) for m in narrow(ResNetV1c).layer2[0].downsample] == [nn.Conv2d, nn.BatchNorm2d]
    assert [type(m) for m in narrow(ResNetV1d).layer2[0].downsample] == [nn.AvgPool2d, nn.Conv2d, nn.BatchNorm2d]
    assert len(narrow(ResNetV1c).stem) == 3


def test_wide_resnet_by_expansion() -> None:
    block = narrow(depth=50, expansion=2).layer1[0]
    assert (block.conv2.out_channels, block.conv3.out_channels) == (8, 16)


@pytest.mark.parametrize("cls", [ResNet, ResNetV1d, ResNet_CIFAR])
def test_frozen_stages_neither_learn_nor_move(cls: type[ResNet]) -> None:
    model = narrow(cls, frozen_stages=1).train()
    before = {key: entry.clone() for key, entry in model.state_dict().items()}
    model(images())[0].sum().backward()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters() if not name.startswith(("layer2", "layer3", "layer4"))
    }
    moved = {key for key, entry in model.state_dict().items() if not torch.equal(entry, before[key])}
    assert moved == {key for key, _ in model.named_buffers() if key.startswith(("layer2", "layer3", "layer4"))}
    assert not model.layer1.training


def test_frozen_stages_0_freezes_the_stem_alone() -> None:
    model = narrow(frozen_stages=0)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
    }


def test_norm_eval_keeps_the_running_averages_but_learns_the_scale() -> None:
    model = narrow(norm_eval=True).train()
    model(images())[0].sum().backward()
    assert all(torch.equal(b, torch.zeros_like(b)) for name, b in model.named_buffers() if "running_mean" in name)
    assert model.bn1.weight.grad is not None
    assert not model.eval().training


def test_zero_init_residual_makes_every_block_the_identity() -> None:
    model = narrow(depth=50)
    model.init_weights()
    assert all((block.bn3.weight == 0).all() for block in model.modules() if isinstance(block, Bottleneck))
    x = torch.rand(1, 32, 8, 8)
    assert torch.equal(model.layer1[1].eval()(x), x)
    plain = narrow(depth=50, zero_init_residual=False)
    plain.init_weights()
    assert all((block.bn3.weight == 1).all() for block in plain.modules() if isinstance(block, Bottleneck))


def test_init_weights_is_a_function_of_the_seed() -> None:
    states = []
    for _ in range(2):
        model = narrow()
        torch.manual_seed(3)
        model.init_weights()
        states.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert states[0]["layer1.0.conv1.weight"].std().item() == pytest.approx((2 / (8 * 9)) ** 0.5, rel=0.1)


def test_drop_path_rate_grows_linearly_to_the_last_block() -> None:
    model = narrow(drop_path_rate=0.7)
    rates = [block.drop_path.drop_prob for block in model.modules() if isinstance(block, BasicBlock)]
    assert rates == pytest.approx([0.1 * i for i in range(8)], abs=1e-6)


@pytest.mark.parametrize("depth", [18, 50])
def test_with_cp_gives_the_same_step_and_keeps_fewer_bytes(depth: int) -> None:
    outcomes, kept = [], []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = narrow(depth=depth, with_cp=with_cp, drop_path_rate=0.3).train()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: (s.append(t.nbytes), t)[1], lambda t: t):
            out = model(images(64))[0]
        out.square().mean().backward()
        outcomes.append([out.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
        kept.append(sum(saved))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    assert kept[1] < 0.6 * kept[0]


def test_channels_last_gives_the_same_maps() -> None:
    model = narrow(ResNetV1d, depth=50).eval()
    expected = model(images(64))[0]
    found = model.to(memory_format=torch.channels_last)(images(64).to(memory_format=torch.channels_last))[0]
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_group_norm_is_named_gn() -> None:
    model = narrow(norm_cfg={"type": "GN", "num_groups": 2})
    assert "gn1.weight" in model.state_dict()
    assert "layer1.0.gn2.weight" in model.state_dict()
    assert model.eval()(images())[0].shape == (2, 64, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, "ResNet.depth: got 20, expected one of 18, 34, 50, 101, 152"),
        ({"num_stages": 5}, "ResNet.num_stages: got 5, expected 1 to 4"),
        ({"num_stages": 3}, "ResNet.strides: got 4 of them, expected one for each of 3 stages"),
        ({"dilations": (1, 1)}, "ResNet.dilations: got 2 of them, expected one for each of 4 stages"),
        ({"out_indices": (4,)}, "ResNet.out_indices: got (4,), expected numbers from -4 to 3"),
        ({"out_indices": ()}, "ResNet.out_indices: got (), expected numbers from -4 to 3"),
        ({"frozen_stages": 5}, "ResNet.frozen_stages: got 5, expected -1 to 4"),
    ],
)
def test_messages(arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        ResNet(**{"depth": 18, **arguments})
    assert str(caught.value) == message


def test_cifar_has_no_deep_stem() -> None:
    with pytest.raises(UserError) as caught:
        ResNet_CIFAR(depth=18, deep_stem=True)
    assert str(caught.value) == "ResNet_CIFAR.deep_stem: got True, but its stem is a single 3x3 convolution"


def test_every_layer_is_called_so_that_hooks_see_its_output() -> None:
    """Feature extraction, CAM and summaries hang on hooks; the shared relu of a Bottleneck is called three times."""
    model = narrow(depth=50).eval()
    called: list[str] = []
    for name, module in model.named_modules():
        if not name.endswith("drop_path"):  # at rate 0 there is nothing to drop
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    model(images())
    names = {name for name, _ in model.named_modules() if not name.endswith("drop_path")}
    assert set(called) == names
    assert called.count("layer1.0.relu") == 3
