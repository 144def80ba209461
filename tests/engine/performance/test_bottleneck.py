"""What bounds a run: the shares of its time, and the advice that goes with them."""

import time

import pytest
import torch

from distcls.data.loader import TrainLoader
from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.evaluate import evaluate
from distcls.engine.performance.bottleneck import Settings, verdict
from distcls.engine.performance.phases import PHASES, Exchange, Phases
from distcls.engine.run import train
from distcls.tracking.jsonl import read_events, read_rows

SETTINGS = {
    "workers": 2,
    "cores": 8,
    "precision": "bf16",
    "compiled": True,
    "accumulation_steps": 1,
    "global_batch_size": 1024,
    "evaluate_every_epochs": 0.5,
    "checkpoint_every_steps": 100,
    "gpu": True,
}


def shares(**found):
    return {**dict.fromkeys(PHASES, 0.0), "compute": 1 - sum(found.values()), **found}


def test_the_time_between_two_marks_belongs_to_the_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    phases = Phases(torch.device("cpu"))
    for name, seconds in (("data", 1.0), ("copy", 0.5), ("compute", 4.0), ("data", 2.0), ("evaluation", 8.0)):
        phases.mark(name)
        now[0] += seconds
    first = phases.seconds(phases.take())
    found = {"data": 3.0, "copy": 0.5, "compute": 4.0, "evaluation": 8.0}
    assert first == {**dict.fromkeys(PHASES, 0.0), **found}
    now[0] += 1.0
    assert phases.seconds(phases.take())["evaluation"] == 1.0, "the phase that lasts goes on in the next stretch"


@pytest.mark.parametrize(
    ("found", "changed", "line"),
    [
        (
            {"data": 0.41, "evaluation": 0.07},
            {},
            "bottleneck data 41% (compute 52%, evaluation 7%): raise data.workers, now 2 of 8 cores a rank",
        ),
        (
            {"data": 0.3},
            {"workers": 8},
            "bottleneck data 30% (compute 70%): all 8 cores of a rank decode: write smaller or raw images (`distcls "
            "data convert --max-resolution, --write-mode raw`) for data.train.path, or lower data.resolution",
        ),
        (
            {"copy": 0.2},
            {"precision": "fp32"},
            "bottleneck copy 20% (compute 80%): set train.precision=bf16, which halves the bytes, or take from "
            "data.augment what changes pixels",
        ),
        (
            {"communication": 0.25, "data": 0.2},
            {},
            "bottleneck communication 25% (compute 55%, data 20%): raise train.accumulation_steps, now 1, together "
            "with train.global_batch_size, now 1024: ranks exchange gradients once an update",
        ),
        ({"evaluation": 0.5}, {}, "bottleneck evaluation 50% (compute 50%): raise eval.every_epochs, now 0.5"),
        ({"checkpoint": 0.6}, {}, "bottleneck checkpoint 60% (compute 40%): raise checkpoint.every_steps, now 100"),
        (
            {"data": 0.09},
            {},
            "bottleneck compute 91% (data 9%): as it should be; only a smaller model.backbone or data.resolution, or "
            "more devices, make it faster",
        ),
        ({}, {"compiled": False}, "bottleneck compute 100%: as it should be; train.compile=true makes it faster"),
        (
            {},
            {"precision": "fp32"},
            "bottleneck compute 100%: as it should be; train.precision=bf16 makes it faster",
        ),
    ],
)
def test_the_advice_names_the_key_to_change(found, changed, line):
    whole = shares(**found)
    assert verdict(whole, Settings(**{**SETTINGS, **changed})).line(whole) == line


def test_a_share_that_nobody_can_tell_is_left_out():
    whole = {"data": 0.0, "copy": 0.0, "compute": 0.7, "evaluation": 0.3, "checkpoint": 0.0}  # no communication
    assert verdict(whole, Settings(**SETTINGS)).bottleneck == "evaluation"


def test_exchange_takes_each_of_ddps_measurements_once():
    class Model(torch.nn.Module):
        def _get_ddp_logging_data(self):
            return self.said

    model = Model()
    exchange = Exchange(model)
    model.said = {}
    exchange.look()
    assert (exchange.known, exchange.take()) == (True, 0.0)
    for ended, took in ((1, 3), (1, 3), (2, 7)):
        model.said = {
            "backward_comm_time_end": ended,
            "backward_comm_time": (took + 1) * 10**9,
            "backward_compute_comm_overlap_time": 10**9,
        }
        exchange.look()
    assert exchange.take() == 5.0
    assert exchange.take() == 5.0, "with nothing new it is what it was"
    assert not Exchange(torch.nn.Linear(1, 1)).known


def slowed(method, seconds):
    def slow(*arguments, **named):
        time.sleep(seconds)
        return method(*arguments, **named)

    return slow


def trained(tiny_recipe, *overrides):
    outcome = train(tiny_recipe, ["train.max_steps=6", "train.epochs=null", *overrides])
    rows = [row for row in read_rows(outcome.folder) if "perf/share_compute" in row]
    assert [row["step"] for row in rows] == [6]
    measured = {name.removeprefix("perf/share_"): rows[0][name] for name in rows[0] if "share" in name}
    assert sum(measured.values()) == pytest.approx(1)
    (event,) = [event for event in read_events(outcome.folder) if event["kind"] == "bottleneck"]
    assert event["share"] == pytest.approx(measured[event["bottleneck"]], abs=1e-4)
    return event["bottleneck"], event["advice"]


@pytest.mark.parametrize(
    ("cause", "overrides", "advice"),
    [
        ("data", ("eval.every_epochs=9", "data.workers=1"), "data."),
        ("evaluation", ("eval.every_epochs=0.1", "checkpoint.every_steps=1000"), "raise eval.every_epochs, now 0.1"),
        ("checkpoint", ("eval.every_epochs=9", "checkpoint.every_steps=1"), "raise checkpoint.every_steps, now 1"),
    ],
)
def test_a_run_knows_what_holds_it_up(tiny_recipe, monkeypatch, capsys, cause, overrides, advice):
    if cause == "data":
        monkeypatch.setattr(TrainLoader, "_decode_part", slowed(TrainLoader._decode_part, 0.6))
    if cause == "evaluation":
        monkeypatch.setattr("distcls.engine.trainer.evaluate", slowed(evaluate, 0.6))
    if cause == "checkpoint":
        monkeypatch.setattr(Snapshots, "save", slowed(Snapshots.save, 0.6))
    found, said = trained(tiny_recipe, *overrides)
    assert found == cause
    assert advice in said
    assert f"bottleneck {cause} " in capsys.readouterr().out
