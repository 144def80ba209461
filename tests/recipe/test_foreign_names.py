"""Hints for who knows another framework: its names are understood, also where one of ours is spelt more like them."""

from pathlib import Path

import pytest

from distcls.engine.checks.plugins import import_parts, import_plugin
from distcls.errors import UserError
from distcls.recipe import foreign_names
from distcls.recipe.errors import RecipeError
from distcls.recipe.schema import Recipe, check
from distcls.recipe.signature import keys_of_block, keys_of_part, paths_of
from distcls.recipe.source import read
from distcls.registry import ROLES

import_parts()

RECIPE = """\
model:
  backbone: {type: ResNet, depth: 50}
  neck: {type: GlobalAveragePooling}
  head: {type: LinearClsHead, num_classes: 10}
data: {train: {path: a.beton}, val: {path: b.beton}, resolution: 32}
optimizer: {type: SGD, lr: 0.1}
schedule: {type: CosineWarmup}
train: {epochs: 1, global_batch_size: 8}
"""


def mistakes(*overrides: str) -> list[str]:
    Path("r.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError) as caught:
        check(read(Path("r.yaml"), overrides))
    return [f"{'.'.join(map(str, one.path))}: {one.text}" for one in caught.value.problems]


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("data.augment=[{type: RandomFlip}]", "Did you mean 'RandomHorizontalFlip'?"),
        ("data.augment=[{type: colorjitter}]", "Did you mean 'ColorJitter'?"),
        ("data.augment=[{type: Normalize}]", "Leave it out: images are decoded, batched and normalised (mean and std of the data file) without it"),
        ("data.augment=[{type: CenterCrop}]", "Leave it out: data.resolution is the training size, data.val.crop_ratio the centre crop of evaluation"),
        ("data.augment=[{type: Mixup}]", "It belongs in data.mix"),
        ("data.mix=[{type: BatchCutMix, alpha: 1}]", "Did you mean 'CutMix'?"),
        ("optimizer={type: Adam, lr: 0.1}", "Did you mean 'AdamW'?"),
        ("optimizer={type: FusedLAMB, lr: 0.1}", "Did you mean 'Lamb'?"),
        ("schedule={type: CosineAnnealingLR}", "Did you mean 'CosineWarmup'?"),
        ("schedule={type: MultiStepLR, milestones: [1]}", "Did you mean 'StepWarmup'?"),
        ("schedule={type: StepLR, gamma: 0.1}", "Did you mean 'ExponentialWarmup'?"),
        ("model.head.loss={type: LabelSmoothingCrossEntropy, label_smooth_val: 0.1}", "Did you mean 'LabelSmoothLoss'?"),
        ("model.head.loss={type: BCEWithLogitsLoss}", "Write {type: CrossEntropyLoss, use_sigmoid: true}"),
        ("model.neck={type: AdaptiveAvgPool2d}", "Did you mean 'GlobalAveragePooling'?"),
        ("model.backbone={type: vit_base_patch16_224}", "`distcls models vit_base_patch16_224` looks among timm's and torchvision's"),
        ("model.backbone={type: resnet50, depth: 50}", "Did you mean 'ResNet'?"),
        ("data.batch_size=32", "Did you mean 'train.global_batch_size'?"),
        ("train.max_epochs=9", "Did you mean 'epochs'?"),
        ("seed=1", "Did you mean 'train.seed'?"),
        ("load_from=r50.pth", "Did you mean 'model.init.checkpoint'?"),
        ("work_dir=x", "Did you mean 'output_dir'?"),
        ("train.precision=amp", "Did you mean 'fp16'?"),
        ("distributed.strategy=deepspeed", "Did you mean 'zero2'?"),
        ("data.train=a.beton", "Did you mean {path: a.beton}?"),
        ("train.ema=0.999", "Did you mean {decay: 0.999}?"),
        ('optimizer.lr="0,1"', "Did you mean 0.1?"),
    ],
)  # fmt: skip
def test_a_foreign_name_is_understood(written: str, hint: str) -> None:
    [mistake] = mistakes(written)
    assert mistake.endswith(f". {hint}")


def test_the_arguments_of_a_class_that_is_surely_meant_are_checked_in_the_same_report() -> None:
    assert mistakes("data.augment=[{type: RandomFlip, prob: 0.5}]", "schedule={type: StepLR, gamma: '0.1'}") == [
        "data.augment.0.type: unknown augmentation: got 'RandomFlip', expected AutoAugment, ColorJitter, RandAugment, "
        "RandomCrop, RandomErasing, RandomHorizontalFlip, RandomResizedCrop, ThreeAugment or TrivialAugmentWide. "
        "Did you mean 'RandomHorizontalFlip'?",
        "data.augment.0.prob: unknown key: expected p. Did you mean 'p'?",
        "schedule.type: unknown schedule: got 'StepLR', expected CosineWarmup, ExponentialWarmup, LinearWarmup or "
        "StepWarmup. Did you mean 'ExponentialWarmup'?",
        "schedule.gamma: wrong type: got '0.1', expected a number > 0. Did you mean 0.1?",
    ]


