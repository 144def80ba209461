"""What a job does when SLURM, a user or an accident ends it, on a real cluster."""

import itertools
import re
import signal
import sys

import pytest
import safetensors.torch
import torch

from tests.slurm.conftest import ACCELERATE, ENDS, ENVIRONMENT, SRUN, Run

pytestmark = pytest.mark.slow


def assert_same_run(run: Run, reference: Run) -> None:
    """Same samples, learning rates, losses and weights, bit for bit."""
    assert run.record()["status"] == "finished"
    assert run.rows() == reference.rows()
    for name in ("best", "last"):
        file = f"weights/{name}.safetensors"
        mine, theirs = (safetensors.torch.load_file(one.folder / file) for one in (run, reference))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_job_that_nobody_disturbs(uninterrupted):
    assert uninterrupted.verdicts() == ["restart 0: the run is finished"]
    record = uninterrupted.record()
    assert record["status"] == "finished"
    assert [(one["job"], one["restart"], one["world_size"]) for one in record["attempts"]] == [
        (uninterrupted.job, 0, 2)
    ]


def warned(run: Run) -> None:
    run.cluster.run("scancel", "--batch", "--signal=USR2", run.job)  # what --signal=B:USR2@120 does


def requeued(run: Run) -> None:
    run.cluster.run("scontrol", "requeue", run.job)


def killed(run: Run) -> None:
    run.signal_rank(1, signal.SIGKILL)


def preempted(run: Run) -> None:
    run.make_room()


KINDS = [  # what ends an attempt, in which partition, what the batch script says
    (warned, "low", r"requeue: preempted \(SIGUSR2\) at step "),
    (preempted, "low", r"requeue: preempted \(SIGTERM\) at step "),
    (requeued, "low", "SLURM starts this job again by itself"),
    (preempted, "low0", "SLURM starts this job again by itself"),
    (killed, "low", "requeue: (crashed|was killed) at step "),
]


def test_requeues_in_a_row_are_one_run(submit, uninterrupted, tmp_path):
    """Five ends of five kinds; DISTCLS_SLURM_ENDS=50 is the longer set."""
    ends = list(itertools.islice(itertools.cycle(KINDS), ENDS))
    script = tmp_path / "train.sbatch"
    text = SRUN.read_text()
    assert "--max-crashes 3 " in text
    script.write_text(text.replace("--max-crashes 3 ", f"--max-crashes {ENDS} "))
    run = submit(script=script, options=("--time=60",))
    for number, (end, _, _) in enumerate(ends, start=1):
        run.wait_for_progress()
        end(run)
        run.wait_for_restart(number, f"partition={ends[number % len(ends)][1]}")
    run.wait_for_end("COMPLETED")
    for number, ((_, _, expected), said) in enumerate(zip(ends, run.verdicts()[:-1], strict=True)):
        assert re.match(f"restart {number}: {expected}", said), said
    assert run.verdicts()[-1] == f"restart {len(ends)}: the run is finished"
    assert_same_run(run, uninterrupted)


def test_scancel_saves_and_is_not_requeued(submit):
    run = submit()
    run.wait_for_progress()
    before = run.step
    run.cluster.run("scancel", run.job)
    run.wait_for_end("CANCELLED")
    assert run.verdicts() == ["restart 0: cancelled: it is not started again. To go on: the same sbatch"]
    assert run.record()["status"] == "cancelled"
    assert run.step > before


def test_a_crash_without_a_new_checkpoint_is_not_requeued(submit):
    run = submit("checkpoint.every_steps=1000")
    run.wait(lambda: (run.folder / "metrics.jsonl").exists() and (run.folder / "metrics.jsonl").read_text())
    run.signal_rank(0, signal.SIGKILL)
    run.wait_for_end("FAILED")
    [said] = run.verdicts()
    assert re.match(
        "restart 0: (crashed|was killed) before the first checkpoint, without a new checkpoint: it would do so again",
        said,
    )
    assert run.record()["status"] in ("failed", "killed")  # as far as rank 1 could still say it


def test_a_mistake_in_the_recipe_fails_at_once(submit):
    run = submit("optimizer.lr=fast")
    run.wait_for_end("FAILED")
    assert "command line: optimizer.lr: wrong type" in run.text()
    assert run.verdicts() == ["restart 0: the training did not begin, see the error above: it would meet it again"]


def test_accelerate_launch_on_each_node(submit, uninterrupted):
    run = submit(script=ACCELERATE)
    run.wait_for_progress()
    warned(run)
    run.wait_for_restart(1)
    run.wait_for_end("COMPLETED")
    assert [one["status"] for one in run.record()["attempts"]] == ["preempted", "finished"]
    assert_same_run(run, uninterrupted)


def test_an_array_of_two_by_the_command_one_of_which_starts_again(cluster, slow_recipe):
    """SLURM gives the last task the number of the whole array: by that number it would requeue the other one as well."""
    command = [sys.executable, "-c", "from distcls.cli.main import main; main()", "slurm", slow_recipe, "train.seed=%a"]
    command += ["--nodes=2", "--gpus=0", "--time=10", "--array=3-4", "--submit"]
    said = cluster.run(*command, **ENVIRONMENT)
    number = re.search(r"^Submitted batch job (\d+): ", said, re.MULTILINE)[1]
    folder = slow_recipe.parent / "run"
    first, last = (
        Run(cluster, f"{number}_{task}", folder / f"task_{task}", folder / f"slurm-{number}_{task}.out")
        for task in ("3", "4")
    )
    last.wait_for_progress()
    assert cluster.job(last.job)["JobId"] == number
    warned(last)
    last.wait(lambda: last.state() == "PENDING")
    Run(cluster, number, last.folder, last.log).wait_until_gone()
    cluster.run("scontrol", "update", f"jobid={last.job}", "StartTime=now")
    for task, run in (("3", first), ("4", last)):
        run.wait_for_end("COMPLETED")
        assert run.record()["status"] == "finished"
        assert run.record()["recipe"]["train"]["seed"] == int(task)
    assert "restart 0: the run is finished" in first.text()
    assert f"slurm job {number}, restart 0: requeue: preempted (SIGUSR2) at step " in last.text()
    assert f"slurm job {number}, restart 1: the run is finished" in last.text()


def test_the_time_limit(time_limited, uninterrupted):
    """One minute, with a warning after half of it; then ten minutes."""
    time_limited.wait(time_limited.verdicts)
    time_limited.wait(lambda: time_limited.state() != "COMPLETING")
    time_limited.cluster.run("scontrol", "update", f"jobid={time_limited.job}", "TimeLimit=10", check=False)
    if time_limited.state() == "PENDING":  # else its two minutes are over already, and it has begun again or even ended
        time_limited.wait_until_gone()
        time_limited.cluster.run("scontrol", "update", f"jobid={time_limited.job}", "StartTime=now", check=False)
    time_limited.wait_for_end("COMPLETED")
    verdicts = time_limited.verdicts()
    assert verdicts[0].startswith("restart 0: requeue: preempted (SIGUSR2) at step ")
    assert verdicts[-1].endswith(": the run is finished")
    assert_same_run(time_limited, uninterrupted)


def test_a_lost_node(cluster, submit, uninterrupted):
    run = submit()
    run.wait_for_progress()
    lost = cluster.nodes[1]
    cluster.kill_node(lost)
    try:
        run.wait(lambda: "down" in cluster.run("sinfo", "--noheader", f"--nodes={lost}", "--format=%T"))
    finally:
        cluster.start_node(lost)
    run.wait_for_restart(1)
    run.wait_for_end("COMPLETED")
    assert_same_run(run, uninterrupted)
