"""Whether a job is requeued, and the exact messages. The lines of scontrol are those of SLURM 22.05, shortened."""

import pytest

from distcls.engine.slurm.verdict import SlurmJob, Verdict, judge

RUNNING = "JobId=7 JobState=RUNNING Reason=None Dependency=(null) Restarts=0"


def attempt(status, from_step=None, restart=0, **more):
    return {"job": "7", "restart": restart, "status": status, "from_step": from_step, **more}


def verdict(*attempts, newest=None, restarts=0, fate="free"):
    run = {"status": attempts[-1]["status"], "attempts": list(attempts)} if attempts else None
    return judge(run, newest, SlurmJob("7", restarts, fate), max_restarts=100, max_crashes=3)


@pytest.mark.parametrize(
    ("shown", "restarts", "fate"),
    [
        (RUNNING, 0, "free"),
        ("", 2, "free"),
        ("JobState=COMPLETING Reason=None Restarts=0", 0, "cancelled"),
        ("JobState=CANCELLED Reason=None Restarts=3", 3, "cancelled"),
        ("JobState=COMPLETING Reason=None Restarts=1", 0, "requeued"),
        ("JobState=COMPLETING Reason=TimeLimit Restarts=0", 0, "time limit"),
        ("JobState=TIMEOUT Reason=TimeLimit Restarts=2", 2, "time limit"),
    ],
)
def test_what_slurm_has_decided(shown, restarts, fate):
    assert SlurmJob.parse("7", restarts, shown).fate == fate


def test_finished():
    assert verdict(attempt("finished"), newest=30) == Verdict(False, "the run is finished")


def test_preempted_and_saved():
    asked = attempt("preempted", message="SIGUSR2")
    assert verdict(asked, newest=12) == Verdict(True, "preempted (SIGUSR2) at step 12")
    assert verdict(asked, newest=12, fate="time limit").requeue


def test_preempted_twice_without_a_step_is_a_circle():
    once, twice = (attempt("preempted", 12, restart, message="SIGUSR2") for restart in (1, 2))
    assert verdict(attempt("preempted", 8), once, newest=12, restarts=1).requeue
    assert verdict(once, twice, newest=12, restarts=2) == Verdict(
        False,
        "preempted (SIGUSR2) at step 12; 2 attempts in a row came no further: "
        "give the job more time (--time), or the warning less (--signal-before)",
        1,
    )
    assert verdict(once, twice, newest=13, restarts=2).requeue


def test_what_slurm_does_is_left_alone():
    saved = attempt("preempted", message="SIGTERM")
    assert verdict(saved, newest=4, fate="requeued") == Verdict(False, "SLURM starts this job again by itself")
    assert verdict(saved, newest=4, fate="cancelled") == Verdict(
        False, "cancelled: it is not started again. To go on: the same sbatch"
    )


def test_who_asked_by_stop_file_wants_no_restart():
    assert verdict(attempt("preempted", message="stop file runs/a/stop"), newest=4) == Verdict(
        False, "stopped at step 4 by the stop file runs/a/stop: it is not started again"
    )


NOT_BEGUN = "the training did not begin, see the error above"


@pytest.mark.parametrize("others", [[], [attempt("finished") | {"job": "6"}], [attempt("preempted", restart=0)]])
def test_training_that_did_not_begin_again_and_again(others):
    run = {"status": "preempted", "attempts": others} if others else None
    assert judge(run, 4, SlurmJob("7", 2, "free"), max_restarts=100, max_crashes=3) == Verdict(
        False, f"{NOT_BEGUN}: it would meet it again", 1
    )


def test_a_first_start_that_did_not_begin_training():
    assert verdict() == Verdict(False, f"{NOT_BEGUN}: it would meet it again", 1)


def test_a_later_start_that_did_not_begin_training_has_one_more():
    saved = attempt("preempted", 4, 1, message="SIGUSR2")
    assert verdict(saved, newest=8, restarts=2) == Verdict(True, f"{NOT_BEGUN}; it did before, so once more")
    assert not verdict(saved, newest=8, restarts=3).requeue
    assert not verdict(saved | {"restart": 99}, newest=8, restarts=100).requeue


def test_a_crash_goes_on_only_if_it_got_further():
    assert verdict(attempt("running", 8), newest=12) == Verdict(
        True, "was killed at step 12, 4 steps further than it began"
    )
    assert verdict(attempt("failed", None), newest=12).requeue
    assert verdict(attempt("failed", 12), newest=12) == Verdict(
        False, "crashed at step 12, without a new checkpoint: it would do so again", 1
    )
    assert verdict(attempt("running", None)) == Verdict(
        False, "was killed before the first checkpoint, without a new checkpoint: it would do so again", 1
    )


def test_crashes_are_counted_and_preemptions_are_not():
    crashes = [attempt("killed", 4 * number, number) for number in range(3)]
    assert verdict(*crashes[:2], attempt("preempted", 8, 2), attempt("failed", 12, 3), newest=16, restarts=3).requeue
    assert verdict(*crashes, attempt("failed", 12, 3), newest=16, restarts=3) == Verdict(
        False, "crashed at step 16; this job has crashed 4 times, 3 are allowed", 1
    )


def test_no_valid_checkpoint_fails():
    assert verdict(attempt("failed", 8, exit_code=76)) == Verdict(
        False, "no valid checkpoint is left, see the error above", 76
    )


def test_a_job_does_not_start_again_for_ever():
    job = SlurmJob("7", 100, "free")
    run = {"status": "preempted", "attempts": [attempt("preempted", 4, 100, message="SIGTERM")]}
    assert judge(run, 12, job, max_restarts=100, max_crashes=3) == Verdict(
        False, "preempted (SIGTERM) at step 12; it has started again 100 times, the most allowed", 1
    )


def test_exit_codes():
    assert Verdict(True, "").exit_code == 75
    assert Verdict(False, "").exit_code == 0
    assert Verdict(False, "", 76).exit_code == 76
