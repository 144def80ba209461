"""`distcls slurm`: what it writes, what it refuses, what it submits. tests/slurm runs its scripts on a cluster."""

import os
import sys
from pathlib import Path

import pytest

from distcls.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(tmp_path: Path, monkeypatch, capsys):
    """Runs `distcls slurm` in a folder with a recipe; sbatch is a program that says what it was given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "recipe.yaml").write_text(
        "output_dir: runs/tiny\n"
        "model:\n"
        "  backbone: {type: ResNet_CIFAR, depth: 18, out_indices: [3]}\n"
        "  neck: {type: GlobalAveragePooling}\n"
        "  head: {type: LinearClsHead, num_classes: 5, loss: {type: CrossEntropyLoss}}\n"
        "data: {train: {path: a.beton}, val: {path: b.beton}, resolution: 32}\n"
        "optimizer: {type: SGD, lr: 0.1}\n"
        "schedule: {type: CosineWarmup}\n"
        "train: {epochs: 1, global_batch_size: 64}\n"
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text('#!/bin/sh\necho "Submitted batch job 42"\nexit "${SBATCH_FAILS:-0}"\n')
    (tmp_path / "bin/sbatch").chmod(0o755)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["distcls", "slurm", "recipe.yaml", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, *capsys.readouterr()

    return run


def test_everything_is_filled_in(command, tmp_path):
    options = "--nodes 4 --gpus 8 --time 8:00:00 --partition gpu --account lab --qos high --mem 400G --cpus 12"
    code, output, error = command(
        *options.split(), "--signal-before", "300", "--sbatch=--exclusive", "optimizer.lr=0.2"
    )
    assert (code, error) == (0, "")
    text = (tmp_path / "runs/tiny/slurm.sbatch").read_text()
    assert output == f"{text}\nWritten to runs/tiny/slurm.sbatch. Submit it: sbatch runs/tiny/slurm.sbatch\n"
    assert [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")] == [
        "--job-name=recipe",
        "--nodes=4",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--cpus-per-task=12",
        "--mem=400G",
        "--time=8:00:00",
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        f"--chdir={tmp_path}",
        "--output=runs/tiny/slurm-%j.out",
        "--signal=B:USR2@300",
        "--open-mode=append",
        "--requeue",
        "--exclusive",
    ]
    assert f"\npython={sys.executable}\ntrain={ROOT}/launch/train.py\n" in text
    assert "\nset -- recipe.yaml optimizer.lr=0.2\n" in text


def test_one_launcher_per_node(command):
    _, output, _ = command("--gpus", "4", "--cpus", "6", "--style", "accelerate")
    for part in ("--ntasks-per-node=1\n", "--gpus-per-node=4\n", "--cpus-per-task=24\n", "slurm.accelerate_launch"):
        assert part in output


def test_an_array_gives_each_task_a_folder(command, tmp_path):
    _, output, _ = command("--array", "0-3", "train.seed=%a")
    assert "#SBATCH --array=0-3\n" in output
    assert "#SBATCH --output=runs/tiny/slurm-%A_%a.out\n" in output
    assert "\nset -- recipe.yaml train.seed=%a output_dir=runs/tiny/task_%a\n" in output
    _, output, _ = command("--array", "0-3", "train.seed=%a", "output_dir=sweep/seed_%a")
    assert "\nset -- recipe.yaml train.seed=%a output_dir=sweep/seed_%a\n" in output
    assert (tmp_path / "sweep/slurm.sbatch").exists()
    command("--array", "0-3", "output_dir=deep/%a/run")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["slurm.sbatch"]


def test_containers(command, tmp_path):
    _, output, _ = command("--container", "distcls.sif")
    inside = f"(apptainer exec --nv --bind {tmp_path} --pwd {tmp_path} distcls.sif)"
    assert f"\npython=python3\ntrain={ROOT}/launch/train.py\nin_step={inside}\nin_batch={inside}\n" in output
    _, output, _ = command("--container", "lab/distcls:1")
    image = f"--container-image=lab/distcls:1 --container-mounts={tmp_path}:{tmp_path} --container-workdir={tmp_path}"
    assert f"\nin_step=({image})\nin_batch=(srun --overlap --nodes=1 --ntasks=1 {image})\n" in output


def test_all_mistakes_of_the_recipe_come_first(command, tmp_path):
    code, output, error = command("optimizer.lr=fast", "train.epochs=0", "--submit")
    assert (code, output) == (1, "")
    assert error.splitlines()[0] == "error: 2 mistakes in recipe.yaml"
    assert not (tmp_path / "runs").exists()


def test_a_batch_that_so_many_gpus_do_not_divide(command):
    assert command("--nodes", "3")[2] == (
        "error: 1 mistake in recipe.yaml\n"
        "recipe.yaml:9:20: train.global_batch_size: 24 ranks x 1 accumulation steps do not divide it: got 64, "
        "expected a multiple of 24\n"
    )


def test_options_that_make_no_sense(command):
    assert command("--style", "mpi")[2] == "error: --style: got mpi, expected srun or accelerate\n"
    for array in ("all", "3x", "", "1,,2"):
        text = f"error: --array: got {array!r}, expected task numbers such as 0-3 or 1,5,9\n"
        assert command("--array", array)[2] == text
    for array in ("7", "0-3", "1,5,9", "0-15:4%2"):
        assert command("--array", array)[0] == 0
    assert command("--time", "tomorrow")[2] == "error: --time: got tomorrow, expected minutes, H:MM:SS or D-H:MM:SS\n"
    assert command("--time", "2")[2] == (
        "error: --signal-before 120: every start would save and queue again at once, expected fewer seconds than "
        "--time 2 has\n"
    )


def test_submitting(command, monkeypatch):
    code, output, _ = command("--submit")
    assert code == 0
    assert output.splitlines()[-1] == "Submitted batch job 42: runs/tiny/slurm.sbatch, log runs/tiny/slurm-*.out"
    monkeypatch.setenv("SBATCH_FAILS", "1")
    code, _, error = command("--submit")
    assert (code, error) == (1, "error: sbatch refused runs/tiny/slurm.sbatch: Submitted batch job 42\n")
