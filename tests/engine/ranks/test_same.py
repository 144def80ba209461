"""What must be equal on all ranks, and the message that names a difference."""

from pathlib import Path

import pytest

from distcls.engine.ranks import collectives, network, shared_folder
from distcls.engine.ranks.code_version import code_version, sources_hash
from distcls.errors import UserError


@pytest.fixture
def two_hosts(monkeypatch):
    """A `gather` over two hosts: rank 0 on n1 with the caller's facts, rank 1 on n2 with `theirs` in addition."""

    def answers(**theirs):
        monkeypatch.setattr(collectives, "gather", lambda mine: [("n1", mine[1]), ("n2", {**mine[1], **theirs})])

    return answers


def test_equal_facts_pass(two_hosts):
    two_hosts()
    collectives.same_on_all_ranks({"code": code_version(), "data.train": "ab"})


def test_other_sources_are_named_with_hosts_and_a_remedy(two_hosts):
    two_hosts(code={"distcls sources": "beef"})
    with pytest.raises(UserError) as caught:
        collectives.same_on_all_ranks({"code": {"distcls sources": "cafe"}})
    assert str(caught.value) == (
        "rank 1 on n2 differs from rank 0 on n1: code.distcls sources is 'beef' there and 'cafe' here: "
        "start all nodes from one shared checkout and environment, or install the same versions on each"
    )


def test_a_package_that_one_node_lacks(two_hosts):
    two_hosts(code={"torch": "2.14.1"})
    with pytest.raises(UserError, match=r"code\.deepspeed is missing there and .0.19. here"):
        collectives.same_on_all_ranks({"code": {"torch": "2.14.1", "deepspeed": "0.19"}})


def test_the_hash_follows_every_source_and_nothing_else(tmp_path: Path):
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "inner/part.py").write_text("x = 1\n")
    before = sources_hash(package)
    (package / "inner/part.pyc").write_text("compiled")
    assert sources_hash(package) == before
    (package / "inner/part.py").write_text("x = 2\n")
    assert sources_hash(package) != before


def test_a_folder_that_one_host_has_for_itself(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(shared_folder, "on_rank_zero", lambda rank, work: tmp_path / "elsewhere" / ".shared_ab")
    monkeypatch.setattr(shared_folder, "gather", lambda mine: [("n1", True), mine, mine])
    monkeypatch.setattr(shared_folder.socket, "gethostname", lambda: "n2")
    with pytest.raises(UserError) as caught:
        shared_folder.check_shared(tmp_path, 1, wait_s=0)
    assert str(caught.value) == (
        f"output_dir {tmp_path} is not the same folder on all nodes: what rank 0 on n1 wrote into it, rank 1 on n2 "
        "did not see within 0 s: put it on a file system that all nodes share (NFS, Lustre, ...), under the same path"
    )


INTERFACES = {"lo": ["127.0.0.1"], "eth0": ["10.0.0.2"]}


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(network, "addresses", lambda: INTERFACES)
    monkeypatch.setattr(network.socket, "gethostname", lambda: "n2")
    monkeypatch.setattr(network, "_resolved", lambda name: {"127.0.1.1"})


def refusal(**environment: str) -> str:
    with pytest.raises(UserError) as caught:
        network.check_interfaces(several_nodes=True, environment=environment)
    return str(caught.value)


def test_an_interface_that_the_host_lacks(host):
    assert refusal(GLOO_SOCKET_IFNAME="ib0") == (
        "GLOO_SOCKET_IFNAME=ib0: n2 has no such network interface, it has lo (127.0.0.1), eth0 (10.0.0.2): "
        "set it to the one that reaches the other nodes"
    )
    assert refusal(NCCL_SOCKET_IFNAME="=eth").startswith("NCCL_SOCKET_IFNAME==eth: n2 has no such network interface")


def test_the_loopback_between_nodes(host):
    assert refusal(GLOO_SOCKET_IFNAME="lo").startswith(
        "GLOO_SOCKET_IFNAME=lo: no other node can reach the loopback interface of n2, which has lo"
    )
    assert refusal() == (
        "the name of this host, n2, resolves to no address that other nodes can reach, and GLOO_SOCKET_IFNAME is not "
        "set: set it to the interface that reaches the other nodes; there are lo (127.0.0.1), eth0 (10.0.0.2)"
    )


@pytest.mark.parametrize("value", ["eth", "ib,eth", "=eth0", "^docker,lo"])
def test_what_nccl_understands(host, value):
    network.check_interfaces(several_nodes=False, environment={"NCCL_SOCKET_IFNAME": value})


def test_nodes_that_meet_on_the_loopback_are_one_host(host):
    network.check_interfaces(several_nodes=True, environment={"MASTER_ADDR": "127.0.0.1"})
    assert refusal(MASTER_ADDR="n1").startswith("the name of this host, n2, resolves to no address")


def test_one_node_needs_no_interface(host):
    network.check_interfaces(several_nodes=False, environment={})
