"""paramwise_cfg: custom keys, flat parameters, layer-wise rates; and the table that shows the groups."""

from pathlib import Path

import pytest
from torch import nn

from distcls.errors import UserError
from distcls.models import ImageClassifier, build_classifier
from distcls.optim.optimizers import SGD, AdamW
from distcls.optim.param_groups import learning_rates, param_groups
from distcls.recipe.schema import check
from distcls.recipe.source import read

TINY = """\
model:
  backbone: {type: VisionTransformer, img_size: 16, patch_size: 8,
             arch: {embed_dims: 8, num_layers: 2, num_heads: 2, feedforward_channels: 16}}
  head: {type: VisionTransformerClsHead, num_classes: 3}
  freeze: [backbone.patch_embed]
data: {train: {path: a.beton}, val: {path: b.beton}, resolution: 16}
optimizer:
  type: AdamW
  lr: 0.1
  weight_decay: 0.5
  paramwise_cfg:
    layer_decay_rate: 0.5
    flat_decay_mult: 0.0
    custom_keys: {pos_embed: {decay_mult: 0.0}, cls_token: {decay_mult: 0.0}, head.layers: {lr_mult: 10.0}}
schedule: {type: CosineWarmup}
train: {epochs: 1, global_batch_size: 4}
"""


def vit() -> ImageClassifier:
    arch = {"embed_dims": 8, "num_layers": 2, "num_heads": 2, "feedforward_channels": 16}
    backbone = {"type": "VisionTransformer", "arch": arch, "img_size": 16, "patch_size": 8}
    head = {"type": "VisionTransformerClsHead", "num_classes": 3}
    return build_classifier({"backbone": backbone, "head": head}, (16, 16))


def by_name(groups: list[dict]) -> dict[str, tuple[float, float]]:
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}


def test_layer_decay() -> None:
    rates = by_name(AdamW(vit(), lr=1.0, weight_decay=0.5, paramwise_cfg={"layer_decay_rate": 0.5}).param_groups)
    expected = {"patch_embed.projection.weight": 0.125, "layers.0.ln1.weight": 0.25, "layers.1.ffn.layers.1.bias": 0.5}
    for name, rate in {**expected, "cls_token": 0.125, "ln1.bias": 1.0}.items():
        assert rates[f"backbone.{name}"] == (rate, 0.5)
    assert rates["head.layers.head.weight"] == (1.0, 0.5)


def test_the_longest_custom_key_counts_and_goes_before_the_kinds() -> None:
    keys = {
        "layers": {"lr_mult": 0.5},
        "layers.1.ln": {"decay_mult": 0.25},
        "head.layers": {"lr_mult": 2.0, "decay_mult": 0.5},
    }
    rules = {"norm_decay_mult": 0.0, "custom_keys": keys}
    found = by_name(param_groups(vit(), lr=1.0, weight_decay=1.0, paramwise_cfg=rules))
    assert found["backbone.layers.0.ln1.weight"] == (0.5, 1.0)
    assert found["backbone.layers.1.ln2.bias"] == (1.0, 0.25)
    assert found["head.layers.head.bias"] == (2.0, 0.5)
    assert found["backbone.ln1.weight"] == (1.0, 0.0)


def test_flat_parameters_where_no_other_rule_fits() -> None:
    rules = {"bias_decay_mult": 0.5, "flat_decay_mult": 0.0}
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.PReLU(3))
    found = by_name(param_groups(model, lr=1.0, weight_decay=1.0, paramwise_cfg=rules))
    decays = {name: decay for name, (_, decay) in found.items()}
    assert decays == {"0.weight": 1.0, "0.bias": 0.5, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.0}


