"""weights/*.safetensors of a run that trains on while they are written."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distcls.engine.checkpoints import weights_writer
from distcls.engine.checkpoints.progress import Progress
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.checkpoints.tensor_file import SaveFailed, load_weights
from distcls.engine.checkpoints.weights_writer import WeightsWriter
from distcls.engine.run import train

save_weights = weights_writer.save_weights


class StandIn:
    """What the writer takes from a job, of one BatchNorm."""

    def __init__(self) -> None:
        self.classifier = nn.BatchNorm1d(3)
        self.strategy = SimpleNamespace(replicated=True, gathered=self.classifier.named_parameters)
        self.rank, self.world_size, self.ema = 0, 1, None
        self.warnings: list[str] = []
        self.trackers = SimpleNamespace(warn=self.warnings.append)


@pytest.fixture
def job() -> StandIn:
    return StandIn()


def test_what_is_written_is_the_model_of_that_moment(job, tmp_path, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(weights_writer, "save_weights", lambda *given: gate.wait(60) and save_weights(*given))
    writer = WeightsWriter(job, tmp_path, {"run_id": "0"})
    before = {name: value.clone() for name, value in job.classifier.state_dict().items()}
    writer.write("best", Progress(step=7, last={"loss": 1.0}))
    assert not (tmp_path / "best.safetensors").exists()
    with torch.no_grad():
        for value in job.classifier.state_dict().values():
            value.add_(1)
    gate.set()
    writer.settle()
    tensors, metadata = load_weights(tmp_path / "best.safetensors")
    assert tensors.keys() == before.keys()
    assert all(tensors[name].equal(before[name]) for name in before)
    assert (metadata["step"], metadata["run_id"]) == ("7", "0")


def test_a_full_disk_is_a_warning_once_it_is_known(job, tmp_path, monkeypatch):
    def full(path, *_):
        raise SaveFailed(f"{path} was not written: No space left on device. What was there before is untouched.")

    monkeypatch.setattr(weights_writer, "save_weights", full)
    writer = WeightsWriter(job, tmp_path, {})
    writer.write("best", Progress(step=7))
    writer.settle()
    assert job.warnings == [
        f"{tmp_path}/best.safetensors was not written: No space left on device. What was there before is untouched."
    ]
    writer.settle()
    assert len(job.warnings) == 1


def test_no_checkpoint_knows_of_better_weights_than_those_on_the_disk(tiny_recipe, tmp_path, monkeypatch):
    """A run killed between the two would go on from that checkpoint and never write them."""
    on_disk, known = [0], []

    def slow(path, tensors, metadata):
        time.sleep(0.3)
        save_weights(path, tensors, metadata)
        on_disk.append(int(metadata["step"]))

    def save(self, step, tensors, state, *, best):
        known.append((state["progress"]["best"].get("step", 0), on_disk[-1]))
        return commit(self, step, tensors, state, best=best)

    commit = CheckpointStore.save
    monkeypatch.setattr(weights_writer, "save_weights", slow)
    monkeypatch.setattr(CheckpointStore, "save", save)
    train(tiny_recipe, ["checkpoint.every_steps=5"])
    assert len(known) == 6
    assert all(written >= best for best, written in known), known
    last = load_weights(tmp_path / "run" / "weights" / "last.safetensors")[1]
    assert last["step"] == "30", "a finished run has written its last weights"
