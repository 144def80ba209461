import re

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.augmenting.color_jitter import ColorJitter
from distcls.data.augmenting.mix import CutMix, Mixup
from distcls.data.inspecting.browse import Pair, Row, denormalised, label_texts, rows_of, title_of
from distcls.data.inspecting.contact_sheet import page, picture
from distcls.data.loader import TrainLoader
from distcls.data.sampling.order import permutation


def rows(dataset, transforms, mixes=(), epoch=0, images=8):
    def loader(some, those):
        shape = {"resolution": 28, "global_batch_size": 8, "seed": 1, "workers": 1, "device": "cpu"}
        return TrainLoader(dataset, transforms=some, mixes=those, **shape)

    titles = [type(one).__name__ for one in (*transforms, *mixes)]
    return rows_of(loader, transforms, mixes, titles, epoch=epoch, images=images)


def test_a_row_for_all_and_one_for_each(raw, raw_images):
    every, crop, flip, jitter, cutmix = rows(
        raw, [RandomResizedCrop(), RandomHorizontalFlip(p=1.0), ColorJitter(brightness=0.4)], [CutMix(p=0.001)]
    )
    assert [row.title for row in (every, crop, flip, jitter, cutmix)] == [
        "as trained on", "RandomResizedCrop", "RandomHorizontalFlip", "ColorJitter", "CutMix"
    ]  # fmt: skip
    assert [len(row.pairs) for row in (every, crop, flip, jitter, cutmix)] == [8, 4, 4, 4, 4]
    order = permutation(1000, 1, 0)
    for row in (every, crop, flip, jitter, cutmix):
        for pair, index in zip(row.pairs, order, strict=False):
            assert np.array_equal(pair.stored, raw_images[index])
    for pair, index in zip(flip.pairs, order, strict=False):
        assert np.array_equal(pair.delivered, raw_images[index][:, ::-1])
        assert pair.label == f"class {index % 10}"
    # The crop is the same with and without the others, though mirrored.
    for alone, together in zip(crop.pairs, rows(raw, [RandomResizedCrop()])[0].pairs, strict=False):
        assert np.array_equal(alone.delivered, together.delivered)
    pixels = np.stack([pair.delivered for pair in cutmix.pairs]).reshape(4, -1, 3)
    for number, index in enumerate(order[:4]):
        partner = raw_images[order[number ^ 1]].reshape(-1, 3)
        own = (pixels[number] == raw_images[index].reshape(-1, 3)).all(1)
        assert (own | (pixels[number] == partner).all(1)).all()


def test_another_epoch_is_another_sheet(raw):
    one, two = (rows(raw, [], epoch=epoch)[0] for epoch in (0, 1))
    assert not np.array_equal(one.pairs[0].stored, two.pairs[0].stored)


def test_denormalised_undoes_the_normalisation():
    pixels = torch.arange(256).repeat(3).view(1, 3, 16, 16)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    images = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert np.array_equal(denormalised(images, mean, std), pixels.permute(0, 2, 3, 1).numpy())


def test_labels_of_every_kind(mixed):
    assert label_texts(mixed, np.array([2, 0])) == ["class 2", "class 0"]
    weights = np.array([[1, 0, 1], [0, 0, 0], [0.25, 0.75, 0]])
    assert label_texts(mixed, weights) == ["class 0, class 2", "no class", "class 1 75%, class 0 25%"]


def test_a_mixed_label_has_its_shares(raw):
    labels = [pair.label for pair in rows(raw, [], [Mixup()])[0].pairs]
    assert all(re.fullmatch(r"class \d( \d+%, class \d \d+%)?", label) for label in labels)
    assert any("%" in label for label in labels)


