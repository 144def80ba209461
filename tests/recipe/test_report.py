"""The one report: ten different mistakes over a recipe, its base and the command line."""

from pathlib import Path

import pytest

from distcls.recipe.errors import RecipeError
from distcls.recipe.schema import check
from distcls.recipe.source import read

pytestmark = pytest.mark.usefixtures("stand_ins")

BASE = """\
data:
  train: {path: train.beton}
  val:
    path: val.beton
    crop_ratio: 1.5
  resolution: 32
train:
  global_batch_size: '256'
  precision: bf61
optimizer:
  type: SGD
  momentun: 0.9
"""

RECIPE = """\
_base_: _base_/data.yaml
model:
  backbone:
    type: ResNeet
    depth: 50
  neck: GlobalAveragePooling
  head:
    type: LinearClsHead
    num_classes: 10
    topk: [1, five]
train:
  epochs: 3
  epochs: 4
optimizer: {lr: 0.5}
"""

OVERRIDES = ["optimizer.model=[]", "schedule.type=CosineWarmup", "optimizer.lr=-1"]

REPORT = """\
10 mistakes in recipe.yaml
_base_/data.yaml:5:5: data.val.crop_ratio: out of range: got 1.5, expected a number > 0 and <= 1
_base_/data.yaml:8:3: train.global_batch_size: wrong type: got '256', expected a whole number > 0. Did you mean 256?
_base_/data.yaml:9:3: train.precision: unknown choice: got 'bf61', expected fp32, bf16, fp16 or fp64. Did you mean 'bf16'?
_base_/data.yaml:12:3: optimizer.momentun: unknown key: expected lr, momentum, weight_decay or nesterov. Did you mean 'momentum'?
recipe.yaml:4:5: model.backbone.type: unknown backbone: got 'ResNeet', expected ResNet, ResNet_CIFAR or Timm. Did you mean 'ResNet'?
recipe.yaml:6:3: model.neck: wrong type: got only the name 'GlobalAveragePooling', expected a block such as {type: GlobalAveragePooling}
recipe.yaml:10:15: model.head.topk.1: wrong type: got 'five', expected a whole number
recipe.yaml:13:3: train.epochs: duplicate key: first written in line 12
command line: optimizer.model: not for the recipe: distcls supplies 'model' of an optimizer; remove the key
command line: optimizer.lr: out of range: got -1, expected a number > 0"""


def test_ten_mistakes_are_ten_lines() -> None:
    Path("_base_").mkdir()
    Path("_base_/data.yaml").write_text(BASE)
    Path("recipe.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError) as caught:
        check(read(Path("recipe.yaml"), OVERRIDES))
    assert str(caught.value) == REPORT
