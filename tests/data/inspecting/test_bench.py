import re

import pytest
from typer.testing import CliRunner

from distcls.cli.bench import app
from distcls.data.inspecting.bench import Costs, Rate, measure


def test_a_rate_counts_from_the_fourth_batch(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("distcls.data.inspecting.bench.time.perf_counter", lambda: now[0])

    def batches():
        for _ in range(3):
            now[0] += 8
            yield 1000
        while True:
            now[0] += 0.125
            yield 5

    clock = iter([1.0, 3.0])
    assert measure(batches(), 2, lambda: next(clock)) == Rate(images_per_second=40, cpu_seconds=2 / 80)


@pytest.mark.parametrize(
    ("rate", "resident", "text"),
    [
        (Rate(1000, 0.0019), 1.0, "the CPU: 1.9 cores busy for 2 workers; decode is 60% of an image's work"),
        (
            Rate(1000, 0.0006),
            1.0,
            "neither disk nor decoding: only 0.6 cores were busy for 2 workers: a shared machine?",
        ),
        (Rate(1000, 0.0005), 0.25, "the disk: 95 MiB/s, 25% of the file is in the page cache"),
    ],
)
def test_what_bounds_it(rate, resident, text):
    costs = Costs(read=1e-5, decode=6e-4, resize=3e-4, copy=1e-4, stored_bytes=1e5, resident=resident)
    assert costs.bound(rate, 2) == text


def test_the_command_prints_a_table(tiny_recipe):
    result = CliRunner().invoke(app, ["data", str(tiny_recipe), "--seconds", "0.2", "--only-ours"])
    assert result.exit_code == 0, result.exception
    assert re.search(r"320 images of .*train\.beton at 16 pixels, batches of 32, 1 workers", result.stdout)
    assert re.search(r"distcls, as the recipe augments +\d+ +\d+\.\d{3}\n", result.stdout)
    assert re.search(r"bound by (the|neither) ", result.stdout)


def test_torchs_loader_is_measured(raw):
    from distcls.data.inspecting.bench import torch_loader

    rate = torch_loader(raw, 16, "bilinear", 400, 1, 0.5)
    assert rate.images_per_second > 0
    assert rate.cpu_seconds > 0
