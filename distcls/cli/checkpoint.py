"""`distcls checkpoint ...`: what a run has saved."""

from pathlib import Path
from typing import Annotated

import typer

from distcls.errors import UserError

app = typer.Typer(no_args_is_help=True, help="List, verify, export and convert the checkpoints of a run.")
Source = Annotated[Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="Run folder, or a checkpoints/step_N in it.")]


@app.command(name="list")
def list_checkpoints(run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]) -> None:
    """List the checkpoints of a run. Checks sizes only; `verify` checks every byte."""
    from rich.console import Console
    from rich.table import Table

    from distcls.engine.checkpoints.inventory import inventory

    table = Table(box=None, header_style="bold")
    for title in ("checkpoint", "epoch", "samples", "size", "processes"):
        table.add_column(title, justify="left" if title == "checkpoint" else "right", no_wrap=True)
    table.add_column("best")
    table.add_column("state")
    everything = inventory(run)
    best = next((found for found in everything if found.manifest.get("best")), None)  # each was the best when written
    for found in everything:
        head = found.manifest
        table.add_row(
            found.path.name,
            *(_figure(head.get(key)) for key in ("epoch", "samples")),
            _bytes(found.bytes),
            _figure(head.get("world_size")),
            "best" if found is best else "",
            "damaged" if found.harm else "whole",
        )
    Console(soft_wrap=True).print(table)
    for found in everything:
        if found.harm:
            print(f"{found.path.name}: {found.harm}")


@app.command()
def verify(source: Source) -> None:
    """Verify the hash of every file. Exit status 1 if a checkpoint is damaged."""
    from distcls.engine.checkpoints.inventory import checkpoints_of, harm_of

    damaged = []
    for path in checkpoints_of(source):
        harm = harm_of(path)
        if harm is not None and not path.exists():
            continue  # a live run has pruned it meanwhile
        print(f"{path.name}: {harm or 'every byte is what was written'}")
        damaged += [path.name] if harm else []
    if damaged:
        raise UserError(f"{', '.join(damaged)} in {source}: damaged. A run that goes on takes the newest that is not")


@app.command()
def export(
    source: Source,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write. Default: in RUN/weights.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Export the raw weights instead of the EMA.")] = False,
) -> None:
    """Export weights to one .safetensors file, for `distcls.load` and `model.init`.

    Of a run folder, the newest valid checkpoint is exported.
    """
    from distcls.engine.checkpoints.export import export as write

    whole = _newest_whole(source)
    target = output or whole.parents[1] / "weights" / f"{whole.name}{'_raw' if raw else ''}.safetensors"
    print(f"{target}: {write(whole, target, raw=raw)} tensors of {whole}")


@app.command()
def convert(
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder in which step_N is written.")],
    world_size: Annotated[int, typer.Option("--world-size", min=1, help="Number of processes to write it for.")] = 1,
) -> None:
    """Rewrite a checkpoint for another number of processes, with every tensor whole.

    Resuming needs no conversion: a run resumes from any checkpoint on any number of processes, with any strategy.
    """
    from distcls.engine.checkpoints.convert import convert as write

    whole = _newest_whole(source)
    if (output / whole.name).exists():  # this one, an earlier conversion, or another run's
        raise UserError(f"-o {output}: {whole.name} is in it already: give another folder")
    print(f"{write(whole, output, world_size)}: for {world_size} process{'es' if world_size > 1 else ''}")


def _newest_whole(source: Path) -> Path:
    from distcls.engine.checkpoints.inventory import checkpoints_of, harm_of

    harms = []
    for path in checkpoints_of(source):
        harm = harm_of(path)
        if harm is None:
            return path
        harms.append(f"{path.name}: {harm}")
    raise UserError("; ".join([f"{source}: no whole checkpoint", *harms]))


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