def test_a_class_whose_plug_in_failed_is_not_guessed_at() -> None:
    Path("mine.py").write_text("import nowhere\n")
    Path("r.yaml").write_text(RECIPE.replace("ResNet,", "MyBackbone,") + "plugins: [mine.py]\n")
    source = read(Path("r.yaml"))
    import_parts(source)
    with pytest.raises(RecipeError) as caught:
        check(source)
    assert [problem.text for problem in caught.value.problems] == [
        "unknown backbone: got 'MyBackbone', expected one of this package or of a plug-in that can be imported",
        f"{Path('mine.py').resolve()}:1: ModuleNotFoundError: No module named 'nowhere'",
    ]


def test_what_is_left_out_is_said_where_a_plug_in_failed_too() -> None:
    text = RECIPE.replace("resolution: 32", "resolution: 32, augment: [{type: PackInputs}]") + "plugins: [mine.py]\n"
    Path("mine.py").write_text("import nowhere\n")
    Path("r.yaml").write_text(text)
    source = read(Path("r.yaml"))
    import_parts(source)
    with pytest.raises(RecipeError) as caught:
        check(source)
    assert caught.value.problems[0].text.endswith(
        "can be imported. Leave it out: images are decoded, batched and normalised (mean and std of the data file) "
        "without it"
    )


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("model.train_cfg={augments: []}", "Did you mean 'data.mix'?"),
        ("train_cfg={}", "Did you mean 'train'?"),
        ("custom_hooks=[{type: EMAHook}]", "Did you mean 'train.ema'?"),
        ("vis_backends=[]", "Did you mean 'tracking'?"),
        ("default_scope=mmpretrain", "Leave it out: it has no counterpart"),
        ("test_pipeline=[]", "Leave it out: data.val.resolution and data.val.crop_ratio say how images are evaluated"),
        ("train.by_epoch=true", "Leave it out: train.epochs counts epochs, train.max_steps updates"),
        ("eval.interval=1", "Did you mean 'every_epochs'?"),
        ("checkpoint.interval=1", "Did you mean 'every_steps'?"),
        ("checkpoint.save_best=auto", "Leave it out: the best weights are always kept"),
        ("data.persistent_workers=true", "Leave it out: the loader shuffles, batches and reads ahead by itself"),
        ("data.train.ann_file=train.txt", "Convert it once: distcls data convert ANN_FILE OUT.beton --image-root DATA_ROOT. It is the path"),
        ("optimizer.type=AmpOptimWrapper", "Write the optimizer inside it alone: train.precision and train.clip_grad_norm say the rest"),
        ("schedule=[{type: LinearLR}]", "expected a block such as {type: CosineWarmup}. It holds the warm-up, too"),
        ("data.augment=[{type: RandomResizedCrop, scale: 224}]", "expected a list of 2 numbers. data.resolution is the size in pixels"),
        ("data.augment=[{type: RandomResizedCrop, crop_ratio_range: [0.1, 1]}]", "Did you mean 'scale'?"),
        ("data.augment=[{type: RandomHorizontalFlip, direction: horizontal}]", "Leave it out: flips are horizontal"),
    ],
)  # fmt: skip
def test_what_mmpretrain_s_user_is_told(written: str, hint: str) -> None:
    (found,) = mistakes(written)
    assert found.endswith(hint)


def test_a_package_that_needs_openmmlab_is_told_at_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package inside a plug-in is not the plug-in that is missing."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "their_lab").mkdir()
    (tmp_path / "their_lab" / "__init__.py").write_text("from . import heads\n")
    (tmp_path / "their_lab" / "heads.py").write_text("\nfrom mmpretrain.registry import MODELS\n")
    with pytest.raises(UserError) as caught:
        import_plugin("their_lab")
    assert str(caught.value).startswith(
        f"{tmp_path}/their_lab/heads.py:2: ModuleNotFoundError: No module named 'mmpretrain'; a class is registered by "
    )
    with pytest.raises(UserError) as caught:
        import_plugin("nobodys_lab.heads")
    assert str(caught.value) == (
        "no module named 'nobodys_lab': install it, put its folder into PYTHONPATH, or give the path of a .py file"
    )


def test_what_the_table_names_exists() -> None:
    assert set(foreign_names._CLASSES) <= {name for registry in ROLES for name in registry.names()}
    arguments = {key for registry in ROLES for name in registry.names() for key in keys_of_block(registry, name).named}
    parts = {".".join(path) for path in paths_of(keys_of_part(Recipe))}
    told = {
        key.rpartition(".")[2] if key.startswith(("optimizer.", "schedule.", "model.head.")) else key
        for key in foreign_names._KEYS
    }
    assert told <= arguments | parts


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("from mmpretrain.registry import MODELS", "ModuleNotFoundError: No module named 'mmpretrain'"),
        ("from distcls.registry import BACKBONES as B; B.register_module()", "AttributeError: 'Registry' object has no attribute 'register_module'"),
        ("from distcls.registry import BACKBONES as B; B.register()", "TypeError: Registry.register() missing 1 required positional argument: 'cls'"),
    ],
)  # fmt: skip
def test_a_plug_in_that_registers_as_openmmlab_does_is_told_how(line: str, text: str) -> None:
    Path("mine.py").write_text(line + "\n")
    with pytest.raises(UserError) as caught:
        import_plugin(str(Path("mine.py").resolve()))
    assert str(caught.value) == (
        f"{Path('mine.py').resolve()}:1: {text}; a class is registered by its role: from distcls.registry import "
        "BACKBONES, then @BACKBONES.register above it"
    )
