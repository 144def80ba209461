"""`distcls data browse`: look at what a recipe trains on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from distcls.errors import UserError


def browse(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, e.g. data.resolution=64")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The .png or .html to write. Default: <recipe>_data.png.")
    ] = None,
    images: Annotated[int, typer.Option("-n", "--images", min=1, help="Number of images, from the first batch.")] = 8,
    epoch: Annotated[int, typer.Option(min=0, help="Epoch whose order and augmentation are drawn.")] = 0,
) -> None:
    """Draw training images before and after augmentation: all transforms together, then each alone."""
    from distcls.data.inspecting.browse import rows_of, title_of
    from distcls.data.inspecting.contact_sheet import page, picture
    from distcls.data.loader import TrainLoader
    from distcls.engine.building.datasets import open_datasets
    from distcls.engine.building.loaders import resolution_of, sampling_of
    from distcls.engine.checks.located import located
    from distcls.engine.checks.plugins import checked_recipe
    from distcls.engine.ranks.topology import cores_per_rank
    from distcls.registry import MIXES, TRANSFORMS

    output = output or Path(f"{recipe.stem}_data.png")
    if output.suffix not in (".png", ".html"):
        raise UserError(f"{output}: expected a name that ends in .png or .html")
    checked, source, _ = checked_recipe(recipe, overrides or [])
    data, batch = checked.data, checked.train.global_batch_size
    dataset = open_datasets(checked, source).train
    # The first part of the global batch, as a rank would see it that has no more than is shown.
    size = next(size for size in range(1, batch + 1) if batch % size == 0 and _enough(size, images, batch))

    def loader(transforms: Sequence[Any], mixes: Sequence[Any]) -> TrainLoader:
        return TrainLoader(
            dataset,
            resolution=resolution_of(data.resolution),
            transforms=transforms,
            mixes=mixes,
            global_batch_size=batch,
            world_size=batch // size,
            seed=checked.train.seed,
            workers=data.workers or cores_per_rank(1),
            device="cpu",
            batches_ahead=1,
            **sampling_of(data),
        )

    with located(source):
        rows = rows_of(
            loader,
            [TRANSFORMS.build(block) for block in data.augment],
            [MIXES.build(block) for block in data.mix],
            [title_of(block) for block in (*data.augment, *data.mix)],
            epoch=epoch,
            images=images,
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".html":
        output.write_text(page(rows, f"{recipe.name}, epoch {epoch}: {dataset.paths[0]}"), encoding="utf-8")
    else:
        picture(rows).save(output)
    print(f"{output}: {len(rows[0].pairs)} images of {dataset.paths[0]}, as stored and as trained on")


def _enough(size: int, images: int, batch: int) -> bool:
    """Whether a micro-batch of `size` holds what is to be shown, in pairs as mixing needs them."""
    return size == batch or (size >= images and size % 2 == 0)
