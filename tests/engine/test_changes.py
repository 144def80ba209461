"""What `checkpoint.allow_changes` lets change counts from the next step on, and stays so whatever happens then."""

import os
import shutil

import pytest

import distcls
from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.engine.run import train
from distcls.errors import UserError
from distcls.registry import BACKBONES
from distcls.tracking.jsonl import read_rows
from distcls.tracking.run_record import read_run
from tests.engine.launching import PLAIN, TORCHRUN, launch

SHORT = ["train.epochs=null", "train.log_every_steps=1", "checkpoint.every_steps=4", "eval.every_epochs=100.0"]
PLUGIN = """
import torch
from torch import nn
from distcls.registry import BACKBONES

@BACKBONES.register
class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 3)
    def forward(self, x):
        return self.second(self.first(x).relu())

@BACKBONES.register
class Idle(Body):
    def __init__(self):
        super().__init__()
        self.idle = nn.Conv2d(8, 8, 3)

@BACKBONES.register
class Table(Body):
    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("table", torch.zeros(size))

@BACKBONES.register
class Tied(Body):
    def __init__(self):
        super().__init__()
        self.third = nn.Conv2d(8, 8, 3)
        self.third.weight = self.second.weight
    def forward(self, x):
        return self.third(super().forward(x).relu())
"""


def trained(recipe, folder, *overrides):
    return train(recipe, [*SHORT, f"output_dir={folder}", *overrides]).folder


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A file of its own: a class is registered once in a process."""
    file = tmp_path_factory.mktemp("plugin") / "bodies.py"
    file.write_text(PLUGIN)
    yield f"plugins=[{file}]"
    for name in ("Body", "Idle", "Table", "Tied"):  # other tests look at what is registered
        BACKBONES._classes.pop(name, None)


def weights(run):
    return load_weights(run / "weights/last.safetensors")[0]


@pytest.fixture
def begun(tiny_recipe, tmp_path):
    """A run of eight steps, and a copy of it."""
    run = trained(tiny_recipe, tmp_path / "begun", "train.max_steps=8")
    return run, shutil.copytree(run, tmp_path / "copy")


def stopped_at_four(recipe, folder, *overrides):
    """Asked to stop before its first step: it takes notice LAG steps later."""
    folder.mkdir()
    (folder / "stop").touch()
    return trained(recipe, folder, *overrides)


def test_an_end_before_what_is_trained_is_told_and_evaluated(tiny_recipe, tmp_path, capsys):
    run = stopped_at_four(tiny_recipe, tmp_path / "run", "train.max_steps=8")
    trained(tiny_recipe, run, "train.max_steps=3", "checkpoint.allow_changes=[train.max_steps]")
    assert (
        "the recipe now ends at step 3 and the run is at step 4 already: nothing more is trained, it ends with the "
        "weights that it has\n"
    ) in capsys.readouterr().out
    assert [(row["step"], row["val/n"]) for row in read_rows(run) if "val/n" in row] == [(4, 103)]
    assert load_weights(run / "weights/last.safetensors")[1]["step"] == "4"


def test_an_evaluation_that_the_next_attempt_does_is_in_its_checkpoint(tiny_recipe, tmp_path):
    """Else a longer run would not know its best weights, and lose them to worse ones."""
    run = stopped_at_four(tiny_recipe, tmp_path / "run", "train.max_steps=4")
    store = CheckpointStore(run / "checkpoints")
    assert store.load(store.latest())[0]["progress"]["evaluated"] == 0
    trained(tiny_recipe, run, "train.max_steps=4")
    progress = store.load(store.latest())[0]["progress"]
    assert (progress["evaluated"], progress["best"]["step"]) == (4, 4)


def test_another_head_begins_its_logging_window_anew(tiny_recipe, tmp_path):
    run = stopped_at_four(tiny_recipe, tmp_path / "run", "train.max_steps=6", "train.log_every_steps=3")
    changes = ["train.max_steps=6", "train.log_every_steps=3", "model.head.topk=[1, 2]"]
    trained(tiny_recipe, run, *changes, "checkpoint.allow_changes=[model.head.topk]")
    [row] = [row for row in read_rows(run) if row["step"] == 6 and "train/loss" in row]
    assert {key for key in row if key.startswith("train/")} == {"train/loss", "train/top1", "train/top2"}


def test_a_changed_rate_holds_though_the_first_attempt_with_it_saved_nothing(tiny_recipe, begun, monkeypatch, capsys):
    changes = ["train.max_steps=12", "optimizer.lr=0.02", "optimizer.momentum=0.5", "optimizer.weight_decay=0.0"]
    allowed = "checkpoint.allow_changes=[optimizer,train.max_steps]"
    whole, hurt = begun
    trained(tiny_recipe, whole, *changes, allowed)
    out = capsys.readouterr().out
    assert "from step 9 on: optimizer.lr: was 0.2, is 0.02\n" in out
    rows = [row for row in read_rows(whole) if "optim/lr" in row]
    assert max(row["optim/lr"] for row in rows if row["step"] > 8) < 0.02 < max(row["optim/lr"] for row in rows)

    def fall(self):
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Snapshots, "poll", fall)
        with pytest.raises(OSError, match="killed"):
            trained(tiny_recipe, hurt, *changes, allowed)
    trained(tiny_recipe, hurt, *changes)
    ours, theirs = weights(hurt), weights(whole)
    assert [name for name in theirs if not ours[name].equal(theirs[name])] == []


def test_another_batch_goes_on_counting_what_the_run_has_seen(tiny_recipe, begun):
    run, _ = begun
    changes = ["train.max_steps=9", "train.global_batch_size=16", "checkpoint.every_steps=1"]
    trained(tiny_recipe, run, *changes, "checkpoint.allow_changes=[train]")
    trained(tiny_recipe, run, *changes[1:], "train.max_steps=10", "checkpoint.allow_changes=[train]")
    counted = [(row["step"], row["samples"], row["epoch"]) for row in read_rows(run) if "optim/lr" in row]
    assert counted[6:] == [(7, 224, 0.7), (8, 256, 0.8), (9, 272, 0.45), (10, 288, 0.5)]
    assert [(again.position["step"], again.position["samples"]) for again in read_run(run).restarts] == [
        (8, 256),
        (9, 272),
    ]


def test_layers_may_freeze_and_thaw_and_groups_may_be_others(tiny_recipe, begun):
    run, _ = begun
    stages = [
        ["train.max_steps=9", "model.freeze=[backbone.layer1]"],
        ["train.max_steps=10", "optimizer.paramwise_cfg={norm_decay_mult: 0.0}"],
        ["train.max_steps=11", "optimizer.paramwise_cfg={norm_decay_mult: 0.0}", "optimizer.weight_decay=0.0"],
        ["train.max_steps=12", "optimizer.type=AdamW", "optimizer.lr=0.01", "model.freeze=[head]"],
    ]
    before = weights(run)
    for changes in stages:
        trained(tiny_recipe, run, *changes, "checkpoint.allow_changes=[model.freeze,optimizer,train.max_steps]")
        after = weights(run)
        frozen = {name for name in before if "weight" in name and before[name].equal(after[name])}
        assert bool([name for name in frozen if "layer1" in name]) == ("[backbone.layer1]" in changes[-1])
        assert ("head.fc.weight" in frozen) == ("[head]" in changes[-1])
        before = after
    assert [row["step"] for row in read_rows(run) if "optim/lr" in row] == list(range(1, 13))


@pytest.mark.parametrize(
    ("block", "harm"),
    [
        ("{type: Table, size: 5}", "backbone.table is [3] there and [5] here"),
        ("{type: Body}", "backbone.table is [3] there and missing here"),
    ],
)
def test_a_model_with_another_buffer_is_refused_by_name(block, harm, tiny_recipe, tmp_path, plugin):
    run = trained(tiny_recipe, tmp_path / "run", plugin, "model.backbone={type: Table, size: 3}", "train.max_steps=4")
    changes = [f"model.backbone={block}", "train.max_steps=5", "checkpoint.allow_changes=[model,train]"]
    with pytest.raises(UserError) as caught:
        trained(tiny_recipe, run, plugin, *changes)
    assert f"step_00000004 is of another model: {harm}" in str(caught.value)


def test_a_weight_that_two_layers_share_is_updated_once_and_exported_under_both_names(
    tiny_recipe, tmp_path, plugin, recwarn
):
    block = [plugin, "model.backbone={type: Tied}", "train.max_steps=4"]
    run = trained(tiny_recipe, tmp_path / "tied", *block)
    assert not [warning for warning in recwarn if "duplicate parameters" in str(warning.message)]
    model = distcls.load(run)
    assert model.backbone.third.weight.equal(model.backbone.second.weight)
    assert {"backbone.second.weight", "backbone.third.weight"} <= set(weights(run))


@pytest.mark.slow
def test_on_two_ranks_layers_without_a_part_in_the_loss_are_named(tiny_recipe, tmp_path, plugin):
    block = [plugin, "model.backbone={type: Idle}", "train.max_steps=4"]
    trained(tiny_recipe, tmp_path / "alone", *block)
    code, output = launch(TORCHRUN, tiny_recipe, *SHORT, *block)
    assert code == 1
    assert (
        f"error: rank 0 on {os.uname().nodename}: 2 parameters had no part in the loss: backbone.idle.weight, "
        "backbone.idle.bias. On several ranks every parameter that is trained must have one in every step: take out the "
        "layers that are not used, or name them in model.freeze\n"
    ) in output
    assert 'launch/train.py", line' not in output, "no traceback of ours"


@pytest.mark.slow
def test_under_zero_layers_without_a_part_in_the_loss_would_decay_and_are_named(tiny_recipe, plugin):
    code, output = launch(
        PLAIN,
        tiny_recipe,
        *SHORT,
        plugin,
        "model.backbone={type: Idle}",
        "train.max_steps=4",
        "distributed.strategy=zero2",
    )
    assert code == 1
    assert (
        "error: 2 parameters had no part in the loss: backbone.idle.weight, backbone.idle.bias. Under zero2 every "
        "parameter that is trained must have one in every step: take out the layers that are not used, or name them in "
        "model.freeze\n"
    ) in output
