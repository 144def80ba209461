from distcls.engine.attempt.announce import idle_cores

LAUNCHED = {"PATH": "/usr/bin"}
RANK = {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none"}


def test_cores_that_a_launcher_leaves_idle_are_told_with_the_remedy():
    assert idle_cores(8, RANK, LAUNCHED) == (
        "each rank computes with 1 thread and has 8 cores: the launcher has set OMP_NUM_THREADS=1; start it with "
        "OMP_NUM_THREADS=8 to use them, and stay with that number: another one rounds differently"
    )


def test_what_the_user_chose_is_not_commented_on():
    assert idle_cores(8, RANK, LAUNCHED | {"OMP_NUM_THREADS": "1"}) is None
    assert idle_cores(8, {**RANK, "OMP_NUM_THREADS": "8"}, LAUNCHED) is None
    assert idle_cores(1, RANK, LAUNCHED) is None
    assert idle_cores(8, RANK, {}) is None


def test_a_shell_that_exported_the_threads_is_no_launcher():
    exported = {"OMP_NUM_THREADS": "1"}  # a shell's /proc/PID/environ shows what it was started with, not its exports
    assert idle_cores(8, exported, LAUNCHED) is None
    assert idle_cores(8, RANK, LAUNCHED | {"TORCHELASTIC_RUN_ID": "none"}) is None
