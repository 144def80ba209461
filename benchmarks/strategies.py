"""Trains with every strategy and precision on this machine's single device, with launch/train.py, and reports losses.

    python benchmarks/strategies.py [--cases "fsdp2 fp16" ...] [--steps 40]

A ResNet-18 on small synthetic JPEGs. Compare the losses with the first row's: seed and order of batches are the same.
Then `distcls verify-resume` compares killed and preempted runs with an undisturbed one. Rows are written to --out as
they are measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from made_up import MadeUp

from distcls.data.converting.convert import convert
from distcls.tracking.jsonl import read_rows

ROOT = Path(__file__).parents[1]
RECIPE = """\
model:
  backbone: {{type: ResNet, depth: 18, out_indices: [3]}}
  neck: {{type: GlobalAveragePooling}}
  head: {{type: LinearClsHead, num_classes: 10, loss: {{type: CrossEntropyLoss}}, topk: [1, 5]}}
data:
  train: {{path: {beton}}}
  val: {{path: {beton}}}
  resolution: 64
  augment: [{{type: RandomResizedCrop}}, {{type: RandomHorizontalFlip}}]
  workers: 2
optimizer: {{type: SGD, lr: 0.05, momentum: 0.9, weight_decay: 5.0e-5}}
schedule: {{type: CosineWarmup, warmup_steps: 2}}
train: {{max_steps: {steps}, global_batch_size: 32, log_every_steps: 10}}
eval: {{every_epochs: 100000}}
checkpoint: {{every_steps: 20}}
tracking: {{mode: disabled}}
"""
HALF, BF16, GRAPHS, COMPILE = (
    f"train.{key}" for key in ("precision=fp16", "precision=bf16", "cuda_graphs=true", "compile=true")
)
CASES: dict[str, list[str]] = {
    "ddp fp32": [],
    "ddp fp16": [HALF],
    "ddp fp16, graphs": [HALF, GRAPHS],
    "ddp bf16": [BF16],
    "ddp bf16, compile": [BF16, COMPILE],
    "ddp fp32, clip and average": ["train.clip_grad_norm=1.0", "train.ema.decay=0.9"],
    "ddp fp16, two parts": [HALF, "train.accumulation_steps=2"],
    "ddp fp16, activations again": [HALF, "distributed.activation_checkpointing=true"],
    "ddp fp32, SyncBatchNorm": ["distributed.sync_bn=true"],
    "ddp fp16, GPU decodes half": [HALF, "data.gpu_decode_share=0.5"],
    "ddp fp16, pixels and mixing": [HALF, "data.augment=[{type: RandAugment}]", "data.mix=[{type: CutMix}]"],
    "fsdp2 fp32": ["distributed.strategy=fsdp2"],
    "fsdp2 fp16": [HALF, "distributed.strategy=fsdp2"],
    "fsdp2 bf16, compile": [BF16, COMPILE, "distributed.strategy=fsdp2"],
    "zero1 bf16": [BF16, "distributed.strategy=zero1"],
    "zero2 bf16": [BF16, "distributed.strategy=zero2"],
    "zero3 bf16": [BF16, "distributed.strategy=zero3"],
}
RESUMES = {"resume, fp32": [], "resume, fp16 by graphs": [HALF, GRAPHS], "resume, bf16": [BF16]}
ON_A_CPU = ["ddp fp32", "ddp fp32, clip and average", "fsdp2 fp32"]
COMMAND = "from distcls.cli.main import main; main()"


def run(command: list, limit: float) -> tuple[int, str]:
    """Run a command. Returns its status, -9 if it took longer than `limit` seconds, and its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    try:
        done = subprocess.run(
            [sys.executable, *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit,
            env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return -9, str(error)
    return done.returncode, done.stdout


def trained(folder: Path, recipe: Path, name: str, overrides: list[str], limit: float) -> dict:
    out, began = folder / name.replace(" ", "_").replace(",", ""), time.perf_counter()
    status, said = run([ROOT / "launch/train.py", recipe, f"output_dir={out}", *overrides], limit)
    row: dict = {"status": status, "seconds": time.perf_counter() - began}
    if status:
        return {**row, "said": said[-3000:]}
    rows = read_rows(out)
    losses = [one["train/loss"] for one in rows if "train/loss" in one]
    return {
        **row,
        "loss": losses[-1],
        "losses": losses,
        "val_loss": [one["val/loss"] for one in rows if "val/loss" in one][-1],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", nargs="+", choices=[*CASES, *RESUMES])
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--limit", type=float, default=120, help="seconds of a run")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "strategies.json")
    options = arguments.parse_args()
    on_gpu = torch.cuda.is_available()
    cases = options.cases or ([*CASES, *RESUMES] if on_gpu else ON_A_CPU)
    device = torch.cuda.get_device_name() if on_gpu else "cpu"
    rows: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert(MadeUp(320, 80, 96, small=False), folder / "train.beton", write_mode="jpg")
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(beton=folder / "train.beton", steps=options.steps))
        for case in cases:
            if case.startswith("zero") and find_spec("deepspeed") is None:
                rows[case] = {"status": None, "said": "DeepSpeed is not installed"}
            elif case in RESUMES:
                verify = ["-c", COMMAND, "verify-resume", recipe, "--ranks", "1", "--kills", "2", "--steps", "24"]
                status, said = run([*verify, "--seed", "1", *RESUMES[case]], 2 * options.limit)
                rows[case] = {"status": status, "said": said[-3000:]}
            else:
                rows[case] = trained(folder, recipe, case, CASES[case], options.limit)
            shown = {key: value for key, value in rows[case].items() if key not in ("losses", "said")}
            print(
                f"{case:32} {shown}", rows[case]["said"] if rows[case]["status"] or case in RESUMES else "", flush=True
            )
            found = {"machine": {"device": device, "torch": torch.__version__}, "steps": options.steps, "rows": rows}
            options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
