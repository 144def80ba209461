"""block_shuffle over shards: killed in the middle of a window of blocks, the run goes on as the one that nobody disturbed."""

import contextlib
import json

import psutil
import pytest

from distcls.data.converting.shards import convert_shards
from distcls.data.converting.sources import open_source
from tests.engine.launching import ACCELERATE_TWO, PLAIN, finish, held, launch, start
from tests.engine.test_resume import assert_same_run, trainers, wait_for_step


@pytest.fixture(scope="module")
def shards(tiny_data, tmp_path_factory):
    """The 320 training images in four files."""
    out = tmp_path_factory.mktemp("shards") / "train.beton"
    convert_shards(open_source(tiny_data / "train"), out, shards=4, shuffle=True, workers=1)
    return out.with_name("train-*.beton")


@pytest.mark.slow
@pytest.mark.parametrize("command", [PLAIN, ACCELERATE_TWO], ids=["one rank", "two ranks"])
def test_a_kill_changes_nothing_with_block_shuffle(command, tiny_recipe, shards, tmp_path):
    """Ten steps an epoch, of blocks of four images in windows of eight."""
    whole, run = tmp_path / "whole", tmp_path / "killed"
    settings = [f"data.train.path={shards}", "data.sampler=block_shuffle", "data.block_size=4", "data.block_window=2"]
    code, output = launch(command, tiny_recipe, f"output_dir={whole}", *settings)
    assert code == 0, output
    process = start(held(command, 18), tiny_recipe, f"output_dir={run}", *settings)
    wait_for_step(process, run, 12)
    for worker in trainers(process):
        with contextlib.suppress(psutil.NoSuchProcess):  # the launcher ends the second one, too
            worker.kill()
    finish(process)
    checkpoints = sorted(path.name for path in (run / "checkpoints").glob("step_*"))
    assert checkpoints
    assert max(checkpoints) < "step_00000020"
    code, output = launch(command, tiny_recipe, f"output_dir={run}", *settings)
    assert code == 0, output
    assert_same_run(whole, run)
    attempts = json.loads((run / "run.json").read_text())["attempts"]
    assert [attempt["status"] for attempt in attempts][-1] == "finished"
    assert len(attempts) == 2
