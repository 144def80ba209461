"""Runs an attempt as processes on this machine, which can be killed or asked to stop."""

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distcls.engine.stopping.outcome import PREEMPTED
from distcls.errors import UserError

START = "import sys; from distcls.engine.run import leave, main; leave(main(sys.argv[1:]))"
# Variables that the caller's own launcher or batch job may have set, which these processes must not inherit.
FOREIGN = ("ACCELERATE_", "TORCHELASTIC_", "PET_", "SLURM_", "PMI", "OMPI_")
TOPOLOGY = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LOG = "verify.log"
LAST_LINES = 12
GRACE_S = 60.0


class Processes:
    """One attempt at a run: its processes, from start to end.

    Args:
        command: RECIPE and KEY=VALUE ...
        run: the run folder; the processes' output goes to ``verify.log`` in it.
        number: of processes.
        threads: OpenMP threads per process, fixed because another order of summation rounds differently.
        cpu: whether to hide the GPUs.
    """

    def __init__(self, command: Sequence[str], run: Path, number: int, *, threads: int, cpu: bool) -> None:
        self.run = run
        run.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN) and k not in TOPOLOGY}
        source = str(Path(__file__).parents[3])
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [source, kept.get("PYTHONPATH")]))
        kept["OMP_NUM_THREADS"] = str(threads)
        if cpu:
            kept["CUDA_VISIBLE_DEVICES"] = ""
        self._logged = last_step(run)
        self._processes: list[subprocess.Popen] = []
        port = str(_free_port())
        with open(run / LOG, "ab") as log:
            for rank in range(number):
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
                shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                ranks = {key: str(value) for key, value in {**place, **shared}.items()} if number > 1 else {}
                arguments = [sys.executable, "-c", START, *command, f"output_dir={run}"]
                self._processes.append(
                    subprocess.Popen(arguments, env={**kept, **ranks}, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
                )

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return any(process.poll() is None for process in self._processes)

    def wait_for_step(self, step: int, *, saved: bool = False) -> bool:
        """Wait until the run has logged `step`, and this attempt a step of its own.

        All processes are training by then: a signal would kill a process that has not installed its handlers yet.

        Args:
            saved: also wait for a checkpoint, so that the next attempt has one to resume from.

        Returns:
            False if the attempt ended first.
        """
        while self.running:
            begun = last_step(self.run) >= max(step, self._logged + 1)
            if begun and (not saved or any((self.run / "checkpoints").glob("step_*"))):
                return True
            time.sleep(0.002)
        return False

    def kill(self, dice: random.Random | None = None) -> None:
        """kill -9 all processes, in random order if `dice` are given, and wait for them."""
        for process in dice.sample(self._processes, len(self._processes)) if dice else self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def ask_to_stop(self, dice: random.Random) -> None:
        """Send SIGUSR2 to one process; the others must learn of it."""
        dice.choice(self._processes).send_signal(signal.SIGUSR2)

    def end(self, *expected: str) -> None:
        """Wait for all processes; if one fails, the others are killed after `GRACE_S` seconds, as by a launcher.

        Raises:
            UserError: the run's status is none of `expected`; with the last lines of the log.
        """
        deadline = math.inf
        while self.running and time.monotonic() < deadline:
            if any(process.poll() not in (None, 0, PREEMPTED) for process in self._processes):
                deadline = min(deadline, time.monotonic() + GRACE_S)
            time.sleep(0.01)
        self.kill()
        status = run_state(self.run).get("status", "not begun")
        if status not in expected:
            lines = (self.run / LOG).read_text(errors="replace").splitlines()[-LAST_LINES:]
            raise UserError(
                "\n".join([f"the run in {self.run} is {status}, expected {' or '.join(expected)}:", *lines])
            )


def last_step(run: Path) -> int:
    """The last step that the run has logged; 0 if there is none."""
    file = run / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def run_state(run: Path) -> dict[str, Any]:
    file = run / "run.json"
    return json.loads(file.read_bytes()) if file.exists() else {}


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
