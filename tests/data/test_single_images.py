"""Single files become what evaluation makes of the same images in a .beton."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distcls.data.converting.convert import convert
from distcls.data.converting.sources import open_source
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader
from distcls.data.single_images import SingleImages

LOOK = {"resolution": 24, "crop_ratio": 0.8, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}


def save(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "ffcv_area"])
def test_a_file_is_prepared_as_evaluation_prepares_it(tmp_path: Path, interpolation) -> None:
    for number, (height, width) in enumerate([(40, 64), (96, 80), (20, 24)]):
        save(tmp_path / "images" / "a" / f"{number}.png", height, width)
    convert(open_source(tmp_path / "images"), tmp_path / "a.beton", write_mode="raw", workers=1)
    dataset = BetonDataset(tmp_path / "a.beton")
    loader = EvalLoader(dataset, batch_size=3, workers=1, device="cpu", interpolation=interpolation, **LOOK)
    with loader.batches() as batches:
        expected = next(iter(batches)).images.clone()
    loader.close()
    images = SingleImages([tmp_path / "images"], interpolation=interpolation, **LOOK)
    got = torch.stack([images.prepared(index) for index in range(3)])
    assert (got - expected).abs().max() <= 1.01 / 255 / min(LOOK["std"])  # one grey level


def test_files_and_folders_are_taken_in_the_order_given(tmp_path: Path) -> None:
    for name in ("f/b.png", "f/deep/a.JPG", "f/notes.txt", "z.png"):
        save(tmp_path / name, 20, 20) if name[-3:] != "txt" else (tmp_path / name).write_text("x")
    images = SingleImages([tmp_path / "z.png", tmp_path / "f"], interpolation="bilinear", **LOOK)
    names = [Path(images.name_of(index)).relative_to(tmp_path).as_posix() for index in range(len(images))]
    assert names == ["z.png", "f/b.png", "f/deep/a.JPG"]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no images$"):
        SingleImages([tmp_path / "empty"], interpolation="bilinear", **LOOK)
    with pytest.raises(DataError, match=r"nowhere: no such file or folder$"):
        SingleImages([tmp_path / "nowhere"], interpolation="bilinear", **LOOK)
