import os

import pytest

from distcls.engine.ranks.topology import _first_host, cores_per_rank, launched_ranks, slurm_meeting_point
from distcls.errors import UserError


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("gpu7", "gpu7"),
        ("gpu[003-007,9]", "gpu003"),
        ("gpu[12,15],cpu1", "gpu12"),
        ("a1,b[2-3]", "a1"),
        ("rack-2-node[1-4]", "rack-2-node1"),
        ("rack[1-2]-node[07,09]", "rack1-node07"),
    ],
)
def test_first_host_of_a_slurm_nodelist(nodelist, host):
    assert _first_host(nodelist) == host


def test_one_process_without_a_launcher():
    assert launched_ranks({}) == (0, 1, 0, 1)


def test_ranks_of_torchrun():
    assert launched_ranks({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}) == (5, 8, 1, 4)


SRUN_TASK = {  # the last of a step's three tasks on two nodes, in a job of eight, as SLURM 22.05 sets the variables
    "SLURM_JOB_ID": "1501",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}


@pytest.fixture
def environment(monkeypatch):
    """Restores the variables that `launched_ranks` sets under srun."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.setenv(name, "")
    return lambda: {name: os.environ[name] for name in names}


def test_ranks_of_srun(environment):
    assert launched_ranks(SRUN_TASK) == (2, 3, 0, 1)
    assert environment() == {
        "RANK": "2",
        "WORLD_SIZE": "3",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "n1",
        "MASTER_PORT": "20008",
    }


def test_a_heterogeneous_job_is_refused_by_each_of_its_tasks():
    """Also when each component has one task: every component would be a run of its own, in the same folder."""
    task = {**SRUN_TASK, "SLURM_HET_SIZE": "2"}
    for one in (task, {**task, "SLURM_STEP_NUM_TASKS": "1"}):
        with pytest.raises(UserError) as refused:
            launched_ranks(one)
        assert str(refused.value) == (
            "SLURM_HET_SIZE=2: a heterogeneous job, got 2 components, expected one: start the training by an sbatch and "
            "an srun without ':', on nodes of one kind"
        )


def test_who_says_the_ranks_may_use_a_heterogeneous_job():
    ranks = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert launched_ranks({**SRUN_TASK, "SLURM_HET_SIZE": "2", **ranks}) == (5, 8, 1, 4)


def test_cores_of_a_rank_under_slurm():
    """Eight ranks on the node, as eight tasks or as one launcher's workers."""
    tasks = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_NODEID": "1"}
    assert cores_per_rank(8, {**tasks, "SLURM_CPUS_PER_TASK": "12"}) == 12
    launcher = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": "0"}
    assert cores_per_rank(8, {**launcher, "SLURM_CPUS_PER_TASK": "96"}) == 12
    assert cores_per_rank(1, {}) == len(os.sched_getaffinity(0))


def test_a_python_in_a_batch_script_is_alone():
    """The batch script has SLURM_PROCID and SLURM_NTASKS too, although srun has started no tasks."""
    assert launched_ranks({key: one for key, one in SRUN_TASK.items() if "STEP" not in key}) == (0, 1, 0, 1)


def test_a_restart_and_the_next_job_have_other_ports():
    jobs = [
        {**SRUN_TASK, "SLURM_JOB_ID": str(job), "SLURM_RESTART_COUNT": str(turn)} for job in (7, 8) for turn in (0, 1)
    ]
    assert [slurm_meeting_point(job) for job in jobs] == [("n1", 20056), ("n1", 20057), ("n1", 20064), ("n1", 20065)]
    assert slurm_meeting_point({**SRUN_TASK, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "9"}) == ("10.0.0.1", 9)
