"""`distcls ...`: the commands beside training."""

# Each sub-command imports what it needs when it runs, so that --help is instant.

import sys

import typer

from distcls.cli import bench, checkpoint, data, models, plan, recipe, report, slurm, track, verify_resume
from distcls.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(recipe.app, name="recipe")
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(track.app, name="track")
app.command()(models.models)
app.command()(plan.plan)
app.command()(report.report)
app.command()(slurm.slurm)
app.command()(verify_resume.verify_resume)


def main() -> None:
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
