"""ImageClassifier and build_classifier: what fits together, and what is said where it does not."""

import pytest
import torch
from torch import nn

from distcls.errors import UserError
from distcls.models import ImageClassifier, build_classifier
from distcls.models.backbones import ResNet_CIFAR
from distcls.models.heads import ClsHead, LinearClsHead
from distcls.models.necks import GlobalAveragePooling
from distcls.registry import BACKBONES, HEADS, LOSSES, NECKS, ROLES


def block(**head) -> dict:
    return {
        "backbone": {"type": "ResNet_CIFAR", "depth": 18, "stem_channels": 4, "base_channels": 4},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "num_classes": 10, "topk": [1, 5], **head},
    }


def build(**head) -> ImageClassifier:
    torch.manual_seed(0)
    return build_classifier(block(**head), (16, 16))


def body() -> dict[str, nn.Module]:
    backbone = ResNet_CIFAR(depth=18, stem_channels=4, base_channels=4)
    return {"backbone": backbone, "neck": GlobalAveragePooling()}


IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 9])


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for role in ROLES:
        monkeypatch.setattr(role, "_classes", dict(role._classes))


def test_importing_the_package_registers_the_parts() -> None:
    assert {"ResNet", "ResNetV1c", "ResNetV1d", "ResNet_CIFAR"} <= set(BACKBONES.names())
    assert {"GlobalAveragePooling"} <= set(NECKS.names())
    assert {"ClsHead", "LinearClsHead"} <= set(HEADS.names())
    assert {"CrossEntropyLoss", "LabelSmoothLoss", "L1Loss"} <= set(LOSSES.names())


def test_logits_without_a_target_loss_and_counts_with_one() -> None:
    model = build()
    logits = model.eval()(IMAGES)
    assert logits.shape == (4, 10)
    entries = model(IMAGES, TARGET)
    assert list(entries) == ["loss", "top1", "top5"]
    assert all(entry.shape == () for entry in entries.values())
    assert entries["loss"].requires_grad
    assert not entries["top1"].requires_grad
    assert entries["loss"].item() == pytest.approx(nn.functional.cross_entropy(logits, TARGET).item(), rel=1e-6)
    again = model.loss(logits, TARGET)
    assert all(torch.equal(again[key], entries[key]) for key in entries)


def test_soft_targets() -> None:
    model = build()
    soft = nn.functional.one_hot(TARGET, 10).float()
    assert torch.allclose(model(IMAGES, soft)["loss"], model(IMAGES, TARGET)["loss"])


