"""`distcls slurm RECIPE ...`: a batch script for a recipe, checked, written, shown and, if wished, submitted."""

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distcls.errors import UserError

if TYPE_CHECKING:
    from distcls.engine.slurm.batch_script import Request

TASKS = r"\d+(-\d+(:\d+)?)?"  # of an array: 5, 0-3, 0-8:2


def slurm(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the recipe.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Overrides; %a is the task number of an array job: train.seed=%a"),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs per node; 0: one process per node, on CPUs.")] = 8,
    time: Annotated[
        str, typer.Option(help="Time limit of each start of the job: minutes, H:MM:SS or D-H:MM:SS.")
    ] = "8:00:00",
    partition: Annotated[str | None, typer.Option(help="Partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Account.")] = None,
    qos: Annotated[str | None, typer.Option(help="Quality of service.")] = None,
    mem: Annotated[str | None, typer.Option(help="Memory per node, e.g. 400G.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPU cores per GPU.")] = None,
    array: Annotated[str | None, typer.Option(help="Submit one run for each number, e.g. 0-3 or 1,5,9.")] = None,
    style: Annotated[str, typer.Option(help="srun: one task per GPU; accelerate: one launcher per node.")] = "srun",
    container: Annotated[
        str | None,
        typer.Option(help="Container image: FILE.sif for apptainer, any other for srun --container-image (pyxis)."),
    ] = None,
    signal_before: Annotated[
        int, typer.Option(min=1, help="Save and requeue this many seconds before the time limit.")
    ] = 120,
    sbatch: Annotated[
        list[str] | None, typer.Option(metavar="OPTION", help="Any other option of sbatch, e.g. --sbatch=--exclusive")
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit the script with sbatch.")] = False,
) -> None:
    """Write a SLURM batch script that trains RECIPE and requeues itself until the run is finished."""
    from distcls.engine.slurm.batch_script import TEMPLATES, Request, batch_script, seconds_of

    if style not in TEMPLATES:
        raise UserError(f"--style: got {style}, expected {' or '.join(TEMPLATES)}")
    if seconds_of(time) <= signal_before:
        raise UserError(
            f"--signal-before {signal_before}: every start would save and queue again at once, expected fewer seconds "
            f"than --time {time} has"
        )
    request = Request(
        nodes=nodes,
        gpus=gpus,
        time=time,
        partition=partition,
        account=account,
        qos=qos,
        mem=mem,
        cpus=cpus,
        array=array,
        style=style,
        container=container,
        signal_before=signal_before,
        more=sbatch or (),
    )
    changes = list(overrides or [])
    name, folder = _checked(recipe, changes, request)
    if array:
        if "%a" in str(folder):
            folder = next(parent for parent in folder.parents if "%a" not in str(parent))
        else:
            changes.append(f"output_dir={folder}/task_%a")
    # sbatch does not make the folder of its log: the job would fail without a word.
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "slurm.sbatch"
    text = batch_script(request, recipe, changes, name=name, folder=folder)
    script.write_text(text)
    print(text)
    if not submit:
        print(f"Written to {script}. Submit it: sbatch {script}")
        return
    try:
        done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"sbatch is not on this machine: on one of the cluster, sbatch {script}") from None
    if done.returncode:
        raise UserError(f"sbatch refused {script}: {done.stderr.strip() or done.stdout.strip()}")
    print(f"{done.stdout.strip()}: {script}, log {folder}/slurm-*.out")


def _checked(recipe: Path, changes: list[str], request: "Request") -> tuple[str, Path]:
    """The recipe's name and output folder, `%a` in it as it is; all its mistakes are raised."""
    from distcls.engine.checks.fit_ranks import check_ranks
    from distcls.engine.checks.plugins import checked_recipe

    number = re.match(r"\d+", request.array or "")
    if request.array is not None and not re.fullmatch(rf"{TASKS}(,{TASKS})*(%\d+)?", request.array):
        raise UserError(f"--array: got {request.array!r}, expected task numbers such as 0-3 or 1,5,9")
    example = [change.replace("%a", number[0]) for change in changes] if number else changes
    checked, source, _ = checked_recipe(recipe, example)
    check_ranks(checked, source, request.processes, gpu=request.gpus > 0)
    written = [change.partition("=")[2] for change in changes if change.startswith("output_dir=")]
    return checked.name, Path(written[-1] if written else checked.output_dir)
