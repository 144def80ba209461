"""Which run a folder belongs to, which process has it, and the messages to everyone who may not use it."""

import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from distcls.engine.records.run_folder import RunFolder
from distcls.engine.records.same_run import differences
from distcls.errors import UserError

RECIPE = {
    "name": "quick",
    "output_dir": "runs/quick",
    "model": {"backbone": {"type": "ResNet", "depth": 18}, "neck": None},
    "data": {"train": {"path": "a.beton"}, "val": {"path": "b.beton", "crop_ratio": 0.875}, "workers": None},
    "optimizer": {"type": "SGD", "lr": 0.5},
    "schedule": {"type": "CosineWarmup"},
    "train": {"epochs": 3, "max_steps": None},
    "tracking": {"tags": ["a"]},
}
PRINTS = {"data.train": "f1", "data.val": "f2"}


def changed(**values):
    recipe = copy.deepcopy(RECIPE)
    for key, value in values.items():
        *path, last = key.split("__")
        node = recipe
        for name in path:
            node = node[name]
        node[last] = value
    return recipe


def begin(folder, recipe=RECIPE, **options):
    given = {
        "recipe_yaml": "name: quick\n",
        "fingerprints": PRINTS,
        "world_size": 2,
        "threads": 1,
        "wait_s": 0,
    } | options
    return folder.begin(recipe, **given)


def refusal(path, *arguments, **options):
    with pytest.raises(UserError) as caught:
        begin(RunFolder(path), *arguments, **options)
    return str(caught.value)


def run_json(path):
    return json.loads((path / "run.json").read_text())


@pytest.fixture
def used(tmp_path):
    """A run folder with one attempt, which was preempted after a checkpoint."""
    folder = RunFolder(tmp_path / "run")
    begin(folder)
    (folder.checkpoints / "step_00000010").mkdir(parents=True)
    folder.end("preempted", "SIGTERM")
    folder.close()
    return folder.path