def test_every_parameter_gets_a_gradient() -> None:
    model = build()
    model(IMAGES, TARGET)["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_float64() -> None:
    entries = build(loss={"type": "LabelSmoothLoss", "label_smooth_val": 0.1}).double()(IMAGES.double(), TARGET)
    assert entries["loss"].dtype == torch.float64


def test_bfloat16_autocast_takes_the_loss_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert build()(IMAGES, TARGET)["loss"].dtype == torch.float32


def test_the_dry_run_leaves_no_trace() -> None:
    """The weights are those of the same modules built by hand after the same seed; averages and modes are as new."""
    model = build()
    torch.manual_seed(0)
    by_hand = ImageClassifier(**body(), head=LinearClsHead(num_classes=10, in_channels=32, topk=(1, 5)))
    by_hand.init_weights()
    expected_next = torch.rand(1)
    for (name, found), expected in zip(model.state_dict().items(), by_hand.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name
    build()
    assert torch.equal(torch.rand(1), expected_next)
    assert all(module.training for module in model.modules())


def test_in_channels_is_filled_in_and_checked() -> None:
    assert build().head.in_channels == 32
    assert build(in_channels=32).head.fc.in_features == 32
    with pytest.raises(UserError) as caught:
        build(in_channels=512)
    assert str(caught.value) == (
        "LinearClsHead.in_channels: got 512, but GlobalAveragePooling gives it 32 channels. "
        "Leave in_channels out and it is filled in"
    )


def test_one_dry_run_of_the_backbone(registries) -> None:
    calls = []

    @BACKBONES.register
    class CountingBackbone(ResNet_CIFAR):
        def forward(self, x):
            calls.append(tuple(x.shape))
            return super().forward(x)

    build_classifier(
        {**block(), "backbone": {**block()["backbone"], "type": "CountingBackbone", "in_channels": 1}}, (16, 20)
    )
    assert calls == [(1, 1, 16, 20)]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"num_classes": 3}, "LinearClsHead.topk: got (1, 5), expected at most 3, the number of classes"),
        ({"num_classes": -1}, "LinearClsHead.num_classes: got -1, expected a positive number"),
    ],
)
def test_messages(head: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(**head)
    assert str(caught.value) == message


RESNET = block()["backbone"]
CLS = {"type": "ClsHead"}
VIT = {"type": "VisionTransformer", "arch": "deit-tiny", "img_size": 16, "patch_size": 8}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"backbone": {**RESNET, "norm_cfg": {"type": "BN", "epsilon": 1e-3}}},
            "ResNet_CIFAR.norm_cfg: cannot be built like this: "
            "_BatchNorm.__init__() got an unexpected keyword argument 'epsilon'",
        ),
        (
            {"backbone": {**RESNET, "norm_cfg": {"type": "GN", "num_groups": 3}}},
            "ResNet_CIFAR.norm_cfg: cannot be built like this: num_channels (4) must be divisible by num_groups (3)",
        ),
        (
            {"backbone": {**RESNET, "conv_cfg": {"type": "Conv2d", "bias": True}}},
            "ResNet_CIFAR.conv_cfg: got bias, which each convolution has its own of",
        ),
        (
            {"backbone": {**VIT, "layer_cfgs": {"nonsense": 1}}},
            "VisionTransformer: cannot be built like this: "
            "TransformerEncoderLayer.__init__() got an unexpected keyword argument 'nonsense'",
        ),
        (
            {
                "backbone": {
                    **VIT,
                    "arch": {"embed_dims": 8, "num_layers": 1, "num_heads": 3, "feedforward_channels": 8},
                }
            },
            "VisionTransformer.arch: got 3 heads for 8 channels, expected a divisor of these",
        ),
        (
            {"backbone": {"type": "AlexNet"}},
            "AlexNet: fails on an input of shape (1, 3, 16, 16): Given input size: (192x1x1). "
            "Calculated output size: (192x0x0). Output size is too small. Expected a size and arguments that it can take",
        ),
        (
            {"neck": {"type": "LinearNeck", "in_channels": 5, "out_channels": 7, "gap_dim": 2}},
            "LinearNeck.in_channels: got 5, but the backbone gives it 32 channels",
        ),
        (
            {"neck": {"type": "LinearNeck", "in_channels": 32, "out_channels": 7}},
            "LinearNeck.gap_dim: got 0 for features of shape (1, 32, 2, 2), expected 2",
        ),
        (
            {"backbone": VIT, "neck": {"type": "GeneralizedMeanPooling"}},
            "GeneralizedMeanPooling: got features of shape (1, 192), expected maps (N, C, H, W). "
            "Features that are pooled already need no neck: model.neck=null",
        ),
        (
            {"backbone": VIT, "neck": None, "head": {"type": "DeiTClsHead", "num_classes": 10}},
            "DeiTClsHead: got features of shape (1, 192), expected the two tokens of a DistilledVisionTransformer; "
            "for one token there is VisionTransformerClsHead",
        ),
        (
            {"neck": None, "head": CLS},
            "ClsHead: got features of shape (1, 32, 2, 2), expected scores (N, C): it has no layers, so the "
            "backbone must classify (LeNet5, AlexNet and VGG do with num_classes); else take LinearClsHead",
        ),
        ({"head": {**CLS, "topk": [1, 50]}}, "ClsHead.topk: got (1, 50), expected at most 32, the number of classes"),
    ],
    ids=lambda given: "" if isinstance(given, str) else ", ".join(given),
)
def test_parts_that_cannot_be_built_or_do_not_fit(parts: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_classifier({**block(), **parts}, (16, 16))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            {"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0]},
            "CrossEntropyLoss.class_weight: got 2 values, expected one for each of 10 classes",
        ),
        (
            {"type": "LabelSmoothLoss", "label_smooth_val": 0.1, "class_weight": [1.0, 2.0]},
            "LabelSmoothLoss.class_weight: got 2 values, expected one for each of 10 classes",
        ),
        ({"type": "SeesawLoss", "num_classes": 3}, "SeesawLoss.num_classes: got 3, but the head has 10"),
    ],
    ids=lambda given: "" if isinstance(given, str) else given["type"],
)
def test_a_loss_that_does_not_fit_is_refused_before_the_first_batch(loss: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(loss=loss)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "head",
    [
        {"loss": [{"type": "SeesawLoss", "num_classes": 10}, {"type": "CrossEntropyLoss", "class_weight": "auto"}]},
        {"type": "MultiLabelLinearClsHead", "topk": 3, "loss": {"type": "AsymmetricLoss"}},
    ],
    ids=["counting", "multi-label"],
)
def test_trying_the_loss_leaves_no_trace(head: dict) -> None:
    state = build(**head).state_dict()
    assert all(not entry.any() for name, entry in state.items() if "cum_samples" in name)
    with pytest.raises(UserError, match="auto needs the training set's counts"):
        build(loss={"type": "CrossEntropyLoss", "class_weight": "auto"})(IMAGES, TARGET)


def test_no_neck() -> None:
    with pytest.raises(
        UserError, match=r"^LinearClsHead: got features of shape \(1, 32, 2, 2\), expected \(N, C\): add a neck"
    ):
        build_classifier({**block(), "neck": None}, (16, 16))