def test_the_picture_has_each_pixel_in_its_place():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 28, 28, 3), np.uint8)
    one = Row("one", [Pair(images[0, n], images[1, n], "label") for n in range(3)])
    sheet = np.asarray(picture([one, Row("two", one.pairs[:1])], cell=28))
    assert sheet.shape == (8 + 2 * (14 + 8 + 28 + 14 + 8), 3 * (2 * 28 + 16) + 8, 3)
    for top, left, pair in ((30, 8, one.pairs[0]), (30, 8 + 72 * 2, one.pairs[2]), (102, 8, one.pairs[0])):
        assert np.array_equal(sheet[top : top + 28, left : left + 28], pair.stored)
        assert np.array_equal(sheet[top : top + 28, left + 28 : left + 56], pair.delivered)


def test_long_labels_stay_in_their_column():
    pair = Pair(*np.zeros((2, 28, 28, 3), np.uint8), "a very long name of a class, with all of its synonyms")
    sheet = np.asarray(picture([Row("row", [pair] * 4)], cell=40))
    below = sheet[8 + 22 + 40 : 8 + 22 + 40 + 14]
    assert (below[:, :8] == 255).all()
    assert (below[:, 8:96] < 255).any()
    assert (below[:, 96:104] == 255).all()


def test_the_page_is_one_file():
    pair = Pair(*np.zeros((2, 9, 9, 3), np.uint8), "<cat & dog>")
    text = page([Row("Mixup alpha=0.8", [pair] * 2)], "sheet")
    assert text.count("data:image/png;base64,") == 4
    assert "&lt;cat &amp; dog&gt;" in text
    assert "<h2>Mixup alpha=0.8</h2>" in text
    assert not re.findall(r"(src|href)=\"(?!data:)", text)


def test_a_title():
    assert title_of({"type": "RandomCrop", "padding": 4}) == "RandomCrop padding=4"


def browse(recipe, out, *overrides):
    return CliRunner().invoke(app, ["browse", str(recipe), "-o", str(out), "-n", "5", *overrides])


@pytest.mark.parametrize("sampler", ["shuffle", "repeated", "balanced", "block_shuffle"])
def test_the_command_writes_a_png(tiny_recipe, tmp_path, sampler):
    out = tmp_path / "sheet.png"
    result = browse(tiny_recipe, out, "data.resolution=20", f"data.sampler={sampler}")
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith(f"{out}: 5 images of ")
    assert Image.open(out).size == (4 * (2 * 160 + 16) + 8, 3 * 22 + (2 + 1 + 1) * 182 + 8)


def test_the_command_writes_a_page(tiny_recipe, tmp_path):
    out = tmp_path / "sheet.html"
    assert browse(tiny_recipe, out, "data.mix=[{type: Mixup}]").exit_code == 0
    assert re.findall("<h2>(.*)</h2>", out.read_text()) == [
        "as trained on", "RandomResizedCrop scale=[0.7, 1.0]", "RandomHorizontalFlip", "Mixup"
    ]  # fmt: skip


def test_the_sheet_is_resized_as_the_recipe_says(tiny_recipe, tmp_path):
    def sheet(interpolation):
        out = tmp_path / "sheet.png"
        assert browse(tiny_recipe, out, f"data.interpolation={interpolation}").exit_code == 0
        return out.read_bytes()

    assert sheet("ffcv_area") != sheet("bilinear")


def test_the_sheet_follows_a_resolution_schedule(tiny_recipe, tmp_path):
    def sheet(epoch, resolution):
        out = tmp_path / "sheet.png"
        assert browse(tiny_recipe, out, "--epoch", str(epoch), f"data.resolution={resolution}").exit_code == 0
        return out.read_bytes()

    schedule = "{start: 12, end: 16, ramp: [0, 1], multiple_of: 2}"
    assert [sheet(epoch, schedule) for epoch in (0, 1)] == [sheet(0, 12), sheet(1, 16)]


def test_a_name_that_is_no_picture_is_told_at_once(tiny_recipe, tmp_path):
    assert str(browse(tiny_recipe, tmp_path / "a.gif").exception) == (
        f"{tmp_path / 'a.gif'}: expected a name that ends in .png or .html"
    )
