"""Two nodes on one machine: each a network, host name, process and mount namespace of its own, joined by a veth pair.

Files are shared, as on a cluster with one network file system, but for the folder `local`, a disk of each node's own.
As root, with unshare and nsenter (util-linux) and ip (iproute2).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.engine.launching import ENVIRONMENT, ROOT

TRAIN = str(ROOT / "launch" / "train.py")
# Where distcls keeps what numba has compiled: on a disk of a test's own it would be compiled again for each test.
COMPILED = os.environ.get("NUMBA_CACHE_DIR") or f"{tempfile.gettempdir()}/distcls-numba-{os.getuid()}"


def why_not() -> str | None:
    """What this machine lacks for it, or None."""
    missing = [name for name in ("ip", "unshare", "nsenter", "mount") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    command = [
        "unshare",
        "--net",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "ip",
        "link",
        "add",
        "name",
        "one",
        "type",
        "veth",
    ]
    tried = subprocess.run([*command, "peer", "name", "two"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no veth pair in a network namespace: {tried.stderr.strip()}"


class Node:
    """A host of its own name and address, 10.99.0.1 or 10.99.0.2 on eth0."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.name, self.address = number, f"node{number}", f"10.99.0.{number}"
        self.local = folder / "local"
        self.local.mkdir(exist_ok=True)
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n10.99.0.1 node1\n10.99.0.2 node2\n")
        # Its first process; when it dies the kernel kills all others of its process namespace: power off.
        self._init = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "sleep", "3600"]
        )
        self.pid = self._child()
        self.do("hostname", self.name)
        self.do("mount", "-t", "tmpfs", "tmpfs", str(self.local))
        self.do("mount", "--bind", str(hosts), "/etc/hosts")
        self.do("ip", "link", "set", "lo", "up")

    def do(self, *command: str) -> str:
        return subprocess.run(self._inside(*command), check=True, capture_output=True, text=True).stdout

    def replace(self, file: Path, text: str | bytes) -> None:
        """Another content of `file`, on this node only."""
        own = self.local / file.name
        own_outside = file.parent / f".{self.name}_{file.name}"
        own_outside.write_bytes(text.encode() if isinstance(text, str) else text)
        self.do("cp", "-p", str(own_outside), str(own))
        self.do("mount", "--bind", str(own), str(file))

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._inside(*command),
            env={**ENVIRONMENT, "TMPDIR": str(self.local), "NUMBA_CACHE_DIR": COMPILED, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> None:
        """Power off."""
        self._init.send_signal(signal.SIGKILL)
        self._init.wait()

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", "--pid", *command]

    def _child(self) -> int:
        """The process that `unshare` has made, once it runs in its namespaces."""
        while True:
            children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "sleep":
                return int(children[0])
            assert self._init.poll() is None, "unshare failed"


class TwoNodes:
    """Both, and the cable between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = [Node(1, folder), Node(2, folder)]
        first, second = self.nodes
        link = ["ip", "link", "add", "eth0", "netns", str(first.pid), "type", "veth"]
        subprocess.run([*link, "peer", "name", "eth0", "netns", str(second.pid)], check=True)
        for node in self.nodes:
            node.do("ip", "address", "add", f"{node.address}/24", "dev", "eth0")
            node.do("ip", "link", "set", "eth0", "up")

    def torchrun(self, *arguments: str | Path, **environment: str) -> list[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
        command += ["--master_addr", "node1", "--master_port", "29400"]
        return [
            node.start(*command, "--node_rank", str(node.number - 1), TRAIN, *map(str, arguments), **environment)
            for node in self.nodes
        ]

    def accelerate(self, *arguments: str | Path, **environment: str) -> list[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2"]
        command += ["--num_processes", "2", "--main_process_ip", "node1", "--main_process_port", "29400"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
        return [
            node.start(*command, "--machine_rank", str(node.number - 1), TRAIN, *map(str, arguments), **environment)
            for node in self.nodes
        ]

    def __enter__(self) -> "TwoNodes":
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.end()