def test_a_new_run(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    start = begin(folder)
    assert re.fullmatch("[0-9a-f]{8}", start.run_id)
    assert (start.attempt, start.finished, start.changed) == (1, False, {})
    assert (folder.path / "recipe.yaml").read_text() == "name: quick\n"
    run = run_json(folder.path)
    assert (run["run_id"], run["status"], run["recipe"]) == (start.run_id, "running", RECIPE)
    (attempt,) = run["attempts"]
    assert (attempt["host"], attempt["pid"]) == (socket.gethostname(), os.getpid())
    assert (attempt["world_size"], attempt["threads"]) == (2, 1)
    assert {"distcls", "python", "torch"} <= attempt["versions"].keys()
    folder.close()


def test_the_next_attempt_is_the_same_run(used):
    first = run_json(used)["run_id"]
    folder = RunFolder(used)
    start = begin(folder)
    folder.close()
    assert (start.run_id, start.attempt, start.changed) == (first, 2, {})
    assert [attempt["status"] for attempt in run_json(used)["attempts"]] == ["preempted", "running"]
    assert run_json(used)["attempts"][0]["message"] == "SIGTERM"


def test_another_way_to_decode_is_recorded(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for number, decoder in enumerate(["whole images, FFCV", "windows, libjpeg-turbo 2.1.5"]):
        start = begin(folder, versions={"jpeg": decoder})
        folder.close()
        assert run_json(folder.path)["attempts"][number]["versions"]["jpeg"] == decoder
    assert start.changed == {"versions.jpeg": ["whole images, FFCV", "windows, libjpeg-turbo 2.1.5"]}


def test_an_attempt_that_was_killed_is_noted(used):
    for _ in range(2):
        folder = RunFolder(used)
        begin(folder)
        folder.close()
    assert [attempt["status"] for attempt in run_json(used)["attempts"]] == ["preempted", "killed", "running"]


def test_another_recipe_is_refused_key_by_key(used):
    recipe = changed(
        model__backbone={"type": "ResNet", "depth": 50, "style": "pytorch"},
        model__neck={"type": "GlobalAveragePooling"},
        data__val__crop_ratio=1.0,
        optimizer__lr=0.1,
        train__epochs=None,
    )
    del recipe["train"]["max_steps"]
    assert refusal(used, recipe, fingerprints={"data.train": "f1", "data.val": "other"}) == (
        f"output_dir {used} holds the run of another recipe:\n"
        "  model.backbone.depth: 18 there, 50 here\n"
        '  model.backbone.style: not set there, "pytorch" here\n'
        '  model.neck: null there, {"type": "GlobalAveragePooling"} here\n'
        "  data.val.crop_ratio: 0.875 there, 1.0 here\n"
        "  optimizer.lr: 0.5 there, 0.1 here\n"
        "  train.epochs: 3 there, null here\n"
        "  train.max_steps: null there, not set here\n"
        "  data.val (content): f2 there, other here\n"
        "Give another output_dir, or put these back to go on with that run; "
        "to go on with what is here all the same, from its last checkpoint on: "
        "checkpoint.allow_changes=[model.backbone.depth,model.backbone.style,model.neck,data.val.crop_ratio,optimizer.lr,"
        "train.epochs,train.max_steps,data.val]"
    )
    assert len(run_json(used)["attempts"]) == 1


def test_a_run_that_failed_before_its_first_row_may_become_another(tmp_path):
    folder = RunFolder(tmp_path / "run")
    begin(folder)
    folder.end("failed", "UserError: LinearClsHead.topk: ...")
    folder.close()
    mended = changed(model__backbone={"type": "ResNet", "depth": 50})
    start = begin(folder, mended, recipe_yaml="mended")
    folder.close()
    assert start.notes() == ["model.backbone.depth: was 18, is 50"]
    assert (folder.path / "recipe.yaml").read_text() == "mended", "what is trained from here on"

    (folder.path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert "model.backbone.depth: 50 there, 18 here" in refusal(folder.path)


def test_what_may_change_is_recorded(used):
    recipe = changed(tracking__tags=["a", "b"], data__workers=4, data__train__path=["moved.beton"])
    folder = RunFolder(used)
    start = begin(folder, recipe, world_size=1, recipe_yaml="changed")
    folder.close()
    assert start.changed == {
        "data.train.path": ["a.beton", ["moved.beton"]],
        "data.workers": [None, 4],
        "tracking.tags": [["a"], ["a", "b"]],
        "world_size": [2, 1],
    }
    assert (used / "recipe.yaml").read_text() == "name: quick\n"
    folder = RunFolder(used)
    assert begin(folder, recipe, world_size=1).changed == {}, "compared with the attempt before"
    folder.close()


def test_rows_and_accumulation_may_change_and_batchnorm_is_mentioned(used):
    first = changed(train={"log_every_steps": 50, "accumulation_steps": 1, "global_batch_size": 64})
    folder = RunFolder(used.with_name("other"))
    begin(folder, first)
    folder.close()
    start = begin(folder, changed(train={"log_every_steps": 1, "accumulation_steps": 2, "global_batch_size": 64}))
    folder.close()
    assert start.changed == {"train.log_every_steps": [50, 1], "train.accumulation_steps": [1, 2]}
    assert start.allowed == []
    assert start.notes() == [
        "train.accumulation_steps: was 1, is 2: the same batches, but BatchNorm and dropout see micro-batches of another size"
    ]


def test_what_images_are_normalised_with_belongs_to_the_run(used):
    """Edited mean and std in the sidecar change every number. A run recorded without them may still be resumed."""
    folder, recipe = RunFolder(used), changed()
    begin(folder, recipe, fingerprints={**PRINTS, "data.train (mean, std)": "0.5 0.2"})
    folder.close()
    text = refusal(used, recipe, fingerprints={**PRINTS, "data.train (mean, std)": "0.4 0.2"})
    assert text.splitlines()[1] == "  data.train (mean, std): 0.5 0.2 there, 0.4 0.2 here"
    assert text.endswith("checkpoint.allow_changes=[data.train]")


def test_what_is_named_may_change_and_the_rest_may_not(used):
    recipe = changed(optimizer__lr=0.1, train__epochs=5)
    prints = {"data.train": "f1", "data.val": "other"}
    assert refusal(used, recipe, allow_changes=["optimizer"], fingerprints=prints).splitlines()[1:-1] == [
        "  train.epochs: 3 there, 5 here",
        "  data.val (content): f2 there, other here",
    ]
    assert "optimizer.lr" in refusal(used, recipe, allow_changes=["train.epochs", "data", "optimizer.l"])
    folder = RunFolder(used)
    allowed = ["optimizer.lr", "train", "data.val"]
    start = begin(folder, recipe, allow_changes=allowed, fingerprints=prints, recipe_yaml="changed")
    folder.close()
    assert (used / "recipe.yaml").read_text() == "changed"
    assert start.changed == {
        "optimizer.lr": [0.5, 0.1],
        "train.epochs": [3, 5],
        "data.val (content)": ["f2", "other"],
    }
    assert start.notes() == [
        "optimizer.lr: was 0.5, is 0.1",
        "train.epochs: was 3, is 5",
        'data.val (content): was "f2", is "other"',
    ]
    start = begin(folder, recipe, fingerprints=prints)
    folder.close()
    assert start.changed == {}, "from then on that is what the run is"


def test_a_finished_run_goes_on_when_it_is_told_to_be_longer(used):
    folder = RunFolder(used)
    begin(folder)
    folder.end("finished")
    folder.close()
    start = begin(folder, changed(train__epochs=6), allow_changes=["train.epochs"])
    folder.close()
    assert not start.finished
    assert start.allowed == ["train.epochs"]


def test_a_key_that_a_later_version_adds_is_no_other_recipe(used):
    newer = changed(train__ema=None, optimizer__foreach=True)
    assert "train.ema: not set there, null here" in refusal(used, newer)

    def refill(recorded):
        return {**recorded, "train": {"ema": None, **recorded["train"]}, "optimizer": newer["optimizer"]}

    folder = RunFolder(used)
    assert begin(folder, newer, refill=refill).changed == {}
    folder.close()


def test_tuples_and_lists_are_one(used):
    folder = RunFolder(used)
    assert begin(folder, changed(tracking__tags=("a",))).changed == {}
    folder.close()


def test_a_finished_run_says_so(used):
    folder = RunFolder(used)
    run_id = begin(folder).run_id
    folder.end("finished")
    folder.close()
    for resume in ("auto", "must"):
        start = begin(folder, resume=resume)
        assert (start.run_id, start.finished) == (run_id, True)
        assert start.message == f"the run in {used} is finished; to train again, give another output_dir"
        folder.close()
    assert len(run_json(used)["attempts"]) == 2
    assert "optimizer.lr: 0.5 there, 0.1 here" in refusal(used, changed(optimizer__lr=0.1))


def test_never_refuses_a_used_folder(used, tmp_path):
    assert refusal(used, resume="never") == (
        f"output_dir {used} already holds a run (status preempted) and checkpoint.resume is never: "
        "give another output_dir, or go on with it by checkpoint.resume=auto"
    )
    folder = RunFolder(tmp_path / "new")
    assert begin(folder, resume="never").attempt == 1
    folder.close()


def test_must_needs_a_checkpoint(tmp_path, used):
    path = tmp_path / "new"
    text = f"checkpoint.resume is must, but there is no checkpoint in {path / 'checkpoints'}"
    assert refusal(path, resume="must") == text
    assert not (path / "run.json").exists()
    folder = RunFolder(used)
    assert begin(folder, resume="must").attempt == 2
    folder.close()


def test_checkpoints_of_nobody_are_refused(used):
    (used / "run.json").unlink()
    assert refusal(used) == (
        f"output_dir {used} holds checkpoints but no run.json, so nothing says which recipe they belong to: "
        "give another output_dir"
    )


def test_a_damaged_run_json(used):
    (used / "run.json").write_text("{")
    text = refusal(used)
    assert text.startswith(f"{used / 'run.json'} is damaged (")
    assert text.endswith("): mend it, or give another output_dir")


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file") == (
        f"output_dir {tmp_path / 'file'} cannot be used: File exists ({tmp_path / 'file'})"
    )


HOLDER = """
import sys, time
from pathlib import Path
from distcls.engine.records.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.begin({}, recipe_yaml="", fingerprints={}, world_size=1, threads=1)
print("in", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.wait()


def test_two_live_processes_are_one_too_many(tmp_path, holder):
    text = refusal(tmp_path / "run", {}, fingerprints={})
    where = f"output_dir {tmp_path / 'run'} is in use by process {holder.pid} on {socket.gethostname()}, since 20"
    assert text.startswith(where)
    assert text.endswith(": wait for it, end it, or give another output_dir")
    assert len(run_json(tmp_path / "run")["attempts"]) == 1


def test_a_killed_process_leaves_no_lock(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    folder = RunFolder(tmp_path / "run")
    assert begin(folder, {}, fingerprints={}).attempt == 2
    folder.close()
    assert run_json(tmp_path / "run")["attempts"][0]["status"] == "killed"


def test_it_waits_for_one_that_is_leaving(tmp_path, holder, monkeypatch):
    """The holder exits during the first wait."""
    waited = []

    def leaves(seconds):
        waited.append(seconds)
        holder.kill()
        holder.wait()

    monkeypatch.setattr("distcls.engine.records.run_lock.time.sleep", leaves)
    folder = RunFolder(tmp_path / "run")
    assert begin(folder, {}, fingerprints={}, wait_s=1000).attempt == 2
    assert len(waited) == 1
    folder.close()


def test_without_file_locks_a_live_process_on_this_host_is_still_seen(tmp_path, holder, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    assert f"is in use by process {holder.pid} on" in refusal(tmp_path / "run", {}, fingerprints={})
    holder.kill()
    holder.wait()
    folder = RunFolder(tmp_path / "run")
    assert begin(folder, {}, fingerprints={}).attempt == 2
    folder.close()


def test_without_file_locks_a_process_of_the_number_that_another_had_is_not_taken_for_it(tmp_path, monkeypatch):
    """In a container every run may have process id 1."""
    folder = RunFolder(tmp_path / "run")
    begin(folder, {}, fingerprints={})
    folder.close()
    file = tmp_path / "run/run.lock"
    before = {**json.loads(file.read_text()), "started": "another boot 7"}
    file.write_text(json.dumps(before))

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    assert begin(folder, {}, fingerprints={}).attempt == 2
    folder.close()
    assert json.loads(file.read_text())["started"] not in (None, before["started"])


def test_differences_are_dotted_keys():
    assert [key for key, _, _ in differences({"a": {"b": 1, "c": [1]}, "d": 0}, {"a": {"b": 2, "c": [2]}, "e": 0})] == [
        "a.b",
        "a.c",
        "d",
        "e",
    ]


def next_start(path):
    folder = RunFolder(path)
    start = begin(folder)
    folder.close()
    return start


def test_a_folder_that_was_moved_is_the_same_run(used, tmp_path):
    run_id = run_json(used)["run_id"]
    start = next_start(used.rename(tmp_path / "moved"))
    assert (start.run_id, start.copied_from) == (run_id, None)


def test_a_copy_beside_its_original_is_a_run_of_its_own_from_then_on(used, tmp_path):
    """With the same run id, both would log to one W&B run."""
    run_id = run_json(used)["run_id"]
    copied = shutil.copytree(used, tmp_path / "copied")
    first, second = next_start(copied), next_start(copied)
    assert (first.attempt, first.copied_from) == (2, str(used))
    assert (second.attempt, second.copied_from) == (3, None)
    assert first.run_id == second.run_id == run_json(copied)["run_id"] != run_id
    assert next_start(used).run_id == run_id


@pytest.mark.parametrize("gone", [shutil.rmtree, lambda used: (used / "run.json").write_text('{"run_id": "other"}')])
def test_a_copy_whose_original_is_gone_is_the_same_run(gone, used, tmp_path):
    run_id = run_json(used)["run_id"]
    copied = shutil.copytree(used, tmp_path / "copied")
    gone(used)
    assert next_start(copied).run_id == run_id


def test_the_same_folder_by_another_name_is_no_copy(used, tmp_path):
    run_id = run_json(used)["run_id"]
    (tmp_path / "link").symlink_to(used)
    assert next_start(tmp_path / "link").run_id == run_id
