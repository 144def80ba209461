"""`distcls plan`: known counts, the formulas, and the estimate of activations against what autograd saves."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from distcls.cli.main import app
from distcls.engine.building.model import build_model
from distcls.engine.checks.plugins import import_parts
from distcls.engine.plan.activations import estimate_activations, saved_bytes
from distcls.engine.plan.memory import GIB, OVERHEAD, Sizes, need
from distcls.engine.plan.plan import make_plan, optimizer_elements
from distcls.errors import UserError
from distcls.recipe.schema import check
from distcls.recipe.source import read

ROOT = Path(__file__).parents[3]
R50 = str(ROOT / "recipes/imagenet_r50.yaml")


def planned(recipe: Path | str, *overrides: str, gpus: int = 1, memory: float = 80.0):
    source = read(Path(recipe), overrides)
    import_parts(source)
    return make_plan(check(source), source, gpus=gpus, memory_gib=memory)


@pytest.mark.parametrize(
    ("backbone", "images"),
    [
        ("{type: ResNet_CIFAR, depth: 18, stem_channels: 4, base_channels: 4, out_indices: [3]}", 8),
        ("{type: VisionTransformer, arch: deit-tiny, img_size: 16, patch_size: 8, out_type: cls_token}", 5),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_what_autograd_saves_on_a_cpu(tiny_recipe, backbone, images, precision):
    neck = "model.neck=null" if "Vision" in backbone else "train.seed=3"
    head = "model.head.in_channels=192" if "Vision" in backbone else "train.seed=3"
    source = read(tiny_recipe, [f"model.backbone={backbone}", neck, head])
    import_parts(source)
    model, _ = build_model(check(source), source)
    estimate = estimate_activations(model, 16, 5, precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    few, many = (
        saved_bytes(model, (torch.randn(count, 3, 16, 16, dtype=dtype), torch.arange(count) % 5), precision)
        for count in (4, images)
    )
    assert estimate.per_image == (many - few) // (images - 4) > 10_000
    # The fixed part differs: fake BatchNorms save some vectors of one element per channel that real ones do not.
    assert estimate.of(images) == pytest.approx(many, rel=0.005)


def test_the_published_number_of_parameters():
    plan = planned(R50, gpus=8)
    assert plan.sizes.parameters == 25_557_032
    assert (plan.micro_batch, plan.lr, plan.advised) == (128, 0.4, "ddp")
    assert plan.missing[0].startswith("data.train.path: data/imagenet_train.beton: no such file; write it with ")


def test_memory_and_traffic_of_adamw_in_fp32_over_8_gpus():
    """Bytes per parameter: weights 4, gradients 4, two moments 8; ZeRO's own copy of its share of the weights 4."""
    sizes = Sizes(parameters=10**9, trained=10**9, optimizer=2, ema=False, buffers=0, gathered=10**7)
    held = {}
    for name in ("ddp", "zero1", "zero2", "zero3", "fsdp2"):
        one = need(name, sizes, gpus=8, accumulation=1, activations=0)
        assert one.total == one.weights + one.gradients + one.optimizer + OVERHEAD
        held[name] = (one.total - OVERHEAD, one.sent)
    assert held == {
        "ddp": (16e9, 7e9),
        "zero1": (9.5e9, 7e9),
        "zero2": (6e9, 7e9),
        "zero3": (2.54e9, 10.5e9),
        "fsdp2": (2.04e9, 10.5e9),
    }


def test_fsdp2_keeps_whole_gradients_while_it_accumulates():
    sizes = Sizes(parameters=800, trained=800, optimizer=0, ema=True, buffers=7, gathered=100)
    assert need("fsdp2", sizes, gpus=8, accumulation=1, activations=0).gradients == 400
    accumulating = need("fsdp2", sizes, gpus=8, accumulation=2, activations=0)
    assert (accumulating.gradients, accumulating.ema, accumulating.weights) == (3200, 400, 807)


def test_one_gpu_sends_nothing():
    sizes = Sizes(parameters=800, trained=800, optimizer=1, ema=False, buffers=0, gathered=100)
    assert {need(name, sizes, gpus=1, accumulation=1, activations=0).sent for name in ("ddp", "fsdp2")} == {0}


@pytest.mark.parametrize(
    ("block", "elements"),
    [
        ({"type": "SGD", "lr": 0.1}, 1),
        ({"type": "SGD", "lr": 0.1, "momentum": 0.0}, 0),
        ({"type": "AdamW", "lr": 0.1, "paramwise_cfg": {"norm_decay_mult": 0.0}}, 2),
        ({"type": "AdamW", "lr": 0.1, "amsgrad": True}, 3),
    ],
)
def test_state_of_the_recipes_optimizer(block, elements):
    import_parts()
    assert optimizer_elements(block) == elements


def test_what_fits_is_advised(tiny_recipe):
    assert planned(tiny_recipe, gpus=2).advice.startswith("ddp: 1.5 of 80 GiB")
    none = planned(tiny_recipe, gpus=2, memory=1.0)
    assert none.advised is None
    assert none.advice.startswith("none: ")
    assert "for a single image per GPU: more GPUs, or a smaller model" in none.advice


def test_a_model_too_large_for_ddp_is_sharded(monkeypatch):
    plan = planned(R50, "optimizer={type: AdamW, lr: 1.0e-3}", "data.resolution=64", gpus=8, memory=2.1)
    assert plan.needs[0].total > 2.1 * GIB
    assert plan.advised == "fsdp2"
    assert plan.advice.startswith("fsdp2: ddp would need 2.")


def test_steps_follow_from_the_data(tiny_recipe):
    plan = planned(tiny_recipe, gpus=2)
    assert (plan.images, plan.steps_per_epoch, plan.total_steps, plan.missing) == (320, 10, 30, [])


def test_mistakes_are_reported_as_recipe_check_does(tiny_recipe):
    with pytest.raises(UserError, match=r"command line: optimizer\.lr: wrong type"):
        planned(tiny_recipe, "optimizer.lr=fast")
    with pytest.raises(UserError, match="3 ranks x 1 accumulation steps do not divide it: got 32"):
        planned(tiny_recipe, gpus=3)


def test_the_command(tiny_recipe):
    said = CliRunner().invoke(app, ["plan", str(tiny_recipe), "--gpus", "2", "--nodes", "2"])
    assert said.exit_code == 0, said.output
    assert "tiny on 4 GPUs of 80 GiB\n" in said.output
    assert "batch          32 = 4 GPUs x 1 accumulation x 8 images\n" in said.output
    assert "advised: ddp: 1.5 of 80 GiB, and no strategy sends less\n" in said.output
    answer = CliRunner().invoke(app, ["plan", str(tiny_recipe), "--gpus", "2", "--json"])
    assert json.loads(answer.output)["needs"][0]["fits"] is True
