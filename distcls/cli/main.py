"""Tools for recipes, data and runs. To train: accelerate launch launch/train.py RECIPE"""

# Each sub-command imports what it needs when it runs, so that --help is instant.

import sys
from typing import Annotated

import typer

from distcls.cli import (
    bench,
    checkpoint,
    data,
    evaluate,
    models,
    plan,
    predict,
    recipe,
    report,
    slurm,
    track,
    verify_resume,
)
from distcls.errors import UserError
from distcls.version import __version__

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(recipe.app, name="recipe")
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(track.app, name="track")
app.command(name="eval")(evaluate.evaluate)
app.command()(predict.predict)
app.command()(models.models)
app.command()(plan.plan)
app.command()(report.report)
app.command()(slurm.slurm)
app.command()(verify_resume.verify_resume)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"distcls {__version__}")
        raise typer.Exit


@app.callback(help=__doc__)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a folder that is not there, a full disk, no leave to write
        if error.strerror is None:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {place}{error.strerror}", file=sys.stderr)
        sys.exit(1)
