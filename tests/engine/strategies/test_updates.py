"""Every strategy's update is the one that plain torch computes: accumulation, clipping, average, frozen parameters."""

import sys
from pathlib import Path

import pytest

from tests.engine.launching import reported

STRATEGIES = ["ddp", "zero1", "zero2", "zero3", "fsdp2"]
WORKER = str(Path(__file__).with_name("updates.py"))
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module", params=[[sys.executable], TWO], ids=["one rank", "two ranks"])
def report(request):
    return reported([*request.param, WORKER], *STRATEGIES)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_update_is_that_of_plain_torch(strategy, report):
    """Three updates of two micro-batches a rank, unclipped, clipped to 0.05, and with a limit far above the norm."""
    for clip in ("None", "0.05", "1000000.0"):
        found = report[f"{strategy} {clip}"]
        for name in ("weights", "average", "norm", "averaged model"):
            assert found[name] < 1e-5, (clip, name, found)
        assert found["model after it"] == 0, clip
        assert min(found["norms"]) > 0.05  # so that the limit of 0.05 acts each time
