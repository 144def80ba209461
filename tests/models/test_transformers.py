"""What the arguments of VisionTransformer, SwinTransformer and ConvNeXt do, beyond the reference's numbers."""

import pytest
import torch
from torch import nn

from distcls.errors import UserError
from distcls.models import build_classifier
from distcls.models.backbones import ConvNeXt, DistilledVisionTransformer, SwinTransformer, VisionTransformer
from distcls.models.common.window_attention import map_to_windows, shift_mask, windows_to_map
from distcls.models.heads import DeiTClsHead
from tests.models.example_images import images

VIT = {"arch": {"embed_dims": 16, "num_layers": 3, "num_heads": 2, "feedforward_channels": 32}, "img_size": 32}
SWIN = {"arch": {"embed_dims": 8, "depths": [2, 2], "num_heads": [1, 2]}, "img_size": 32, "window_size": 4}
CONVNEXT = {"arch": {"depths": [1, 1, 3, 1], "channels": [4, 8, 16, 32]}}


def vit(cls: type[VisionTransformer] = VisionTransformer, **kwargs) -> VisionTransformer:
    model = cls(**{**VIT, "patch_size": 8, **kwargs})
    model.init_weights()
    return model


def swin(**kwargs) -> SwinTransformer:
    return SwinTransformer(**{**SWIN, "patch_size": 2, "out_indices": (1,), **kwargs})


def convnext(**kwargs) -> ConvNeXt:
    return ConvNeXt(**{**CONVNEXT, **kwargs})


@pytest.mark.parametrize(
    ("arguments", "shapes"),
    [
        ({}, [(2, 16)]),
        ({"out_indices": (0, -1)}, [(2, 16), (2, 16)]),
        ({"out_type": "featmap"}, [(2, 16, 4, 4)]),
        ({"out_type": "avg_featmap", "with_cls_token": False}, [(2, 16)]),
        ({"out_type": "raw"}, [(2, 17, 16)]),
    ],
)
def test_vit_outputs(arguments: dict, shapes: list) -> None:
    assert [tuple(out.shape) for out in vit(**arguments).eval()(images())] == shapes


def test_vit_featmap_is_the_patches_in_their_places() -> None:
    tokens, feature_map = (vit_out(out_type) for out_type in ("raw", "featmap"))
    assert torch.equal(feature_map[:, :, 1, 2], tokens[:, 1 + 4 + 2])


def vit_out(out_type: str) -> torch.Tensor:
    torch.manual_seed(0)
    return vit(out_type=out_type).eval()(images())[0]


def test_distilled_vit_gives_the_pair_that_its_head_takes() -> None:
    model = vit(DistilledVisionTransformer).eval()
    assert [[tuple(token.shape) for token in pair] for pair in model(images())] == [[(2, 16), (2, 16)]]
    block = {
        "backbone": {"type": "DistilledVisionTransformer", **VIT, "patch_size": 8},
        "head": {"type": "DeiTClsHead", "num_classes": 3},
    }
    classifier = build_classifier(block, (32, 32))
    assert isinstance(classifier.head, DeiTClsHead)
    assert classifier.head.in_channels == 16
    assert classifier(images()).shape == (2, 3)


def test_pre_norm_and_final_norm() -> None:
    model = vit(pre_norm=True, final_norm=False)
    assert model.patch_embed.projection.bias is None
    assert isinstance(model.pre_norm, nn.LayerNorm)
    assert not any(name.startswith("ln1") for name in model.state_dict())


def test_vit_takes_images_of_another_size() -> None:
    model = vit(out_type="featmap").eval()
    assert model(images(48))[0].shape == (2, 16, 6, 6)
    assert model(images(30))[0].shape == (2, 16, 4, 4)  # the last patch is completed with zeros


def test_position_embedding_is_resized_on_load() -> None:
    small, large = vit(), vit(img_size=64)
    large.load_state_dict(small.state_dict())
    assert torch.equal(large.pos_embed[:, 0], small.pos_embed[:, 0])
    expected = nn.functional.interpolate(
        small.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (4, 4)), size=(8, 8), mode="bicubic"
    )
    assert torch.allclose(large.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (8, 8)), expected)
    without = vit(with_cls_token=False, out_type="featmap")
    without.load_state_dict(small.state_dict(), strict=False)
    assert torch.equal(without.pos_embed, small.pos_embed[:, 1:])


def test_a_copied_model_resizes_for_itself() -> None:
    """torch's hooks hold the module that they were registered on: EMA's copy must not use the original's grid."""
    import copy

    model = vit()
    twin = copy.deepcopy(model)
    twin.load_state_dict(vit(img_size=64).state_dict())
    assert twin.pos_embed.shape == model.pos_embed.shape


def test_swin_maps_and_downsampling() -> None:
    assert [tuple(m.shape) for m in swin(out_indices=(0, 1)).eval()(images())] == [(2, 8, 16, 16), (2, 16, 8, 8)]
    after = swin(out_indices=(0, 1), out_after_downsample=True).eval()(images())
    assert [tuple(m.shape) for m in after] == [(2, 16, 8, 8), (2, 16, 8, 8)]


