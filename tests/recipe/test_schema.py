"""What a recipe may say: conversions, defaults, and one sentence per kind of mistake, compared word by word."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator
from typing_extensions import TypedDict

from distcls.recipe.errors import RecipeError
from distcls.recipe.schema import check
from distcls.recipe.source import read
from distcls.recipe.yaml12 import to_yaml
from distcls.registry import HEADS, LOSSES, NECKS
from tests.recipe.parts import WHOLE, checked

pytestmark = pytest.mark.usefixtures("stand_ins")


def report(*overrides: str, text: str = WHOLE) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        checked(*overrides, text=text)
    return str(caught.value).splitlines()[1:]


def test_blocks_keep_what_the_user_wrote_converted_to_the_annotations() -> None:
    recipe = checked("model.backbone.out_indices=[1, 2]", "optimizer.lr=1")
    assert recipe.model.backbone == {"type": "ResNet", "depth": 50, "out_indices": (1, 2)}
    assert recipe.data.augment == [{"type": "RandomResizedCrop", "scale": (0.5, 1.0)}, {"type": "RandomHorizontalFlip"}]
    assert recipe.optimizer == {"type": "SGD", "lr": 1.0, "weight_decay": 5e-5}
    assert type(recipe.optimizer["lr"]) is float
    assert type(recipe.train.epochs) is int


def test_the_recipe_is_named_after_its_file_and_its_folder_after_the_recipe() -> None:
    recipe = checked(name="resnet.yaml")
    assert (recipe.name, recipe.output_dir) == ("resnet", "runs/resnet")
    recipe = checked("name=mine")
    assert (recipe.name, recipe.output_dir) == ("mine", "runs/mine")
    assert checked("output_dir=elsewhere").output_dir == "elsewhere"


def test_resolved_has_every_default_and_only_what_a_recipe_can_hold() -> None:
    resolved = checked().resolved()
    assert resolved["model"] == {
        "backbone": {
            "type": "ResNet",
            "depth": 50,
            "num_stages": 4,
            "out_indices": [3],
            "norm_cfg": {"type": "BN"},
            "init_cfg": None,  # act, a function, is left out
        },
        "neck": {"type": "GlobalAveragePooling"},
        "head": {
            "type": "LinearClsHead",
            "num_classes": 10,
            "in_channels": None,
            "loss": {"type": "CrossEntropyLoss", "reduction": "mean", "loss_weight": 1.0},
            "topk": [1, 5],
        },
        "init": None,
        "freeze": [],
    }
    assert to_yaml({"optimizer": resolved["optimizer"]}) == (
        "optimizer:\n  type: SGD\n  lr: 0.5\n  momentum: 0.9\n  weight_decay: 5.0e-05\n  nesterov: false\n"
    )
    assert resolved["eval"] == {"every_epochs": 1.0, "batch_size": None, "tta": None, "metrics": []}
    assert resolved["data"]["val"] == {"path": "val.beton", "crop_ratio": 0.875, "resolution": None}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.backbone={type: Timm, name: vit, img_size: 224, depths: [1, no]}"],
        ["model.neck=null", "data.augment=[]", "optimizer={type: AdamW, lr: 1e-3}"],
        ["model.head.loss={type: SumOfLosses, losses: [{type: CrossEntropyLoss}, {type: SumOfLosses, losses: []}]}"],
        ["train.epochs=null", "train.max_steps=7", "tracking.notes='a: #b\n\nc'", "tracking.tags=[no, '1e3', '']"],
        ["data.resolution={start: 128, end: 192, ramp: [11, 13]}", "data.sampler=repeated", "data.repeats=4"],
        ["data.train.path=[a, b]", "plugins=[./x.py, lab.heads]", "name=no"],
    ],
)
def test_a_resolved_recipe_is_a_recipe_of_the_same_meaning(overrides: list[str]) -> None:
    resolved = checked(*overrides).resolved()
    text = to_yaml(resolved)
    again = checked(text=text, name="of_another_name.yaml")
    assert read(Path("of_another_name.yaml")).tree == resolved
    assert again.resolved() == resolved
    assert to_yaml(again.resolved()) == text


@pytest.mark.parametrize(
    ("override", "line"),
    [
        # one value
        ("optimizer.lr=fast", "optimizer.lr: wrong type: got 'fast', expected a number > 0"),
        ("optimizer.lr='0.1'", "optimizer.lr: wrong type: got '0.1', expected a number > 0. Did you mean 0.1?"),
        ("optimizer.lr=true", "optimizer.lr: wrong type: got true, expected a number > 0"),
        ("optimizer.lr=", "optimizer.lr: wrong type: got null, expected a number > 0"),
        ("optimizer.lr=0", "optimizer.lr: out of range: got 0, expected a number > 0"),
        ("optimizer.lr=.nan", "optimizer.lr: not finite: got .nan, expected a number > 0"),
        ("optimizer.momentum=1e999", "optimizer.momentum: not finite: got .inf, expected a number"),
        ("train.seed=-1", "train.seed: out of range: got -1, expected a whole number >= 0 and < 9223372036854775808"),
        (
            "train.seed=9223372036854775808",
            "train.seed: out of range: got 9223372036854775808, expected a whole number >= 0 and < 9223372036854775808",
        ),
        ("train.seed=true", "train.seed: wrong type: got true, expected a whole number >= 0 and < 9223372036854775808"),
        ("train.seed=1.5", "train.seed: wrong type: got 1.5, expected a whole number >= 0 and < 9223372036854775808"),
        ("train.global_batch_size=1e3", "train.global_batch_size: wrong type: got 1000.0, expected a whole number > 0. Did you mean 1000?"),
        ("train.global_batch_size=1_000", "train.global_batch_size: wrong type: got '1_000', expected a whole number > 0. Did you mean 1000?"),
        ("data.resolution=big", "data.resolution: wrong type: got 'big', expected a whole number > 0 or a mapping"),
        ("data.resolution={start: 0, end: 9, ramp: [1, 2]}", "data.resolution.start: out of range: got 0, expected a whole number > 0"),
        ("data.resolution={start: 8, end: 9, ramp: [1]}", "data.resolution.ramp: wrong length: got [1], expected a list of 2 whole numbers"),
        ("data.resolution={start: 8, end: 9, ramp: [3, 2]}", "data.resolution.ramp: ends before it begins: got [3, 2], expected the last epoch of start, then the first of end"),
        ("data.resolution={start: 8, end: 9, ramps: [1, 2]}", "data.resolution.ramps: unknown key: expected start, end, ramp or multiple_of. Did you mean 'ramp'?"),
        ("train.epochs=many", "train.epochs: wrong type: got 'many', expected a number > 0 or null"),
        ("train.epochs=-1", "train.epochs: out of range: got -1, expected a number > 0 or null"),
        ("train.channels_last=yes", "train.channels_last: wrong type: got 'yes', expected true or false. Did you mean true?"),
        ("train.channels_last=1", "train.channels_last: wrong type: got 1, expected true or false"),
        ("train.precision=bf61", "train.precision: unknown choice: got 'bf61', expected fp32, bf16, fp16 or fp64. Did you mean 'bf16'?"),
        ("train.clip_grad_norm=None", "train.clip_grad_norm: wrong type: got 'None', expected a number > 0 or null. Did you mean null?"),
        ("checkpoint.keep=1", "checkpoint.keep: out of range: got 1, expected a whole number >= 2"),
        ("checkpoint.resume=False", "checkpoint.resume: unknown choice: got false, expected auto, never or must"),
        ("tracking.name=010", "tracking.name: wrong type: got 10, expected a text or null. Did you mean '10'?"),
        ("tracking.tags=a", "tracking.tags: wrong type: got 'a', expected a list of texts. Did you mean ['a']?"),
        ("data.val.crop_ratio=1.5", "data.val.crop_ratio: out of range: got 1.5, expected a number > 0 and <= 1"),
        ("data.train.path=[]", "data.train.path: wrong length: got [], expected a text or a list of texts, at least 1"),
        ("data.train.path=[a, 3]", "data.train.path.1: wrong type: got 3, expected a text. Did you mean '3'?"),
        ("model.backbone.depth=51", "model.backbone.depth: unknown choice: got 51, expected 18, 34, 50, 101 or 152"),
        ("model.backbone.depth='50'", "model.backbone.depth: unknown choice: got '50', expected 18, 34, 50, 101 or 152. Did you mean 50?"),
        ("model.backbone.num_stages=5", "model.backbone.num_stages: out of range: got 5, expected a whole number >= 1 and <= 4"),
        ("model.backbone.out_indices=3", "model.backbone.out_indices: wrong type: got 3, expected a list of whole numbers. Did you mean [3]?"),
        ("model.backbone.norm_cfg=BN", "model.backbone.norm_cfg: wrong type: got 'BN', expected a mapping"),
        ("model.backbone.act=relu", "model.backbone.act: wrong type: got 'relu', expected an object that only Python code can make"),
        ("model.head.topk=a", "model.head.topk: wrong type: got 'a', expected a whole number or a list of whole numbers"),
        ("model.head.topk=[1, a]", "model.head.topk.1: wrong type: got 'a', expected a whole number"),
        ("data.augment.0.scale=[1]", "data.augment.0.scale: wrong length: got [1], expected a list of 2 numbers"),
        ("data.augment.0.scale=[1, 2, 3]", "data.augment.0.scale: wrong length: got [1, 2, 3], expected a list of 2 numbers"),
        ("model.head.topk=(1, 5)", "model.head.topk: wrong type: got '(1, 5)', expected a whole number or a list of whole numbers. "
         "Did you mean [1, 5]?"),
        ("model.head.topk='(1, )'", "model.head.topk: wrong type: got '(1, )', expected a whole number or a list of whole numbers. "
         "Did you mean [1]?"),
        # paths
        ("output_dir=~/runs", "output_dir: ~ and $ are not expanded here: got '~/runs', expected the path written out"),
        ("data.train.path=[a.beton, $DATA/b.beton]", "data.train.path: ~ and $ are not expanded here: got '$DATA/b.beton', "
         "expected the path written out"),
        # keys
        ("optimzer.lr=1", "optimzer: unknown key: expected name, plugins, output_dir, model, data, optimizer, schedule, train, eval, "
         "checkpoint, tracking or distributed. Did you mean 'optimizer'?"),
        ("optimizer.momentun=1", "optimizer.momentun: unknown key: expected lr, momentum, weight_decay or nesterov. Did you mean 'momentum'?"),
        ("eval.batchsize=1", "eval.batchsize: unknown key: expected every_epochs, batch_size, tta or metrics. Did you mean 'batch_size'?"),
        ("optimizer.model=[]", "optimizer.model: not for the recipe: distcls supplies 'model' of an optimizer; remove the key"),
        ("schedule.total_steps=9", "schedule.total_steps: not for the recipe: distcls supplies 'total_steps' of a schedule; remove the key"),
        ("model.neck.dim=1", "model.neck.dim: unknown key: expected only the type"),
        # blocks
        ("model.backbone.type=resnet", "model.backbone.type: unknown backbone: got 'resnet', expected ResNet, ResNet_CIFAR or Timm. "
         "Did you mean 'ResNet'?"),
        ("model.neck.type=ResNet", "model.neck.type: a backbone, not a neck: got 'ResNet', expected GlobalAveragePooling"),
        ("model.head.loss.type=[L1]", "model.head.loss.type: unknown loss: got ['L1'], expected CrossEntropyLoss or SumOfLosses"),
        ("model.head.loss=CrossEntropyLoss", "model.head.loss: wrong type: got only the name 'CrossEntropyLoss', "
         "expected a block such as {type: CrossEntropyLoss}"),
        ("model.backbone=null", "model.backbone: wrong type: got null, expected a block such as {type: ResNet}"),
        ("model.neck=None", "model.neck: wrong type: got 'None', expected null or a block such as {type: GlobalAveragePooling}. "
         "Did you mean null?"),
        ("data.augment={type: RandomHorizontalFlip}", "data.augment: wrong type: got a mapping, "
         "expected a list of blocks such as [{type: RandomResizedCrop}]"),
        ("data.augment.1.p=2", "data.augment.1.p: out of range: got 2, expected a number >= 0 and <= 1"),
        ("model.head.loss={type: SumOfLosses, losses: [{type: SumOfLosses, losses: [{type: CrossEntropyLoss, reduction: men}]}]}",
         "model.head.loss.losses.0.losses.0.reduction: unknown choice: got 'men', expected mean or sum. Did you mean 'mean'?"),
        ("eval=3", "eval: wrong type: got 3, expected a mapping with every_epochs, batch_size, tta or metrics"),
        ("data.train=a.beton", "data.train: wrong type: got 'a.beton', expected a mapping with path. Did you mean {path: a.beton}?"),
        # more than one key
        ("train.max_steps=9", "train.max_steps: two lengths: got epochs 3 and max_steps 9, expected one of them; set the other to null"),
        ("optimizer.type=AdamW", "optimizer.lr: missing key: expected a number > 0"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_line(override: str, line: str) -> None:
    assert report(override) == [f"command line: {line}"]


def test_missing_keys_point_to_the_mapping_that_lacks_them() -> None:
    text = (
        "model:\n  backbone: {}\n  head:\n    type: LinearClsHead\ndata: {val: {}}\ntrain: {}\noptimizer: {type: SGD}\n"
    )
    assert report(text=text) == [
        "recipe.yaml:1:1: schedule: missing key: expected a block such as {type: CosineWarmup}",
        "recipe.yaml:2:3: model.backbone.type: missing key: expected the name of a backbone: ResNet, ResNet_CIFAR or Timm",
        "recipe.yaml:3:3: model.head.num_classes: missing key: expected a whole number > 0",
        "recipe.yaml:5:1: data.train: missing key: expected a mapping with path",
        "recipe.yaml:5:1: data.resolution: missing key: expected a whole number > 0 or a mapping",
        "recipe.yaml:5:8: data.val.path: missing key: expected a text or a list of texts, at least 1",
        "recipe.yaml:6:1: train.global_batch_size: missing key: expected a whole number > 0",
        "recipe.yaml:6:1: train: no length: expected epochs or max_steps",
        "recipe.yaml:7:1: optimizer.lr: missing key: expected a number > 0",
    ]


def test_a_misspelt_key_is_not_missing_too() -> None:
    assert report(text=WHOLE.replace("epochs: 3", "epoch: 3").replace("lr: 0.5", "Lr: 0.5")) == [
        "recipe.yaml:15:24: optimizer.Lr: unknown key: expected lr, momentum, weight_decay or nesterov. Did you mean 'lr'?",
        "recipe.yaml:17:9: train.epoch: unknown key: expected epochs, max_steps, global_batch_size, accumulation_steps, precision, "
        "clip_grad_norm, seed, log_every_steps, ema, compile, cuda_graphs or channels_last. Did you mean 'epochs'?",
    ]  # fmt: skip


def test_where_a_base_cannot_be_read_nothing_is_missing() -> None:
    assert report(text="_base_: none.yaml\noptimizer: {type: SGD, momentum: x}\n") == [
        "recipe.yaml:1:1: _base_: no such file: none.yaml",
        "recipe.yaml:2:24: optimizer.momentum: wrong type: got 'x', expected a number",
    ]


def test_the_batch_divides_into_accumulation_steps() -> None:
    assert report("train.accumulation_steps=3") == [
        "recipe.yaml:17:20: train.global_batch_size: not divisible: got 256, expected a multiple of train.accumulation_steps, which is 3"
    ]  # fmt: skip


def head_report(cls: type, arguments: str) -> list[str]:
    HEADS.register(cls)
    Path("recipe.yaml").write_text(WHOLE)
    source = read(Path("recipe.yaml"), [f"model.head={{type: {cls.__name__}, {arguments}}}"])
    try:
        check(source)
    except RecipeError as error:
        return [str(problem).removeprefix("command line: model.head.") for problem in error.problems]
    return []


def test_the_authors_own_validator_speaks_for_itself() -> None:
    def odd(value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd.")
        return value

    class Odd:
        def __init__(self, kernel: Annotated[int, AfterValidator(odd)]) -> None: ...

    assert head_report(Odd, "kernel: 3") == []
    assert head_report(Odd, "kernel: 4") == ["kernel: refused: must be odd: got 4, expected a whole number"]


def test_a_typed_dict_is_a_part_with_keys_of_its_own() -> None:
    class Rules(TypedDict, total=False):
        norm: float
        bias: float

    class Head:
        def __init__(self, rules: Rules | None = None) -> None: ...

    Head.__init__.__annotations__["rules"] = Rules | None
    assert head_report(Head, "rules: null") == []
    assert head_report(Head, "rules: {nrom: 1, bias: x}") == [
        "rules.nrom: unknown key: expected norm or bias. Did you mean 'norm'?",
        "rules.bias: wrong type: got 'x', expected a number",
    ]
    assert head_report(Head, "rules: 3") == ["rules: wrong type: got 3, expected null or a mapping with norm or bias"]


def test_other_annotations() -> None:
    class Head:
        def __init__(
            self,
            untouched,
            path: Path,
            sizes: dict[str, int],
            one_or_more: Annotated[dict | list, LOSSES],
            named: list[Annotated[dict, LOSSES]],
            anything: Any = None,
        ) -> None: ...

    good = "untouched: {a: [1]}, path: x, sizes: {a: 1}, one_or_more: {type: CrossEntropyLoss}, named: [{type: CrossEntropyLoss}]"
    assert head_report(Head, good) == []
    bad = "untouched: no, path: 3, sizes: {a: b}, one_or_more: [{type: Cross}], named: [3], anything: [{}]"
    assert head_report(Head, bad) == [
        "path: wrong type: got 3, expected a path. Did you mean '3'?",
        "sizes.a: wrong type: got 'b', expected a whole number",
        "one_or_more.0.type: unknown loss: got 'Cross', expected CrossEntropyLoss or SumOfLosses",
        "named.0: wrong type: got 3, expected a block such as {type: CrossEntropyLoss}",
    ]


def test_a_role_without_classes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NECKS, "_classes", {})
    with pytest.raises(RecipeError) as caught:
        checked()
    assert str(caught.value) == (
        "1 mistake in recipe.yaml\n"
        "recipe.yaml:3:10: model.neck.type: unknown neck: got 'GlobalAveragePooling', expected a registered neck, and none is: "
        "is a plug-in missing?"
    )


def test_the_recipe_is_read_without_torch() -> None:
    code = (
        "import sys, distcls.recipe.schema, distcls.recipe.source, distcls.cli.recipe; sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
