"""Every strategy with every optimizer goes on bit for bit, three ranks each, and takes over another strategy's run.

Three, because two add up to the same in whatever order.
"""

import sys
from pathlib import Path

import pytest

from tests.engine.launching import reported
from tests.engine.strategies.resumes import CLIP, OPTIMIZERS, STRATEGIES

WORKER = str(Path(__file__).with_name("resumes.py"))
THREE = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3"]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return reported([*THREE, WORKER], tmp_path_factory.mktemp("resumes"))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_half_a_run_and_the_other_half_are_the_whole(strategy, optimizer, report):
    """Losses, norms, weights, average, BatchNorm's buffers and open sums, on each rank."""
    found = report[f"{strategy} {optimizer}"]
    assert found["equal on all ranks"], found
    assert found["against ddp"] < 1e-5, found
    assert found["taken over"] == 0, found
    assert found["went on"] < 1e-5, found
    assert min(found["numbers"][1::2]) < CLIP < max(found["numbers"][1::2]), "the limit acts, and not always"
