"""What a command imports before it answers: torch takes two seconds, its compiler one more, and a run imports no more than it uses."""

import sys
from pathlib import Path

import pytest

from tests.engine.launching import finish, start

COMMAND = "from distcls.cli.main import main"
TRAIN = "from distcls.engine.run import main as train\ndef main(): sys.exit(train(sys.argv[1:]))"
SAY = """
import sys
{main}
try:
    main()
finally:
    print("imported:", *sys.modules)
"""
TORCH = ["torch", "numpy", "accelerate", "llvmlite"]
FOR_OTHERS = [
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.tensor",
    "sympy",
    "numba",
    "triton",
    "torchvision",
    "timm",
]
FOR_OTHERS += ["torchmetrics", "transformers", "deepspeed", "wandb", "pandas", "scipy", "matplotlib", "torch.onnx"]


def imported(main: str, *arguments: str | Path) -> set[str]:
    """The modules that a process without a GPU, which would need Triton, has imported when it is done."""
    code = [sys.executable, "-c", SAY.format(main=main)]
    status, output = finish(start(code, *arguments, environment={"CUDA_VISIBLE_DEVICES": ""}))
    assert status == 0, output
    return set(output.rpartition("imported:")[2].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["recipe", "check", "--help"], ["slurm", "--help"], ["models", "resnet50"]]
)
def test_a_command_that_computes_nothing_imports_no_torch(arguments):
    assert imported(COMMAND, *arguments).isdisjoint([*TORCH, *FOR_OTHERS])


def test_checking_a_recipe_imports_the_parts_that_it_can_name_and_torch(tiny_recipe):
    assert imported(COMMAND, "recipe", "check", tiny_recipe).isdisjoint(["accelerate", *FOR_OTHERS])


def test_a_run_on_one_cpu_imports_neither_a_compiler_nor_what_only_others_need(tiny_recipe, tmp_path):
    modules = imported(TRAIN, tiny_recipe, "train.epochs=1", "train.clip_grad_norm=1.0", "train.ema={decay: 0.9}")
    assert modules.isdisjoint(set(FOR_OTHERS) - {"numba"})  # which compiles the decoding, once on each machine
    assert "accelerate" in modules

    # The report is drawn without torch, from what that run has left.
    assert imported(COMMAND, "report", tmp_path / "run").isdisjoint([*TORCH, *FOR_OTHERS])