def test_windows_and_back() -> None:
    x = torch.arange(2 * 8 * 12 * 3).reshape(2, 8, 12, 3)
    windows = map_to_windows(x, 4)
    assert windows.shape == (2 * 2 * 3, 16, 3)
    assert torch.equal(windows[1].unflatten(0, (4, 4)), x[0, :4, 4:8])
    assert torch.equal(windows_to_map(windows, 4, (8, 12)), x)


def test_shifted_windows_keep_opposite_borders_apart() -> None:
    mask = shift_mask((8, 8), 4, 2, torch.device("cpu"))
    assert mask.shape == (4, 16, 16)
    assert (mask[0] == 0).all()  # in the middle of the map
    assert (mask[1].unflatten(0, (4, 4))[0, 0].unflatten(0, (4, 4)) == 0).tolist() == [[True, True, False, False]] * 4
    assert (mask[3] == 0).sum() == 4 * 4 * 4  # four corners that met


def test_a_shifted_window_sees_its_neighbours_and_not_the_opposite_border() -> None:
    """One pixel of the top left corner moves; only tokens of windows that hold it may change."""
    torch.manual_seed(0)
    block = swin().stages[0].blocks[1].eval()
    x = torch.randn(1, 64, 8)
    y = x.clone()
    y[0, 0, 0] += 1
    changed = (block(x, (8, 8)) - block(y, (8, 8))).abs().amax(2).unflatten(1, (8, 8))[0] > 1e-6
    assert changed[:2, :2].all()
    assert changed.sum() == 4


def test_small_maps() -> None:
    model = swin(window_size=7)
    with pytest.raises(UserError) as caught:
        model(images(8))
    assert str(caught.value) == (
        "SwinTransformer: a map of 4 x 4 is smaller than the window of 7: "
        "set pad_small_map, take a smaller window_size or larger images"
    )
    assert swin(window_size=7, pad_small_map=True)(images(8))[0].shape == (2, 16, 2, 2)


def test_bias_table_is_resized_on_load() -> None:
    small, large = swin(), swin(window_size=8)
    with torch.no_grad():
        small.stages[0].blocks[0].attn.w_msa.relative_position_bias_table.copy_(torch.arange(49.0)[:, None] // 7)
    large.load_state_dict(small.state_dict())
    table = large.stages[0].blocks[0].attn.w_msa.relative_position_bias_table.reshape(15, 15)
    assert torch.allclose(table[:, 0], table[:, 14])
    assert (table[1:, 0] > table[:-1, 0]).all()
    assert large.stages[0].blocks[0].attn.w_msa.relative_position_index.max() == 15 * 15 - 1


def test_swin_absolute_position_embedding_is_resized() -> None:
    small, large = swin(use_abs_pos_embed=True), swin(use_abs_pos_embed=True, img_size=64)
    large.load_state_dict(small.state_dict())
    assert large.absolute_pos_embed.shape == (1, 32 * 32, 8)


def test_convnext_pools_or_returns_maps() -> None:
    assert [tuple(out.shape) for out in convnext(out_indices=(0, -1)).eval()(images())] == [(2, 4), (2, 32)]
    assert convnext(gap_before_final_norm=False).eval()(images())[0].shape == (2, 32, 1, 1)


def test_convnext_v2_and_pointwise_convolutions() -> None:
    torch.manual_seed(0)
    linear = convnext(use_grn=True, layer_scale_init_value=0.0).eval()
    conv = convnext(use_grn=True, layer_scale_init_value=0.0, linear_pw_conv=False).eval()
    state = linear.state_dict()
    assert not any("gamma" in name and "grn" not in name for name in state)
    for name, entry in state.items():
        if "grn" in name:
            entry.normal_()
        if "pointwise" in name and "weight" in name:
            state[name] = entry[:, :, None, None]
    conv.load_state_dict(state)
    linear.load_state_dict({n: e.flatten(1) if "pointwise" in n and "weight" in n else e for n, e in state.items()})
    assert torch.allclose(linear(images())[0], conv(images())[0], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "frozen"),
    [
        (vit(frozen_stages=1), ("cls_token", "pos_embed", "patch_embed", "layers.0")),
        (vit(frozen_stages=3), ("",)),
        (
            vit(DistilledVisionTransformer, frozen_stages=1),
            ("cls_token", "dist_", "pos_embed", "patch_embed", "layers.0"),
        ),
        (swin(frozen_stages=0, out_indices=(0, 1)), ("patch_embed", "stages.0", "norm0")),
        (convnext(frozen_stages=2), ("downsample_layers.0", "downsample_layers.1", "stages.0", "stages.1")),
    ],
    ids=["vit", "whole vit", "distilled", "swin", "convnext"],
)
def test_frozen_stages(model: nn.Module, frozen: tuple[str, ...]) -> None:
    model.train()
    names = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert names == {name for name, _ in model.named_parameters() if name.startswith(frozen)}
    first = model.layers[0] if isinstance(model, VisionTransformer) else model.stages[0]
    assert not first.training


