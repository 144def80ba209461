"""A SLURM cluster of two nodes on this machine: munged, slurmctld and two slurmd, in a folder and on ports of their own.

Needs root (slurmd starts jobs for users and makes cgroups) and Debian's slurm-wlm and munge, see launch/apt_test.txt.
Nothing outside the folder is touched, so it lives beside another cluster and beside the system's own SLURM.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel")

SLURM_CONF = """\
ClusterName=distcls{port}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool_%n
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmdLogFile={folder}/slurmd_%n.log
SlurmdParameters=config_overrides
FirstJobId={port}
ProctrackType=proctrack/{tracking}
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=60
SlurmdTimeout=25
MessageTimeout=60
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port=[{node_ports}] CPUs=8 RealMemory=2000
PartitionName=low Nodes={nodes} Default=YES MaxTime=60 PriorityTier=1 GraceTime=20
PartitionName=low0 Nodes={nodes} MaxTime=60 PriorityTier=1 GraceTime=0
PartitionName=high Nodes={nodes} MaxTime=60 PriorityTier=10 PreemptMode=OFF
"""


class NoCluster(Exception):
    """This machine cannot run one; the text says why."""


class Cluster:
    """Started by `start`, ended by `stop`.

    Attributes:
        nodes: their names, of this cluster alone: slurmd makes cgroups of that name.
        environment: what a command needs to talk to this cluster and to no other.
        tracking: how slurmd knows a step's processes: "cgroup" (as production does: a signal to a task reaches that
            process alone) or "linuxproc" (its whole tree is signalled).
    """

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise NoCluster("starting slurmd needs root")
        os.environ["PATH"] += ":/usr/sbin:/sbin"
        if missing := [name for name in DAEMONS if not shutil.which(name)]:
            raise NoCluster(f"{', '.join(missing)}: not found; apt-get install $(sed 's/#.*//' launch/apt_test.txt)")
        self.folder = Path(tempfile.mkdtemp(prefix="slurm_"))
        self.folder.chmod(0o755)
        self.port = _free_ports(3)
        self.nodes = (f"p{self.port}n1", f"p{self.port}n2")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        self.environment["SLURM_CONF"] = str(self.folder / "slurm.conf")
        self.tracking = ""
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the daemons and wait for two idle nodes.

        Raises:
            NoCluster: they do not come up, with cgroups or without; the text ends with their logs.
        """
        self._start_munged()
        for tracking in ("cgroup", "linuxproc"):
            self.tracking = tracking
            self._configure()
            self._start("slurmctld", "slurmctld", "-D", "-c")
            for node in self.nodes:
                self.start_node(node)
            if self._works():
                return
            self._stop_daemons("slurmctld", *self.nodes)
        raise NoCluster(f"SLURM does not start here:\n{self.logs()}")

    def start_node(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """kill -9 slurmd and every slurmstepd of that node and what they started: the node is gone."""
        self._daemons.pop(node).kill()
        self._kill_steps(node)

    def steps(self, job: str) -> list[int]:
        """The slurmstepd of a job. They stay up to two seconds after SLURM says that it has left its nodes, and then
        remove its cgroups, even if the job has started again meanwhile: that start would fail.
        """
        return [pid for pid in _pids_of("slurmstepd") if f"[{job}.".encode() in _read(f"/proc/{pid}/cmdline")]

    def stop(self) -> None:
        """Cancel what runs, end the daemons by their process ids, remove the folder."""
        if self.tracking and "slurmctld" in self._daemons:
            self.run("scancel", "--user=root", check=False)
            wait_for(lambda: not self._stepd_pids(), 15)
        self._stop_daemons("slurmctld", *self.nodes, "munged")
        self._kill_steps()
        for node in self.nodes:  # what a killed slurmstepd leaves
            for folder, _, _ in sorted(itertools.chain(*map(os.walk, CGROUPS.glob(f"*/slurm_{node}"))), reverse=True):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str | Path, check: bool = True, **environment: str) -> str:
        """A command that talks to SLURM, its output."""
        environment = {**self.environment, **environment}
        done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says; the last of an array, or {} for a job that SLURM has forgotten."""
        said = self.run("scontrol", "--oneliner", "show", "job", number, check=False)
        return dict(re.findall(r"(\S+?)=(\S*)", said))

    def logs(self) -> str:
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def _start_munged(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._start("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        if not wait_for((self.folder / "munge.socket").exists, 10):
            raise NoCluster(f"munged does not start here:\n{self.logs()}")

    def _configure(self) -> None:
        (self.folder / "state").mkdir(exist_ok=True)
        for node in self.nodes:
            (self.folder / f"spool_{node}").mkdir(exist_ok=True)
        settings: dict[str, object] = {
            "folder": self.folder,
            "host": socket.gethostname().split(".")[0],
            "tracking": self.tracking,
        }
        settings |= {"nodes": f"p{self.port}n[1-2]", "node_ports": f"{self.port + 1}-{self.port + 2}"}
        text = SLURM_CONF.format(**settings, port=self.port)
        (self.folder / "slurm.conf").write_text(text)
        version = "v2" if (CGROUPS / "cgroup.controllers").exists() else "v1"
        cgroup = f"CgroupPlugin=cgroup/{version}\nCgroupMountpoint={CGROUPS}\nIgnoreSystemd=yes\n"
        (self.folder / "cgroup.conf").write_text(cgroup)

    def _works(self) -> bool:
        """Whether both nodes are idle and a step runs on both: cgroups fail only then."""
        if not wait_for(lambda: self.run("sinfo", "-h", "-o", "%D %t", "-p", "low", check=False) == "2 idle\n", 20):
            return False
        command = ["srun", "--nodes=2", "--time=1", "--immediate=10", "true"]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=60).returncode == 0

    def _start(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}_output.log").open("ab")
        self._daemons[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def _stop_daemons(self, *names: str) -> None:
        for name in names:
            if daemon := self._daemons.pop(name, None):
                daemon.terminate()
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def _kill_steps(self, node: str = "") -> None:
        for pid in self._stepd_pids(node):
            for child in [*_descendants(pid), pid]:
                _kill(child)

    def _stepd_pids(self, node: str = "") -> list[int]:
        """slurmstepd of this cluster: they outlive slurmd, and their open log names the folder and the node."""
        found = []
        for pid in _pids_of("slurmstepd"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                opened = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
                if any(str(self.folder) in file and node in file for file in opened):
                    found.append(pid)
        return found


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition became true; `seconds` is a bound against hangs."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _free_ports(count: int) -> int:
    """The first of `count` free ports in a row, below those that the kernel gives away."""
    for first in range(17000 + os.getpid() % 1000 * 10, 32000, count):
        with_sockets = [socket.socket() for _ in range(count)]
        try:
            for number, one in enumerate(with_sockets):
                one.bind(("127.0.0.1", first + number))
            return first
        except OSError:
            continue
        finally:
            for one in with_sockets:
                one.close()
    raise NoCluster("no free ports below 32000")


def _pids_of(command: str) -> list[int]:
    processes = Path("/proc").glob("[0-9]*")
    return [int(one.name) for one in processes if _read(one / "comm").strip() == command.encode()]


def _read(file: str | Path) -> bytes:
    """Nothing where its process has ended."""
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for one in found:
        found.extend(children.get(one, []))
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
