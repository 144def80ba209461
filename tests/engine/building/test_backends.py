"""The tracking block of a recipe, in whole runs."""

import json
import shutil
import subprocess

import pytest

from distcls.engine.run import train
from distcls.errors import UserError
from distcls.tracking.wandb_file import history
from tests.tracking.conftest import no_wandb_account  # noqa: F401 - a fixture
from tests.tracking.test_wandb import config, of_type, segments

SHORT = [
    "train.epochs=null",
    "train.max_steps=2",
    "eval.every_epochs=9",
    "train.log_every_steps=1",
    "schedule.warmup_steps=1",
]

PLUGIN = """
import json
from distcls.registry import TRACKERS

@TRACKERS.register
class Lines:
    def __init__(self, *, run_folder, run_id, config, file: str = "lines.txt"):
        self.file = open(run_folder / file, "a")
        self.say("begin", run_id, config["name"])
    def say(self, *words):
        print(*words, file=self.file, flush=True)
    def log(self, row):
        self.say("row", row["step"], *[name for name in row if name in ("train/loss", "val/loss")])
    def event(self, kind, **fields):
        self.say("event", kind)
    def finish(self, status, message=None):
        self.say("finish", status)

@TRACKERS.register
class Broken:
    def __init__(self, *, run_folder, run_id, config):
        raise OSError("no such server")
"""


def trained(recipe, *overrides):
    return train(recipe, [*SHORT, *overrides]).folder


def test_a_plug_in_can_be_a_tracker_and_a_broken_one_costs_a_warning(tiny_recipe, tmp_path, capsys):
    (tmp_path / "lines.py").write_text(PLUGIN)
    run = trained(
        tiny_recipe, f"plugins=[{tmp_path}/lines.py]", "tracking.backends=[{type: Broken}, {type: Lines, file: l.txt}]"
    )
    lines = (run / "l.txt").read_text().splitlines()
    run_id = json.loads((run / "run.json").read_text())["run_id"]
    assert lines[0] == f"begin {run_id} tiny"
    assert "row 1 train/loss" in lines
    assert "row 2 val/loss" in lines
    assert lines[-1] == "finish finished"
    assert "warning: Broken did not start and is off for this run: OSError: no such server" in capsys.readouterr().out


@pytest.mark.usefixtures("no_wandb_account")
def test_a_run_that_requires_wandb_does_not_start_without(tiny_recipe):
    with pytest.raises(UserError) as caught:
        trained(tiny_recipe, "tracking.mode=auto", "tracking.required=true")
    assert str(caught.value) == (
        f"1 mistake in {tiny_recipe}\n"
        "command line: tracking.required: no W&B run: no API key. Mend that, or take tracking.mode=offline (files for a "
        "later `distcls track sync`) or tracking.required=false"
    )
    with pytest.raises(UserError, match=r"tracking\.required: got true with tracking\.mode: disabled"):
        trained(tiny_recipe, "tracking.required=true", "checkpoint.resume=auto")


@pytest.mark.usefixtures("no_wandb_account")
def test_a_copied_folder_is_another_run_on_wandb_which_gets_all_rows(tiny_recipe, tmp_path, capsys):
    offline = ["tracking.mode=offline", "tracking.tables=0", "train.max_steps=2"]
    original = trained(tiny_recipe, *offline)
    copied = shutil.copytree(original, tmp_path / "copied")
    longer = ["train.max_steps=3", "checkpoint.allow_changes=[train.max_steps]"]
    trained(tiny_recipe, *offline[:2], *longer, f"output_dir={copied}")
    run_id = json.loads((copied / "run.json").read_text())["run_id"]
    assert (
        f"this folder is a copy of {original}, which is still there: from here on it is a run of its own, {run_id}, on "
        "W&B too\n"
    ) in capsys.readouterr().out
    (file,) = segments(copied)
    (other,) = segments(original)
    assert [record.run_id for record in of_type(file, "run")][:1] == [run_id]
    assert run_id not in other.name
    assert [row["progress/step"] for row in history(file) if "train/loss" in row] == [1, 2, 3]


@pytest.mark.usefixtures("no_wandb_account")
def test_weights_and_facts_go_to_wandb(tiny_recipe, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    for command in (["init", "--quiet"], ["add", tiny_recipe.name]):
        subprocess.run(["git", "-C", tiny_recipe.parent, *command], check=True)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=first"]
    subprocess.run(["git", "-C", tiny_recipe.parent, *commit], check=True)
    tiny_recipe.write_text(tiny_recipe.read_text() + "# not committed\n")
    run = trained(tiny_recipe, "tracking.mode=offline", "tracking.artifacts=best", "tracking.tables=0")
    (path,) = segments(run)
    (artifact,) = of_type(path, "artifact")
    assert (artifact.type, sorted(artifact.aliases)) == ("model", ["best", "latest"])
    (entry,) = artifact.manifest.contents
    assert entry.local_path == str(run / "weights" / "best.safetensors"), "taken from where it lies, not copied"
    found = config(path)
    attempt = json.loads((run / "environment.json").read_text())["1"]
    assert found["environment"]["code"] == attempt["code"]
    assert found["environment"]["slurm"] == {"job_id": "77"}
    assert found["fingerprints"].keys() == {"data.train", "data.val", "data.train (mean, std)"}
    (record,) = of_type(path, "run")
    assert (record.display_name, record.run_group) == ("tiny-77", "tiny")
    given = [file.path for one in of_type(path, "files") for file in one.files]
    assert "code.diff" in given
    assert not [name for name in given if "media" in name]
    assert "+# not committed" in (path.parent / "files" / "code.diff").read_text()
