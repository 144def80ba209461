"""Training on two nodes started by hand, and what goes wrong there: one clear error, and all processes end in time."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.engine.launching import HANGS_S, ROOT, TORCHRUN, finish, launch
from tests.nodes.two_nodes import TwoNodes, why_not

pytestmark = pytest.mark.slow
SHORT = ["train.epochs=null", "train.max_steps=6", "schedule.warmup_steps=2", "checkpoint.every_steps=100"]
ENDLESS = ["train.epochs=100000", "train.log_every_steps=1000", "checkpoint.every_steps=1000", "eval.every_epochs=1000"]
# A plug-in: rank 1 looks a short time for the folder. Within distributed.timeout_s, which is the other bound, all must come.
IMPATIENT = "from distcls.engine.attempt import session\n\nsession.NFS_CACHE_S = 2.0\n"


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    if reason := why_not():
        if os.environ.get("DISTCLS_REQUIRE_NODES") == "1":
            pytest.fail(f"DISTCLS_REQUIRE_NODES=1, but two nodes cannot be made here: {reason}")
        pytest.skip(f"NOT TESTED, two nodes cannot be made here: {reason}")
    with TwoNodes(tmp_path) as made:
        yield made


def all_end(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    return [finish(process) for process in processes]


def errors(ended: list[tuple[int, str]]) -> list[list[str]]:
    """Our error lines of each node."""
    assert all(code != 0 for code, _ in ended), ended
    return [[line for line in output.splitlines() if line.startswith("error: ")] for _, output in ended]


def trains(run: Path, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + HANGS_S
    while time.monotonic() < deadline:
        if all((run / f"heartbeat/rank_0000{rank}").exists() for rank in (0, 1)):
            steps = [(run / f"heartbeat/rank_0000{rank}").read_text() for rank in (0, 1)]
            if all('"phase": "training"' in step or '"phase": "waiting' in step for step in steps):
                return
        assert all(process.poll() is None for process in processes), all_end(processes)
        time.sleep(0.1)
    raise AssertionError("no training")


def test_two_nodes_by_hand_train_what_two_ranks_of_one_node_do(two_nodes, tiny_recipe, tmp_path):
    for name, launcher in (("torchrun", two_nodes.torchrun), ("accelerate", two_nodes.accelerate)):
        for code, output in all_end(launcher(tiny_recipe, *SHORT, f"output_dir={tmp_path / name}")):
            assert code == 0, output
    code, output = launch(TORCHRUN, tiny_recipe, *SHORT, f"output_dir={tmp_path / 'one_node'}")
    assert code == 0, output
    one = load_file(tmp_path / "one_node/weights/last.safetensors")
    for name in ("torchrun", "accelerate"):
        two = load_file(tmp_path / name / "weights/last.safetensors")
        assert all((two[key] == one[key]).all() for key in one), name
    hosts = [json.loads((tmp_path / f"torchrun/heartbeat/rank_0000{rank}").read_text())["host"] for rank in (0, 1)]
    assert hosts == ["node1", "node2"]


@pytest.mark.parametrize("what", ["code", "plug-in", "data"])
def test_files_that_differ_on_one_node_are_named_with_host_and_rank(two_nodes, tiny_recipe, tiny_data, tmp_path, what):
    second = two_nodes.nodes[1]
    plugin = tmp_path / "odd.py"
    plugin.write_text("x = 1\n")
    tiny_recipe.write_text("plugins: [./odd.py]\n" + tiny_recipe.read_text())
    if what == "code":
        changed = ROOT / "distcls/errors.py"
        (tmp_path / "errors.py").write_text(changed.read_text() + "\n# another version\n")
        second.do("mount", "--bind", str(tmp_path / "errors.py"), str(changed))
        expected = "code.distcls sources is "
        remedy = "start all nodes from one shared checkout and environment, or install the same versions on each"
    elif what == "plug-in":
        second.replace(plugin, "x = 2\n")
        expected, remedy = "plug-ins.odd.py is ", "give every node the same files and the same command"
    else:
        second.do("mount", "--bind", str(tiny_data / "train.beton"), str(tiny_data / "val.beton"))
        second.do("mount", "--bind", str(tiny_data / "train.json"), str(tiny_data / "val.json"))
        expected = "data.val is "
        remedy = "copy the same file to every node, `distcls data check FILE` finds a damaged one"
    first, other = errors(all_end(two_nodes.torchrun(tiny_recipe, *SHORT)))
    assert len(first) == len(other) == 1
    assert first[0].startswith(f"error: rank 0 on node1: rank 1 on node2 differs from rank 0 on node1: {expected}")
    assert other[0].startswith(f"error: rank 1 on node2: rank 1 on node2 differs from rank 0 on node1: {expected}")
    assert first[0].endswith(remedy)
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_is_not_shared(two_nodes, tiny_recipe, tmp_path):
    out = tmp_path / "local/run"
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    tiny_recipe.write_text("plugins: [./impatient.py]\n" + tiny_recipe.read_text())
    ended = all_end(two_nodes.torchrun(tiny_recipe, *SHORT, f"output_dir={out}"))
    for lines, rank in zip(errors(ended), (0, 1), strict=True):
        assert lines == [
            f"error: rank {rank} on node{rank + 1}: output_dir {out} is not the same folder on all nodes: what rank 0 on "
            "node1 wrote into it, rank 1 on node2 did not see within 2 s: put it on a file system that all nodes share "
            "(NFS, Lustre, ...), under the same path"
        ]
    run = json.loads(two_nodes.nodes[0].do("cat", str(out / "run.json")))
    assert run["status"] == "failed"


def test_an_interface_that_is_not_there_or_reaches_nobody(two_nodes, tiny_recipe):
    ended = all_end(two_nodes.torchrun(tiny_recipe, *SHORT, GLOO_SOCKET_IFNAME="ib0"))
    for lines, rank in zip(errors(ended), (0, 1), strict=True):
        assert lines == [
            f"error: rank {rank} on node{rank + 1}: GLOO_SOCKET_IFNAME=ib0: node{rank + 1} has no such network "
            f"interface, it has lo (127.0.0.1), eth0 (10.99.0.{rank + 1}): set it to the one that reaches the other nodes"
        ]
    # Debian's own entry
    (two_nodes.folder / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 node2\n10.99.0.1 node1\n")
    ended = all_end(two_nodes.torchrun(tiny_recipe, *SHORT))
    assert errors(ended)[1][0].startswith(
        "error: rank 1 on node2: the name of this host, node2, resolves to no address that other nodes can reach, and "
        "GLOO_SOCKET_IFNAME is not set: set it to the interface that reaches the other nodes; there are lo (127.0.0.1)"
    )


def test_a_node_that_is_powered_off(two_nodes, tiny_recipe, tmp_path):
    processes = two_nodes.torchrun(tiny_recipe, *ENDLESS, "distributed.timeout_s=10")
    trains(tmp_path / "run", processes)
    two_nodes.nodes[0].end()
    _, (code, output) = all_end(processes)
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert code != 0
    assert line.startswith("error: rank 1 on node2: lost rank 0 on node1 (process ")
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["status"] == "failed"
    assert "lost rank 0 on node1" in run["attempts"][0]["message"]


def test_a_node_that_is_cut_off(two_nodes, tiny_recipe, tmp_path):
    processes = two_nodes.torchrun(tiny_recipe, *ENDLESS, "distributed.timeout_s=8")
    trains(tmp_path / "run", processes)
    two_nodes.nodes[1].do("ip", "link", "set", "eth0", "down")
    ended = all_end(processes)
    lines = [line for lines in errors(ended) for line in lines]
    assert lines, ended
    assert all("node1" in line and "node2" in line for line in lines), lines
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"
