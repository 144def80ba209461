"""Files in the place of a .beton or its sidecar that are none: one error in a line, for each command."""

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.errors import DataError

NOT_A_NUMBER = float("nan")


def refusal(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, DataError), result.exception
    return str(result.exception)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_counts": [60]}, "the whole: Value error, got 1 class_counts for 3 class_names. "),
        ({"class_counts": [-1, 1, 60]}, "class_counts.0: Input should be greater than or equal to 0. "),
        ({"class_names": [], "class_counts": []}, "class_names: List should have at least 1 item"),
        ({"mean": [0.1, 0.2]}, "mean: List should have at least 3 items"),
        ({"mean": [0.1, NOT_A_NUMBER, 0.2]}, "mean.1: Input should be a finite number. "),
        ({"std": [0.1, 0, 0.2]}, "std.1: Input should be greater than 0. "),
        ({"sizes": {"height": [], "width": [1]}}, "sizes.height: List should have at least 3 items"),
    ],
)
def test_an_edited_sidecar(jpeg_copy, change, message):
    sidecar = jpeg_copy.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | change))
    assert refusal("info", jpeg_copy).startswith(f"{sidecar}: not the sidecar of {jpeg_copy}: {message}")
    result = CliRunner().invoke(app, ["check", str(jpeg_copy)])
    assert result.exit_code == 1
    assert f"  FAULT  {sidecar}: not the sidecar of {jpeg_copy}: {message}" in result.stdout


@pytest.mark.parametrize("text", ["[" * 200_000, '{"samples": ' + "9" * 5000 + "}", '{"class_names": ["\\ud800"]}'])
def test_a_sidecar_that_no_program_writes(jpeg_copy, text):
    jpeg_copy.with_suffix(".json").write_text(text)
    assert refusal("info", jpeg_copy).startswith(f"{jpeg_copy.with_suffix('.json')}: not JSON (")


@pytest.mark.parametrize("place", ["beton", "sidecar", "names"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(jpeg_copy, tmp_path, place, kind):
    path = {"beton": jpeg_copy, "sidecar": jpeg_copy.with_suffix(".json"), "names": tmp_path / "names.txt"}[place]
    path.unlink(missing_ok=True)
    if place == "names":
        jpeg_copy.with_suffix(".json").unlink()
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: os.symlink("/dev/zero", path)}[kind](path)
    command = ("describe", jpeg_copy, "--class-names", path) if place == "names" else ("info", jpeg_copy)
    assert refusal(*command).startswith(f"{path}: not a regular file")


def test_a_sidecar_of_little_information(jpeg_copy):
    sidecar = jpeg_copy.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"source": {}, "write": {}, "versions": {}}))
    assert "from         None (None)" in CliRunner().invoke(app, ["info", str(jpeg_copy)]).stdout


@pytest.mark.parametrize("command", ["check", "info"])
@pytest.mark.parametrize("seed", range(2))
def test_any_damage_of_the_sidecar(jpeg_copy, command, seed):
    """Random bytes at random places: it opens, or is refused."""
    generator, sidecar = np.random.default_rng(seed), jpeg_copy.with_suffix(".json")
    whole = sidecar.read_bytes()
    for _ in range(20):
        data = np.frombuffer(whole, np.uint8).copy()
        data[generator.integers(0, len(data), 3)] = generator.integers(0, 256, 3)
        sidecar.write_bytes(data[: generator.integers(0, 2 * len(data))].tobytes())
        result = CliRunner().invoke(app, [command, str(jpeg_copy)])
        assert result.exception is None or isinstance(result.exception, DataError | SystemExit), result.exception