def test_without_rules_there_is_one_group_at_the_optimizer_s_rate() -> None:
    (group,) = SGD(vit(), lr=0.3).param_groups
    assert group["lr"] == 0.3


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"custom_keys": {"pos_embd": {}}}, "optimizer.paramwise_cfg.custom_keys: no parameter's name contains 'pos_embd'. Did you mean 'pos_embed'?"),
        ({"layer_decay_rate": 0.9}, "optimizer.paramwise_cfg.layer_decay_rate: LeNet5 does not say how deep its layers lie (it has no get_layer_depth): remove the key, or set lr_mult by custom_keys"),
    ],
)  # fmt: skip
def test_messages(rules: dict, message: str) -> None:
    lenet = {"backbone": {"type": "LeNet5", "num_classes": 10}, "head": {"type": "ClsHead"}}
    model = build_classifier(lenet, (32, 32)) if "layer_decay_rate" in rules else vit()
    with pytest.raises(UserError) as caught:
        param_groups(model, lr=1.0, weight_decay=0.0, paramwise_cfg=rules)
    assert str(caught.value) == message


def test_a_misspelt_multiplier_is_found_in_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.replace("pos_embed: {decay_mult", "pos_embed: {decay_mul"))
    with pytest.raises(UserError) as caught:
        check(read(tmp_path / "tiny.yaml"))
    assert str(caught.value).endswith(
        "optimizer.paramwise_cfg.custom_keys.pos_embed.decay_mul: unknown key: expected lr_mult or decay_mult. Did you mean 'decay_mult'?"
    )


def test_nothing_left_to_train() -> None:
    with pytest.raises(UserError) as caught:
        param_groups(vit().requires_grad_(False), lr=1.0, weight_decay=0.0)
    assert str(caught.value) == "no parameter is left to train: all are frozen"


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from distcls.cli.recipe import show

    (tmp_path / "tiny.yaml").write_text(TINY)
    show(tmp_path / "tiny.yaml", params=True)
    assert capsys.readouterr().out.splitlines() == [
        "        lr  weight_decay     tensors    parameters  names",
        "    0.0125             0           2            48  backbone.cls_token backbone.pos_embed",
        "     0.025             0           8            88  backbone.layers.0.ln1.weight ... backbone.layers.0.ffn.layers.1.bias",
        "     0.025           0.5           4           512  backbone.layers.0.attn.qkv.weight ... backbone.layers.0.ffn.layers.1.weight",
        "      0.05             0           8            88  backbone.layers.1.ln1.weight ... backbone.layers.1.ffn.layers.1.bias",
        "      0.05           0.5           4           512  backbone.layers.1.attn.qkv.weight ... backbone.layers.1.ffn.layers.1.weight",
        "       0.1             0           2            16  backbone.ln1.weight backbone.ln1.bias",
        "         1           0.5           2            27  head.layers.head.weight head.layers.head.bias",
        "    frozen                         2         1,544  backbone.patch_embed.projection.weight backbone.patch_embed.projection.bias",
    ]


def test_rates_are_named_by_what_their_parameters_share():
    def group(lr, *names):
        return {"lr": lr, "names": list(names)}

    same = [group(0.1, "backbone.conv1.weight"), group(0.1, "head.fc.weight")]
    assert learning_rates(same, 0.1) == {"optim/lr": 0.1}
    two = [
        group(0.01, "backbone.conv1.weight", "backbone.layer1.0.conv1.weight"),
        group(0.01, "backbone.bn1.bias"),
        group(0.1, "head.fc.weight", "head.fc.bias"),
    ]
    assert learning_rates(two, 0.1) == {"optim/lr": 0.1, "optim/lr/backbone": 0.01, "optim/lr/head.fc": 0.1}
    unclear = [group(0.01, "backbone.a.weight", "head.b.weight"), group(0.1, "head.fc.weight")]
    assert learning_rates(unclear, 0.1) == {"optim/lr": 0.1, "optim/lr/x0.1": 0.01, "optim/lr/head.fc": 0.1}
    twice = [group(0.05, "backbone.a.weight"), group(0.1, "backbone.a.bias")]
    assert learning_rates(twice, 0.1) == {"optim/lr": 0.1, "optim/lr/x0.5": 0.05, "optim/lr/x1": 0.1}
