"""`launch/slurm/*.sbatch` with everything filled in for one recipe: what `distcls slurm` writes."""

import math
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distcls.errors import UserError

Style = Literal["srun", "accelerate"]
CHECKOUT = Path(__file__).resolve().parents[3]
TEMPLATES: dict[Style, str] = {"srun": "train.sbatch", "accelerate": "train_accelerate.sbatch"}


@dataclass(frozen=True)
class Request:
    """What one asks SLURM for.

    Attributes:
        nodes: number of nodes; gpus: GPUs of each, 0 for a run on CPUs.
        time: SLURM's, e.g. `8:00:00`.
        cpus: cores for each GPU.
        mem: memory of each node, e.g. `400G`.
        array: task numbers, e.g. `0-3`.
        container: an image: `FILE.sif` is started by apptainer, everything else by srun's pyxis plug-in.
        signal_before: seconds before the time limit at which the run is asked to save.
        more: further options of sbatch, as they are.
    """

    nodes: int
    gpus: int
    time: str
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    mem: str | None = None
    cpus: int | None = None
    array: str | None = None
    style: Style = "srun"
    container: str | None = None
    signal_before: int = 120
    more: Sequence[str] = field(default=())

    @property
    def processes(self) -> int:
        return self.nodes * max(1, self.gpus)


def seconds_of(time: str) -> float:
    """SLURM's time limit in seconds: minutes[:seconds], hours:minutes:seconds, days-hours[:minutes[:seconds]].

    Raises:
        UserError: it is none of these.
    """
    if time.upper() in ("0", "INFINITE", "UNLIMITED"):
        return math.inf
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", time):
        raise UserError(f"--time: got {time}, expected minutes, H:MM:SS or D-H:MM:SS")
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes, seconds = [0, *parts, 0][:3] if not days and len(parts) < 3 else [*parts, 0, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def batch_script(request: Request, recipe: Path, overrides: Sequence[str], *, name: str, folder: Path) -> str:
    """The text of a batch script.

    Args:
        request: what is asked for.
        recipe, overrides: as on the command line; `%a` becomes the number of an array's task.
        name: of the job.
        folder: where its log goes.

    Raises:
        UserError: launch/slurm is not there: distcls was installed without its checkout.
    """
    template = CHECKOUT / "launch/slurm" / TEMPLATES[request.style]
    if not template.is_file():
        raise UserError(f"{template} does not exist: distcls slurm needs the checkout that distcls was installed from")
    settings = _settings(request)
    body = [
        f"{key}={settings[key]}" if (key := line.partition("=")[0]) in settings else line
        for line in template.read_text().splitlines()
        if not line.startswith("#")
    ]
    body.insert(body.index("set -uo pipefail") + 1, f"set -- {shlex.join([str(recipe), *overrides])}")
    lines = [
        "#!/usr/bin/env bash",
        f"# Written by `distcls slurm` from launch/slurm/{template.name}, where it is explained.",
        *(f"#SBATCH {option}" for option in _options(request, name, folder)),
        *body,
    ]
    return "\n".join(lines) + "\n"


def _options(request: Request, name: str, folder: Path) -> list[str]:
    tasks = max(1, request.gpus) if request.style == "srun" else 1
    cores = request.cpus and request.cpus * max(1, request.gpus) // tasks
    log = folder / ("slurm-%A_%a.out" if request.array else "slurm-%j.out")
    given = {
        "job-name": name,
        "nodes": request.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": request.gpus or None,
        "cpus-per-task": cores,
        "mem": request.mem,
        "time": request.time,
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "array": request.array,
        "chdir": Path.cwd(),
        "output": log,
        "signal": f"B:USR2@{request.signal_before}",
    }
    options = [f"--{key}={shlex.quote(str(value))}" for key, value in given.items() if value is not None]
    return [*options, "--open-mode=append", "--requeue", *request.more]


def _settings(request: Request) -> dict[str, str]:
    train = str(CHECKOUT / "launch/train.py")
    if request.container is None:
        return {"python": shlex.quote(sys.executable), "train": shlex.quote(train)}
    here = Path.cwd()
    if request.container.endswith(".sif"):
        inside = ["apptainer", "exec", "--nv", "--bind", str(here), "--pwd", str(here), request.container]
        around = {"in_step": inside, "in_batch": inside}
    else:
        inside = [f"--container-image={request.container}", f"--container-mounts={here}:{here}"]
        inside += [f"--container-workdir={here}"]
        around = {"in_step": inside, "in_batch": ["srun", "--overlap", "--nodes=1", "--ntasks=1", *inside]}
    return {
        "python": "python3",
        "train": shlex.quote(train),
        **{key: f"({shlex.join(words)})" for key, words in around.items()},
    }
