"""Records the hardware, software and command of each attempt: `environment.json` and `code.diff` in the run folder."""

import json
import os
import platform
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distcls.engine.records.code_record import code_record
from distcls.engine.records.durable_file import replace_file
from distcls.engine.records.versions import installed_versions
from distcls.tracking.redact import redact

SLURM = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_NAME", "JOB_PARTITION", "JOB_NODELIST", "RESTART_COUNT")
LAUNCHER = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID")
TUNING = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NCCL_", "TORCH_", "PYTORCH_")  # prefixes


def place(device: torch.device) -> dict[str, str]:
    """Host and device of this rank, to be gathered from all ranks."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return {"host": socket.gethostname(), "device": name}


def environment(places: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Facts about this attempt, with secrets redacted.

    Args:
        places: `place` of each rank, in rank order.
    """
    names = sorted(name for name in os.environ if name in LAUNCHER or name.startswith(TUNING))
    facts = {
        "hosts": list(dict.fromkeys(one["host"] for one in places)),
        "devices": [one["device"] for one in places],
        "command": sys.argv,
        "python": sys.executable,
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "cuda": torch.version.cuda,
        "versions": installed_versions(),
        "slurm": {name.lower(): os.environ[f"SLURM_{name}"] for name in SLURM if f"SLURM_{name}" in os.environ},
        "variables": {name: os.environ[name] for name in names},
    }
    return redact(facts)


def record(folder: Path, attempt: int, facts: Mapping[str, Any], code: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Add an attempt's facts, and the code it runs, to the run folder.

    Uncommitted changes go to `code.diff`; those of a later attempt to `code_<attempt>.diff` if they differ from the
    last recorded ones.

    Args:
        code: folders, see `code_record`.

    Returns:
        Facts and code of all attempts so far, by number.
    """
    file = folder / "environment.json"
    attempts: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    repositories, diff = code_record(code)
    if diff:
        last = folder / next((one["diff"] for one in reversed(attempts.values()) if one.get("diff")), "code.diff")
        if not last.exists() or last.read_bytes() != diff.encode():
            last = folder / ("code.diff" if not last.exists() else f"code_{attempt}.diff")
            replace_file(last, diff.encode())
        attempts[str(attempt)] = {**facts, "code": repositories, "diff": last.name}
    else:
        attempts[str(attempt)] = {**facts, "code": repositories}
    replace_file(file, json.dumps(attempts, indent=1).encode() + b"\n")
    return attempts