def test_features_that_are_pooled_already_need_no_neck() -> None:
    """torch's pooling would make one row of the whole batch, which a dry run with one image does not tell."""
    block = {"backbone": {"type": "ConvNeXt", "arch": "atto"}, "neck": {"type": "GlobalAveragePooling"}}
    block["head"] = {"type": "LinearClsHead", "num_classes": 5, "topk": [1], "loss": {"type": "CrossEntropyLoss"}}
    with pytest.raises(UserError) as caught:
        build_classifier(block, image_size=(32, 32))
    assert str(caught.value) == (
        "GlobalAveragePooling: got features of shape (1, 320), expected 4 dimensions, (N, C) and 2 of positions. "
        "Features that are pooled already need no neck: model.neck=null"
    )
    build_classifier({**block, "neck": None}, image_size=(32, 32))


def test_a_head_without_forward_is_told_what_its_output_should_be(registries) -> None:
    @HEADS.register
    class HeadWithoutForward(ClsHead):
        def __init__(self, num_classes: int, in_channels: int) -> None:
            super().__init__()
            self.num_classes = num_classes
            self.fc = nn.Linear(in_channels, num_classes)

    with pytest.raises(UserError) as caught:
        build_classifier({**block(), "head": {"type": "HeadWithoutForward", "num_classes": 10}}, (16, 16))
    assert str(caught.value) == (
        "HeadWithoutForward.forward: got an output of shape (1, 32) for one image, expected logits (1, 10)"
    )


class TensorHead(nn.Module):
    """A head that knows nothing of ours: its loss is a tensor, its features come as one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 3)

    def forward(self, x):
        return self.fc(x)

    def forward_train(self, x, gt_label):
        return nn.functional.cross_entropy(self.fc(x), gt_label)


def test_a_head_may_return_its_loss_alone() -> None:
    entries = ImageClassifier(**body(), head=TensorHead())(IMAGES, torch.tensor([0, 1, 2, 0]))
    assert list(entries) == ["loss"]
    assert entries["loss"].requires_grad


def test_entries_named_loss_are_summed_into_the_objective_and_the_rest_detached() -> None:
    class TwoLosses(TensorHead):
        def forward_train(self, x, gt_label):
            score = self.fc(x)
            return {"loss_main": score.sum(), "aux_loss": 2 * score.sum(), "norm": score.norm()}

    entries = ImageClassifier(**body(), head=TwoLosses())(IMAGES, TARGET)
    assert entries["loss"].item() == pytest.approx(3 * entries["loss_main"].item())
    assert [name for name, entry in entries.items() if entry.requires_grad] == ["loss"]

    class NoLoss(TensorHead):
        def forward_train(self, x, gt_label):
            return {"score": self.fc(x).sum()}

    with pytest.raises(UserError) as caught:
        ImageClassifier(**body(), head=NoLoss())(IMAGES, TARGET)
    assert str(caught.value) == (
        "the head's forward_train: got entries ['score'], expected one whose name contains 'loss'"
    )


def test_parts_written_for_tensors_get_tensors_and_several_maps_stay_a_tuple() -> None:
    class LastOfTwo(nn.Module):
        def forward(self, x):
            assert isinstance(x, tuple)
            return x[-1].mean((2, 3))

    class Strict(nn.Module):
        def forward(self, x):
            assert isinstance(x, torch.Tensor)
            return x.mean((2, 3))

    parts = body()
    assert ImageClassifier(**{**parts, "neck": Strict()}, head=TensorHead())(IMAGES).shape == (4, 3)
    parts["backbone"].out_indices = (2, 3)
    assert ImageClassifier(**{**parts, "neck": LastOfTwo()}, head=TensorHead())(IMAGES).shape == (4, 3)
    assert ImageClassifier(**parts, head=LinearClsHead(num_classes=3, in_channels=32))(IMAGES).shape == (4, 3)


def test_an_error_in_a_users_part_keeps_its_traceback_and_says_where_it_was(registries) -> None:
    @BACKBONES.register
    class BrokenBackbone(nn.Module):
        def forward(self, x):
            raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes") as caught:
        build_classifier({**block(), "backbone": {"type": "BrokenBackbone"}}, (16, 16))
    assert caught.value.__notes__ == ["(in the dry run of BrokenBackbone on one image)"]


def test_channels_last_gives_the_same_loss() -> None:
    model = build().eval()
    expected = model(IMAGES, TARGET)["loss"]
    model = model.to(memory_format=torch.channels_last)
    assert torch.allclose(model(IMAGES.to(memory_format=torch.channels_last), TARGET)["loss"], expected, rtol=1e-5)


def test_compiles_in_one_graph() -> None:
    backbone = ResNet_CIFAR(
        depth=18, base_channels=4, stem_channels=4, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,)
    )
    head = LinearClsHead(num_classes=10, in_channels=4, topk=(1, 5))
    model = ImageClassifier(backbone=backbone, neck=GlobalAveragePooling(), head=head).eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(IMAGES), model(IMAGES), atol=1e-6)
    assert torch.allclose(compiled(IMAGES, TARGET)["loss"], model(IMAGES, TARGET)["loss"])