@pytest.mark.parametrize(
    ("model", "rates"),
    [
        (vit(drop_path_rate=0.2), [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]),
        (swin(drop_path_rate=0.3), [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]),
        (convnext(drop_path_rate=0.5), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
    ids=["vit", "swin", "convnext"],
)
def test_drop_path_rate_grows_linearly(model: nn.Module, rates: list[float]) -> None:
    found = [module.drop_prob for module in model.modules() if hasattr(module, "drop_prob")]
    assert found == pytest.approx(rates, abs=1e-6)


def test_layer_depths() -> None:
    model = vit(DistilledVisionTransformer)
    depths = {name: model.get_layer_depth(f"backbone.{name}", "backbone.") for name, _ in model.named_parameters()}
    assert depths["dist_token"] == depths["patch_embed.projection.weight"] == (0, 5)
    assert depths["layers.2.attn.qkv.weight"] == (3, 5)
    assert depths["ln1.weight"] == model.get_layer_depth("head.layers.head.weight", "backbone.") == (4, 5)
    depth = swin().get_layer_depth
    assert [depth(name) for name in ("stages.0.blocks.1.norm1.weight", "stages.0.downsample.norm.weight")] == [
        (2, 6)
    ] * 2
    assert depth("stages.1.blocks.0.attn.w_msa.qkv.weight") == (3, 6)
    assert depth("norm1.weight") == (5, 6)
    depth = ConvNeXt(arch="tiny").get_layer_depth
    names = ["downsample_layers.0.0.weight", "stages.0.0.gamma", "downsample_layers.2.0.bias", "stages.2.8.gamma"]
    assert [depth(name)[0] for name in names] == [0, 1, 3, 5]
    assert depth("norm3.weight") == (7, 8)


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (vit, {"arch": "bse"}, "VisionTransformer.arch: got 'bse', expected one of s, small, b, base, deit-b, deit-base, l, large, h, huge, eva-g, eva-giant, deit-t, deit-tiny, deit-s, deit-small, dinov2-s, dinov2-small. Did you mean 'base'?"),
        (vit, {"arch": {"embed_dims": 3}}, "VisionTransformer.arch: got a mapping with embed_dims, expected embed_dims, num_layers, num_heads, feedforward_channels"),
        (vit, {"out_indices": 3}, "VisionTransformer.out_indices: got (3,), expected numbers from -3 to 2"),
        (vit, {"with_cls_token": False}, "VisionTransformer.out_type: got 'cls_token', but with_cls_token is False"),
        (vit, {"layer_cfgs": [{}]}, "VisionTransformer.layer_cfgs: got 1 of them, expected one for each of 3"),
        (swin, {"frozen_stages": 2}, "SwinTransformer.frozen_stages: got 2, expected -1 to 1"),
        (convnext, {"out_indices": ()}, "ConvNeXt.out_indices: got (), expected numbers from -4 to 3"),
    ],
)  # fmt: skip
def test_messages(build, arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(**arguments)
    assert str(caught.value) == message


def test_sincos_position_embedding_is_fixed_and_leaves_the_class_token_alone() -> None:
    model = vit(position_embedding="sincos2d")
    assert not model.pos_embed.requires_grad
    assert not model.pos_embed[:, 0].any()
    # width 16: 4 frequencies, 1 to 1 / 10,000; the patch in row 2, column 1
    angles = torch.tensor([1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1e-4])
    expected = torch.cat((angles.sin(), angles.cos(), (2 * angles).sin(), (2 * angles).cos()))
    torch.testing.assert_close(model.pos_embed[0, 1 + 2 * 4 + 1], expected)
    with pytest.raises(UserError, match="position_embedding: sincos2d needs a width of 8, 12, 16"):
        vit(position_embedding="sincos2d", arch={**VIT["arch"], "embed_dims": 6})


def test_linear_layers_start_as_asked() -> None:
    def layers(model: nn.Module) -> dict[str, nn.Linear]:
        return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}

    normal = swin(linear_init="trunc_normal")
    normal.init_weights()
    for linear in layers(normal).values():
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert linear.bias is None or not linear.bias.any()
    for name, linear in layers(vit(linear_init="xavier_uniform")).items():
        rows = linear.out_features // (3 if name.endswith("qkv") else 1)
        bound = (6 / (rows + linear.in_features)) ** 0.5
        assert 0.9 * bound < linear.weight.abs().max() <= bound
        assert not linear.bias.any()


def test_patches_start_as_in_the_first_vit() -> None:
    """With torch's own start they have a third of the variance, and biases."""
    projection = vit(linear_init="xavier_uniform", patch_size=16).patch_embed.projection
    assert projection.weight.std().item() == pytest.approx((3 * 16 * 16) ** -0.5, rel=0.05)
    assert not projection.bias.any()
