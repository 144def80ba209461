"""`distcls plan`: what a recipe needs on so many GPUs; needs none itself."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distcls.engine.plan.plan import RunPlan

GIB = 2**30
WIDTH = 130


def plan(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, e.g. train.precision=bf16")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs per node.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes.")] = 1,
    memory: Annotated[float, typer.Option(min=0.1, help="Memory of each GPU, in GiB.")] = 80.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with sizes in bytes.")] = False,
) -> None:
    """Compute what a recipe needs: GPU memory by strategy, traffic, batch and steps; list what is missing."""
    from distcls.engine.checks.plugins import checked_recipe

    checked, source, _ = checked_recipe(recipe, overrides or [])
    # Here, for it imports torch: a file that cannot be read is told before.
    from distcls.engine.plan.plan import make_plan

    made = make_plan(checked, source, gpus=gpus * nodes, memory_gib=memory)
    if as_json:
        print(json.dumps(made.to_json(), indent=1))
    else:
        _show(made)


def _show(made: "RunPlan") -> None:
    from rich.console import Console
    from rich.table import Table

    terminal = Console(highlight=False, markup=False, soft_wrap=True)
    terminal.width = max(terminal.width, WIDTH)  # a wider table is easier to read wrapped by the terminal than cut
    trained = made.sizes.trained / 1e6
    frozen = f", {trained:.2f} M of them trained" if made.sizes.trained != made.sizes.parameters else ""
    terminal.print(f"{made.name} on {made.gpus} GPUs of {made.memory / GIB:g} GiB")
    terminal.print(f"parameters     {made.sizes.parameters:,} ({made.sizes.parameters / 1e6:.2f} M){frozen}")
    ranks = f"{made.gpus} GPUs x {made.accumulation} accumulation x {made.micro_batch} images"
    terminal.print(f"batch          {made.global_batch} = {ranks}")
    terminal.print(f"learning rate  {made.lr:g} as written, {made.schedule}" if made.lr else "learning rate  not set")
    terminal.print(
        f"steps          {made.steps_per_epoch} per epoch, {made.total_steps} in all, {made.images} images"
        if made.images is not None
        else f"steps          {made.total_steps or 'unknown: the data is missing'}"
    )
    terminal.print(f"activations    {made.activations_per_image / 2**20:.1f} MiB per image\n")
    table = Table(box=None)
    titles = ("GiB per GPU", "weights", "gradients", "optimizer", "EMA", "activations", "in all", "sent a step", "")
    for title in titles:
        table.add_column(title, justify="left" if title in ("GiB per GPU", "") else "right", no_wrap=True)
    for need in made.needs:
        parts = (need.weights, need.gradients, need.optimizer, need.ema, need.activations, need.total, need.sent)
        fits = "fits" if need.total <= made.memory else "does not fit"
        marks = ", ".join([fits, *(["in the recipe"] if need.strategy == made.strategy else [])])
        table.add_row(need.strategy, *(f"{part / GIB:.2f}" for part in parts), marks)
    terminal.print(table)
    terminal.print(f"advised: {made.advice}")
    for line in made.missing:
        terminal.print(f"missing: {line}")
