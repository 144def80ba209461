"""What counts as the same run, on synthetic run folders; every difference must be found and named."""

import json
import math

import pytest
import torch

from distcls.data.stream import Batch
from distcls.engine.checkpoints.tensor_file import save_weights
from distcls.engine.records.batch_record import BatchRecord, read_batches
from distcls.engine.verify.proofs import compare, loss_bound
from distcls.engine.verify.trials import Trial, shortened
from distcls.tracking.jsonl import MetricsLog

STEPS = 3


def batch(*positions, pixel=0.0, dtype=torch.float32):
    images = torch.stack([torch.full((3, 2, 2), position + pixel, dtype=dtype) for position in positions])
    return Batch(images, torch.tensor(positions) % 2, torch.tensor(positions), len(positions))


def make_run(
    folder, processes, *, loss=1.0, losses=None, rate=0.1, weight=0.5, pixel=0.0, positions=(0, 1, 2, 3), norm=True
):
    losses = losses or [loss / step for step in range(1, STEPS + 1)]
    log = MetricsLog(folder)
    for rank in range(processes):
        record = BatchRecord(folder, 0, rank=rank, world_size=processes, accumulation_steps=1, attempt=1)
        share = len(positions) // processes
        for _ in range(STEPS):
            record(batch(*positions[rank * share : (rank + 1) * share], pixel=pixel))
    for step in range(1, STEPS + 1):
        place = {"step": step, "epoch": step, "samples": 4 * step}
        log.log({**place, "train/loss": losses[step - 1], "optim/lr": rate})
    log.finish("finished")
    tensors = {"weight": torch.full((2,), weight)} | ({"bn.running_mean": torch.zeros(2)} if norm else {})
    save_weights(folder / "weights" / "last.safetensors", tensors, {})
    return Trial(folder, processes, folder.name)


def outcomes(trial, reference, exact=True, bound=None):
    found = compare(trial, reference, exact=exact, bound=bound)
    return {proof.compared: (proof.outcome, proof.holds) for proof in found}


@pytest.fixture
def reference(tmp_path):
    return make_run(tmp_path / "reference", 1)


def test_the_same_run(tmp_path, reference):
    assert outcomes(make_run(tmp_path / "again", 1), reference) == {
        "samples: order and pixels": ("equal: 12 samples", True),
        "learning rates": ("equal", True),
        "losses": ("equal", True),
        "weights at the end": ("equal: 2 tensors, bit for bit", True),
    }


@pytest.mark.parametrize(
    ("change", "compared", "outcome"),
    [
        ({"positions": (0, 2, 1, 3)}, "samples: order and pixels", "other images at step 1"),
        ({"pixel": 1e-6}, "samples: order and pixels", "the same images with other pixels at step 1"),
        ({"rate": 0.25}, "learning rates", "differ by 0.15 at most"),
        ({"loss": 1.5}, "losses", "differ by 0.5 at most"),
        ({"weight": 0.25}, "weights at the end", "1 of 2 tensors differ"),
    ],
)
def test_what_must_be_equal_and_is_not(tmp_path, reference, change, compared, outcome):
    assert outcomes(make_run(tmp_path / "other", 1, **change), reference)[compared] == (outcome, False)


def test_other_numbers_of_processes_see_the_same_samples_and_batchnorm_excuses_the_losses(tmp_path, reference):
    assert outcomes(make_run(tmp_path / "two", 2, loss=1.5, weight=0.25), reference) == {
        "samples: order and pixels": ("equal: 12 samples", True),
        "learning rates": ("equal", True),
        "losses": ("differ by 0.5 at most: BatchNorm sees other micro-batches", None),
    }
    plain = make_run(tmp_path / "plain", 1, norm=False)
    text = "differ by 0.5 at most: sums are taken in another order"
    assert outcomes(make_run(tmp_path / "plain_two", 2, loss=1.5, norm=False), plain)["losses"] == (text, None)


def test_a_moved_run_may_differ_by_ten_times_what_undisturbed_runs_differ_by(tmp_path):
    runs = [
        make_run(tmp_path / f"whole_{number}", number, loss=loss, norm=False) for number, loss in ((1, 1), (2, 1.0001))
    ]
    bound = loss_bound(runs, "fp32")
    assert bound == pytest.approx(1e-3)

    def moved(loss):
        trial = make_run(tmp_path / f"moved_{loss}", 1, loss=loss, norm=False)
        return outcomes(Trial(trial.run, 0, "moved"), runs[0], bound=bound)["losses"]

    text = "differ by {} at most: sums are taken in another order; allowed: 0.001, 10 times what undisturbed runs differ by"
    assert moved(1.0005) == (text.format("0.0005"), None)
    assert moved(1.002) == (text.format("0.002"), False)


