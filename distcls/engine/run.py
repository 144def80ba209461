"""The entry points of a run, as a command and as a function: install signal handlers, train, report the result."""

import atexit
import gc
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from distcls.engine.stopping.outcome import NO_VALID_CHECKPOINT, PREEMPTED, Outcome
from distcls.engine.stopping.preemption import StopRequest
from distcls.errors import UserError


def train(recipe_path: str | Path, overrides: Sequence[str] = (), *, stop: StopRequest | None = None) -> Outcome:
    """Train a recipe, or resume its run if the run folder has a checkpoint.

    Args:
        recipe_path: a YAML file.
        overrides: ``KEY=VALUE``, as on the command line.
        stop: receives requests to stop; its signal handlers are installed and stay. None: use handlers of our own
            during this call and restore the previous ones afterwards.

    Raises:
        UserError: before training, for every mistake that can be detected by then; in training, for a non-finite loss.
    """
    if stop is None:
        stop = StopRequest()
        try:
            return train(recipe_path, overrides, stop=stop)
        finally:
            stop.uninstall()
    stop.install()
    # On a CPU torch's threads share the cores with the data threads: if they spin while waiting, training is four times
    # slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Only now import torch, which takes seconds: the signal handlers must be in place from the start.
    with _garbage_collector_off():
        from distcls.engine.attempt import session

    return session.run(Path(recipe_path), overrides, stop)


def main(arguments: Sequence[str]) -> int:
    """`launch/train.py RECIPE [KEY=VALUE ...]`. Returns the exit status."""
    if not arguments or not {"-h", "--help"}.isdisjoint(arguments):
        print(
            "usage: accelerate launch launch/train.py RECIPE [KEY=VALUE ...]\n\n"
            "RECIPE is a YAML file, see recipes/; KEY=VALUE replaces one of its values, e.g. optimizer.lr=0.5.\n"
            f"Exit status: 0 finished, {PREEMPTED} preempted (run it again to resume), {NO_VALID_CHECKPOINT} no valid "
            "checkpoint left, 1 error."
        )
        return 0 if arguments else 2
    try:
        if arguments[0].startswith("-") or "=" in arguments[0]:
            raise UserError(f"the recipe comes first, then KEY=VALUE: got {arguments[0]!r}, expected a YAML file")
        return train(arguments[0], arguments[1:], stop=StopRequest()).exit_code  # a late signal must not change it
    except UserError as error:
        if _should_print(error):
            print(f"error: {_origin()}{error}", file=sys.stderr, flush=True)
        return getattr(error, "exit_code", 1)


def leave(status: int) -> NoReturn:
    """End this process without the interpreter's usual shutdown; everything must be saved and closed by now.

    During that shutdown gloo's threads may still run and abort the process (pytorch issue 190489), so that a finished
    run would count as failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    """Speed up importing torch, which makes half a million lasting objects that each collection would visit."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _should_print(error: UserError) -> bool:
    """An error that every rank detects by itself is printed once per node."""
    return error.on_one_rank or os.environ.get("LOCAL_RANK", "0") == "0"


def _origin() -> str:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return f"rank {os.environ.get('RANK', '0')} on {socket.gethostname()}: " if world > 1 else ""
