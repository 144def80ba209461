import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.augment import RandomHorizontalFlip
from distcls.data.browse import contact_sheet, denormalised
from distcls.data.loader import TrainLoader
from distcls.data.order import permutation


def loader_of(dataset, transforms):
    return TrainLoader(
        dataset, resolution=28, transforms=transforms, global_batch_size=8, seed=1, workers=1, device="cpu"
    )


def cells(sheet, number, cell):
    """The stored and the delivered image of pair `number` on the sheet."""
    row, column = divmod(number, 4)
    left, top = 8 + column * (2 * cell + 16), 8 + row * (cell + 22)
    pixels = np.asarray(sheet)[top : top + cell, left : left + 2 * cell]
    return pixels[:, :cell], pixels[:, cell:]


def test_the_sheet_shows_stored_images_and_what_the_loader_delivers(raw, raw_images):
    loader = loader_of(raw, [RandomHorizontalFlip(p=1.0)])
    sheet = contact_sheet(loader, raw, cell=28)
    loader.close()
    for number, index in enumerate(permutation(1000, 1, 0)[:8]):
        stored, delivered = cells(sheet, number, 28)
        assert np.array_equal(stored, raw_images[index])
        assert np.array_equal(delivered, raw_images[index][:, ::-1])


def test_another_epoch_is_another_sheet(raw):
    loader = loader_of(raw, [])
    one, two = (np.asarray(contact_sheet(loader, raw, step, cell=28)) for step in (0, loader.steps_per_epoch))
    loader.close()
    assert not np.array_equal(one, two)


def test_denormalised_undoes_the_normalisation():
    pixels = torch.arange(256).repeat(3).view(1, 3, 16, 16)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    images = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert np.array_equal(denormalised(images, mean, std), pixels.permute(0, 2, 3, 1).numpy())


def test_the_command_writes_a_png(tiny_recipe, tmp_path):
    out = tmp_path / "sheet.png"
    result = CliRunner().invoke(app, ["browse", str(tiny_recipe), "-o", str(out), "-n", "5", "data.resolution=20"])
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith(f"{out}: 5 images of ")
    assert Image.open(out).size == (4 * (2 * 160 + 16) + 8, 2 * (160 + 22) + 8)


def test_the_sheet_follows_a_resolution_schedule(tiny_recipe, tmp_path):
    def sheet(epoch, resolution):
        out = tmp_path / "sheet.png"
        arguments = ["browse", str(tiny_recipe), "-o", str(out), "-n", "4", "--epoch", str(epoch)]
        result = CliRunner().invoke(app, [*arguments, f"data.resolution={resolution}"])
        assert result.exit_code == 0, result.exception
        return out.read_bytes()

    schedule = "{start: 12, end: 16, ramp: [0, 1], multiple_of: 2}"
    assert [sheet(epoch, schedule) for epoch in (0, 1)] == [sheet(0, 12), sheet(1, 16)]


def test_a_folder_that_is_not_there_is_told_at_once(tiny_recipe, tmp_path):
    result = CliRunner().invoke(app, ["browse", str(tiny_recipe), "-o", str(tmp_path / "none" / "a.png")])
    assert str(result.exception) == f"{tmp_path / 'none'}: no such folder: make it first"


@pytest.mark.parametrize("label", ["dog", "a very long name of a class, with all of its synonyms, one after another"])
def test_long_labels_stay_in_their_column(raw, monkeypatch, label):
    monkeypatch.setattr(raw, "class_names", [label] * 10)
    loader = loader_of(raw, [])
    sheet = np.asarray(contact_sheet(loader, raw, cell=40))
    loader.close()
    assert (sheet[:, :8] == 255).all()
    assert (sheet[48:62, 8:96] < 255).any()
    assert (sheet[48:62, 96:104] == 255).all()
