"""Kills a process with kill -9 at random moments while it saves checkpoints in the background, and checks what is left.

    python benchmarks/kill_saves.py [--kills 250] [--folder DIR] [--seed 0]

A child does what the trainer does: it copies a small state (3 tensors, 48 kB) to CPU memory, starts the save in a
thread, goes on changing the state, and acknowledges each checkpoint once it is committed. The parent kills it at a
random moment and checks: the newest checkpoint must be intact, hold the state of exactly its step, and not be older
than the last acknowledged one; the next child continues from there, in the same folder. Real fsyncs on the file system
of --folder (default: a temporary one). Writes benchmarks/results/kill_saves.json; status 1 if anything was lost.
"""

import argparse
import collections
import json
import os
import platform
import random
import select
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distcls.engine.checkpoints.background import Background, cpu_copies
from distcls.engine.checkpoints.store import CheckpointStore


def state_at(step: int) -> dict[str, dict[str, torch.Tensor]]:
    numbers = torch.full((4096,), float(step))
    return {"model": {"weight": numbers}, "optimizer": {"momentum": -numbers}, "rank": {"window": numbers / 2}}


def train_for_ever(folder: Path, first: int, acknowledge: int) -> None:
    store, files, pending = CheckpointStore(folder), state_at(first), first
    background: Background[Path] = Background()
    for step in range(first, first + 100_000):  # saves the existing step again first, to test replacing it
        for stem, share in state_at(step).items():
            for name, tensor in share.items():
                files[stem][name].copy_(tensor)  # in place, while the previous save may still be running
        if background.done:
            background.collect()
            os.write(acknowledge, pending.to_bytes(8, "little"))
        if background.idle:
            copies, pending = cpu_copies(files), step
            background.start(partial(store.save, step, copies, {"step": step}))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=250)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()

    dice = random.Random(options.seed)
    found: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name) / "checkpoints"
        store = CheckpointStore(folder)
        store.save(0, state_at(0), {"step": 0})
        last = 0
        for kill in range(options.kills):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    train_for_ever(folder, last, writer)
                finally:
                    os._exit(1)
            os.close(writer)
            select.select([reader], [], [], 30)  # wait for the first acknowledgement: the child is saving
            time.sleep(dice.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            acknowledged = last
            while said := os.read(reader, 8):
                acknowledged = int.from_bytes(said, "little")
                found["saves acknowledged"] += 1
            os.close(reader)
            debris = {path.name[1:].split("_")[0] for path in folder.iterdir() if path.name[0] == "."}
            found["kills"] += 1
            found["kills in the middle of a save"] += bool(debris)
            for kind in debris:
                found[f"kills that left a .{kind}_ folder"] += 1
            path = store.latest()
            assert path is not None
            step, tensors = store.load(path)[0]["step"], store.load(path)[1]
            whole = all(
                torch.equal(tensors[stem][name], tensor)
                for stem, share in state_at(step).items()
                for name, tensor in share.items()
            )
            found["acknowledged steps lost"] += step < acknowledged
            found["checkpoints not of their step"] += not whole
            found["damaged checkpoints"] += any("corrupt" in path.name for path in folder.iterdir())
            found["committed but not yet acknowledged"] += step > acknowledged
            last = step
            if kill % 50 == 49:
                print(f"{kill + 1} kills, {found['saves acknowledged']} saves", file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "machine": {"kernel": platform.release(), "torch": torch.__version__},
        "options": {"kills": options.kills, "seed": options.seed},
    }
    result |= {"seconds": round(time.monotonic() - began, 1), "found": dict(found)}
    out = Path(__file__).parent / "results" / "kill_saves.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["found"], indent=1))
    return int(
        found["acknowledged steps lost"] + found["checkpoints not of their step"] + found["damaged checkpoints"] > 0
    )


if __name__ == "__main__":
    sys.exit(main())
