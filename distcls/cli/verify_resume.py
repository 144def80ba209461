"""`distcls verify-resume`: kill a run, and see that it is the same run."""

import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from distcls.errors import UserError


def verify_resume(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, e.g. train.global_batch_size=64")
    ] = None,
    kills: Annotated[int, typer.Option(min=0, help="Number of times that each run is killed.")] = 3,
    ranks: Annotated[str, typer.Option(help="Numbers of processes, e.g. 1,2,4.")] = "1,2",
    steps: Annotated[int, typer.Option(min=8, help="Steps of each run.")] = 24,
    cpu: Annotated[bool, typer.Option("--cpu", help="Do not use GPUs.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the moments at which runs are killed. Default: random.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the runs in this new folder. Default: delete them.")] = None,
) -> None:
    """Test that a recipe resumes exactly after kill -9, preemption and on another number of processes.

    Trains a short version of the recipe undisturbed, then killed at random moments, preempted, and moved between
    numbers of processes, and compares samples, learning rates, losses and weights. Exit status 1 if one that must be
    equal differs, or if a run ended before it could be interrupted.
    """
    from distcls.engine.attempt.preparing import prepare
    from distcls.engine.verify.proofs import compare, loss_bound
    from distcls.engine.verify.trials import Trials, shortened

    counts = _counts(ranks)
    cpu = cpu or _gpus() < max(counts)
    changes = list(overrides or [])
    resolved = prepare(recipe, changes, counts[0]).recipe.resolved()
    changes += shortened(resolved, steps)
    for count in counts:
        prepare(recipe, changes, count)  # every mistake now, and not after the first run
    seed = random.randrange(2**32) if seed is None else seed

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with _folder(keep) as folder:
        trials = Trials(recipe, changes, folder, steps, _threads(max(counts)), cpu, random.Random(seed), say)
        proofs, references = [], {}
        for count in counts:
            reference = references[count] = trials.whole(count)
            if count != counts[0]:
                proofs += compare(reference, references[counts[0]], exact=cpu)
            if kills:
                proofs += compare(trials.killed(count, kills), reference, exact=cpu)
            proofs += compare(trials.preempted(count), reference, exact=cpu)
        if len(counts) > 1:
            bound = loss_bound(list(references.values()), resolved["train"]["precision"])
            proofs += compare(trials.moved([*counts, counts[0]]), references[counts[0]], exact=cpu, bound=bound)
    device = "CPU" if cpu else "GPU"
    _print(proofs, f"{recipe}: {steps} steps on the {device}; moments drawn with --seed {seed}")
    print(verdict(proofs, steps))


def verdict(proofs: list, steps: int) -> str:
    """The last line of a run of `steps` whose proofs hold.

    Raises:
        UserError: one does not, or there was nothing to prove.
    """
    missed = [proof.trial for proof in proofs if proof.compared == "interruption"]
    failed = [proof for proof in proofs if proof.holds is False and proof.compared != "interruption"]
    faults = [f"{len(failed)} of {len(proofs) - len(missed)} comparisons failed"] if failed else []
    faults += [
        f"{trial}: {steps} steps are too few to interrupt this run and resume it, so nothing is proved: "
        f"give more, for example --steps {2 * steps}"
        for trial in missed
    ]
    if faults:
        raise UserError("\n".join(faults))
    return f"all {len(proofs)} comparisons hold; where a difference is expected, the table says why"


def _print(proofs: list, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("run")
    table.add_column("compared")
    table.add_column("steps", justify="right")
    table.add_column("result")
    before = None
    for proof in proofs:
        if before is not None and proof.trial != before:
            table.add_section()
        style = {True: "green", False: "bold red", None: "yellow"}[proof.holds]
        table.add_row(
            "" if proof.trial == before else proof.trial, proof.compared, str(proof.steps), proof.outcome, style=style
        )
        before = proof.trial
    console = Console()
    console.print(table) if console.is_terminal else Console(width=140).print(table)


def _counts(text: str) -> list[int]:
    try:
        counts = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UserError(f"--ranks: got {text!r}, expected numbers of processes such as 1,2")
    return counts


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _threads(processes: int) -> int:
    from distcls.engine.ranks.topology import cores_per_rank

    return cores_per_rank(processes)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="distcls_verify_") as name:
            yield Path(name)
        return
    if keep.exists() and any(keep.iterdir()):
        raise UserError(f"--keep {keep}: is not empty: give a new folder")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep
