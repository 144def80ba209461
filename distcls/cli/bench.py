"""`distcls bench ...`: measure on this machine."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Measure the speed of this machine.")


@app.callback()
def bench() -> None:
    """Measure the speed of this machine."""


@app.command()
def data(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, e.g. data.workers=4")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each measurement, in seconds.")] = 5.0,
    only_ours: Annotated[
        bool, typer.Option("--only-ours", help="Measure only distcls, not torch's and FFCV's loaders.")
    ] = False,
) -> None:
    """Measure images per second and CPU time per image of a recipe's training data, and find the bottleneck."""
    from distcls.data.inspecting import bench as run
    from distcls.data.loader import TrainLoader
    from distcls.engine.building.datasets import open_datasets
    from distcls.engine.building.loaders import resolution_of
    from distcls.engine.checks.located import located
    from distcls.engine.checks.plugins import checked_recipe
    from distcls.engine.ranks.topology import cores_per_rank
    from distcls.registry import TRANSFORMS

    checked, source, _ = checked_recipe(recipe, overrides or [])
    dataset = open_datasets(checked, source).train
    size = resolution_of(checked.data.resolution).end
    interpolation, workers = checked.data.interpolation, checked.data.workers or cores_per_rank(1)
    batch = checked.train.global_batch_size // checked.train.accumulation_steps
    with located(source):
        own = [TRANSFORMS.build(block) for block in checked.data.augment]

    def loader(transforms: list) -> run.Rate:
        ours = TrainLoader(
            dataset,
            resolution=size,
            transforms=transforms,
            global_batch_size=batch,
            seed=checked.train.seed,
            workers=workers,
            interpolation=interpolation,
            device="cpu",
        )
        try:
            return run.ours(ours, seconds)
        finally:
            ours.close()

    about = f"{len(dataset)} images of {dataset.paths[0]} at {size} pixels, batches of {batch}"
    print(f"{about}, {workers} workers on {len(os.sched_getaffinity(0))} cores, to CPU memory", flush=True)
    print(f"{'':44}{'images/s':>10}{'CPU ms/image':>14}")

    def row(title: str, measured: Callable[[], run.Rate]) -> run.Rate:
        rate = measured()
        print(f"{title:44}{rate.images_per_second:10.0f}{1000 * rate.cpu_seconds:14.3f}", flush=True)
        return rate

    mine = row("distcls, as the recipe augments", lambda: loader(own))
    if not only_ours:
        row("distcls, RandomResizedCrop and flip", lambda: loader(run.reference_transforms()))
        row(
            "torch DataLoader (Pillow), the same",
            lambda: run.torch_loader(dataset, size, interpolation, batch, workers, seconds),
        )
        if importlib.util.find_spec("ffcv"):
            row("FFCV's Loader, the same", lambda: run.ffcv_loader(dataset, size, batch, workers, seconds))
    costs = run.costs(dataset, size, interpolation)
    print("one image on one core, in ms, whole image to a centred square:")
    parts = {"read": costs.read, "decode": costs.decode, "resize": costs.resize, "normalise, copy": costs.copy}
    print("  " + ", ".join(f"{name} {1000 * value:.3f}" for name, value in parts.items()))
    print(f"bound by {costs.bound(mine, workers)}")