@pytest.mark.parametrize(("precision", "bound"), [("fp64", 4.4e-15), ("fp32", 2.4e-6), ("bf16", 2.4e-6)])
def test_runs_that_happen_to_be_equal_leave_room_for_rounding(tmp_path, precision, bound):
    runs = [make_run(tmp_path / f"whole_{number}", number, loss=2.0) for number in (1, 2)]
    assert loss_bound(runs, precision) == pytest.approx(bound, rel=0.02)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("processes", "bound"), [(1, None), (2, None), (2, math.inf)])
def test_nan_is_no_number_wherever_it_comes(tmp_path, reference, exact, processes, bound):
    broken = make_run(tmp_path / "broken", processes, losses=[1.0, math.nan, 0.25])
    assert outcomes(broken, reference, exact, bound)["losses"] == ("nan against 0.5 at step 2", False)
    assert outcomes(reference, broken, exact, bound)["losses"] == ("0.5 against nan at step 2", False)


def test_nan_is_nan_in_the_same_place(tmp_path):
    one, other = (make_run(tmp_path / name, 1, losses=[1.0, math.nan, 0.5], weight=math.nan) for name in "ab")
    found = outcomes(one, other)
    assert found["losses"] == ("equal", True)
    assert found["weights at the end"] == ("equal: 2 tensors, bit for bit", True)


def test_a_run_that_was_not_interrupted_proves_nothing(tmp_path, reference):
    run = make_run(tmp_path / "fast", 1).run
    trial = Trial(run, 1, "1 process, preempted 0 times and resumed", missed="its 3 steps were over")
    assert outcomes(trial, reference) == {"interruption": ("its 3 steps were over", False)}


def test_what_is_held_against_another_number_of_processes_says_so(tmp_path, reference):
    assert {proof.trial for proof in compare(make_run(tmp_path / "again", 1), reference, exact=True)} == {"again"}
    found = {proof.trial for proof in compare(make_run(tmp_path / "two", 2), reference, exact=True)}
    assert found == {"two, against reference"}


def test_a_gpu_excuses_numbers_and_never_samples(tmp_path, reference):
    found = outcomes(make_run(tmp_path / "gpu", 1, loss=1.5, weight=0.25, pixel=1.0), reference, exact=False)
    assert found["samples: order and pixels"][1] is False
    assert found["losses"] == ("differ by 0.5 at most: a GPU adds in no fixed order", None)
    assert found["weights at the end"] == ("1 of 2 tensors differ: a GPU adds in no fixed order", None)


def test_a_missing_step_is_a_difference(tmp_path, reference):
    other = make_run(tmp_path / "other", 1)
    file = other.run / "batches" / "rank00000.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    assert outcomes(other, reference)["samples: order and pixels"] == ("no record at step 3", False)


def test_the_last_attempt_counts_and_a_torn_line_does_not(tmp_path):
    first = BatchRecord(tmp_path, 0, rank=0, world_size=1, accumulation_steps=2, attempt=1)
    for positions in ((0, 1), (2, 3), (4, 5)):
        first(batch(*positions))
    with open(tmp_path / "batches" / "rank00000.jsonl", "a") as file:
        file.write('{"step": 2, "att')
    second = BatchRecord(tmp_path, 1, rank=0, world_size=1, accumulation_steps=2, attempt=2)
    for positions in ((6, 7), (8, 9)):
        second(batch(*positions))
    seen = {step: [index for index, _ in samples] for step, samples in read_batches(tmp_path).items()}
    assert seen == {1: [0, 1, 2, 3], 2: [6, 7, 8, 9]}


def test_half_precision_pixels_have_a_print_too(tmp_path):
    record = BatchRecord(tmp_path, 0, rank=0, world_size=1, accumulation_steps=1, attempt=1)
    record(batch(1, 2, dtype=torch.bfloat16))
    (line,) = [json.loads(line) for line in (tmp_path / "batches/rank00000.jsonl").read_text().split("\n") if line]
    assert [len(print_) for _, print_ in line["samples"]] == [16, 16]


def test_a_warm_up_is_shortened_with_the_run():
    changes = shortened({"schedule": {"type": "CosineWarmup", "warmup_epochs": 5.0, "warmup_steps": None}}, 24)
    assert "train.max_steps=24" in changes
    assert "checkpoint.every_steps=4" in changes
    assert changes[-2:] == ["schedule.warmup_epochs=0.0", "schedule.warmup_steps=6"]
    assert "warmup" not in " ".join(shortened({"schedule": {"type": "Mine"}}, 24))
