"""`distcls data browse`: look at what a recipe trains on."""

from pathlib import Path
from typing import Annotated

import typer

from distcls.errors import UserError


def browse(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe's YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, for example data.resolution=64")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The PNG to write; default: <recipe>_data.png.")
    ] = None,
    images: Annotated[int, typer.Option("-n", "--images", min=1, help="How many.")] = 16,
    epoch: Annotated[int, typer.Option(min=0, help="Whose order and augmentation.")] = 0,
) -> None:
    """Write a contact sheet: the first images of an epoch as stored, beside what the loader delivers, with labels."""
    from distcls.data.browse import contact_sheet
    from distcls.data.loader import TrainLoader
    from distcls.engine.build import open_datasets
    from distcls.engine.plugins import import_parts
    from distcls.engine.ranks.topology import cores_per_rank
    from distcls.engine.sampling import resolution_of
    from distcls.recipe.schema import check
    from distcls.recipe.source import read
    from distcls.registry import TRANSFORMS

    output = output or Path(f"{recipe.stem}_data.png")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such folder: make it first")
    source = read(recipe, overrides or [])
    import_parts(source)
    checked = check(source)
    dataset = open_datasets(checked, source).train
    # Draws follow from (seed, epoch, position): a batch of n from the epoch's start is what training sees there first,
    # also of repeated images, whose first copies come before all others. Mixing follows from the step: it is left out.
    loader = TrainLoader(
        dataset,
        resolution=resolution_of(checked.data.resolution)[0],
        transforms=[TRANSFORMS.build(block) for block in checked.data.augment],
        global_batch_size=min(images, len(dataset)),
        seed=checked.train.seed,
        balanced=checked.data.sampler == "balanced",
        workers=checked.data.workers or cores_per_rank(1),
        interpolation=checked.data.interpolation,
        device="cpu",
        batches_ahead=1,
    )
    sheet = contact_sheet(loader, dataset, epoch * loader.steps_per_epoch)
    loader.close()
    sheet.save(output)
    print(f"{output}: {min(images, len(dataset))} images of {dataset.paths[0]}, as stored and as trained on")
