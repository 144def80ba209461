from datetime import timedelta

from distcls.engine.strategies.accelerator import make_accelerator


def test_the_next_run_of_a_process_has_its_own_precision():
    """accelerate keeps that of the first Accelerator of a process, and refuses another one."""
    for precision in ("fp32", "bf16"):
        accelerator = make_accelerator(precision=precision, timeout=timedelta(minutes=1))
        assert accelerator.mixed_precision == {"fp32": "no"}.get(precision, precision)
