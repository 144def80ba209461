"""What cannot work is said at its place in the recipe, all at once, before a process group or a GPU is touched."""

import pytest

from distcls.engine.checks import fit_ranks
from distcls.engine.checks.fit_ranks import check_ranks
from distcls.engine.checks.plugins import import_parts
from distcls.recipe.errors import RecipeError
from distcls.recipe.schema import check
from distcls.recipe.source import read
from distcls.registry import OPTIMIZERS


def mistakes(recipe, *overrides, ranks=2, gpu=False):
    source = read(recipe, overrides)
    import_parts(source)
    try:
        check_ranks(check(source), source, ranks, gpu=gpu)
    except RecipeError as error:
        return str(error).splitlines()[1:]
    return []


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_every_strategy_fits(strategy, tiny_recipe):
    assert mistakes(tiny_recipe, f"distributed.strategy={strategy}", "train.precision=bf16") == []


def test_what_is_for_gpus_only_fits_on_gpus(tiny_recipe):
    assert mistakes(tiny_recipe, "train.precision=fp16", "distributed.sync_bn=true", gpu=True) == []
    assert mistakes(tiny_recipe, "train.precision=fp16", "distributed.strategy=zero1", gpu=True) == [
        "command line: train.precision: zero1 computes in fp32 or bf16: got fp16; "
        "set one of them, or the strategy ddp or fsdp2"
    ]


def test_a_place_in_the_file(tiny_recipe):
    text = (
        tiny_recipe.read_text() + "distributed:\n  strategy: zero2\n  deepspeed_overrides: {gradient_clipping: 1.0}\n"
    )
    tiny_recipe.write_text(text)
    line = len(text.splitlines())
    assert mistakes(tiny_recipe) == [
        f"{tiny_recipe}:{line}:3: distributed.deepspeed_overrides: "
        "gradient_clipping follows from the recipe: set train.clip_grad_norm instead"
    ]


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["distributed.strategy=fsdp2", "distributed.deepspeed_overrides={zero_optimization: {overlap_comm: true}}"],
            "distributed.deepspeed_overrides: for zero1, zero2 and zero3 only: got the strategy fsdp2",
        ),
        (
            ["distributed.strategy=zero3", "distributed.deepspeed_overrides={zero_optimization: {stage: 2}}"],
            "distributed.deepspeed_overrides: zero_optimization.stage follows from the recipe: set distributed.strategy instead",
        ),
        (
            ["distributed.strategy=zero3", "distributed.deepspeed_overrides={zero_optimization: {offload_param: {}}}"],
            "distributed.deepspeed_overrides: zero_optimization.offload_param is not supported: "
            "checkpoints do not reach what is offloaded",
        ),
        (
            ["distributed.strategy=fsdp2", "train.cuda_graphs=true"],
            "train.cuda_graphs: needs weights that stay where they are: got fsdp2, expected false, or ddp",
        ),
        (
            ["distributed.sync_bn=true"],
            "distributed.sync_bn: torch has SyncBatchNorm for GPUs only: expected false on CPUs",
        ),
        (["train.precision=fp16"], "train.precision: fp16 is for GPUs only: expected fp32 or bf16 on CPUs"),
    ],
)
def test_what_does_not_go_together(overrides, text, tiny_recipe):
    assert mistakes(tiny_recipe, *overrides) == [f"command line: {text}"]


def test_an_optimizer_that_looks_at_whole_parameters(tiny_recipe, monkeypatch):
    monkeypatch.setattr(OPTIMIZERS["SGD"], "elementwise", False)
    assert mistakes(tiny_recipe, "distributed.strategy=ddp") == []
    [line] = mistakes(tiny_recipe, "distributed.strategy=zero3")
    assert line.endswith(
        "optimizer.type: zero3 cuts parameters into shards, and SGD does not say that it updates each element alone: "
        "set elementwise = True in its class if it does, or the strategy ddp"
    )


def test_without_deepspeed(tiny_recipe, monkeypatch):
    monkeypatch.setattr(fit_ranks, "find_spec", lambda name: None)
    assert mistakes(tiny_recipe, "distributed.strategy=zero1") == [
        "command line: distributed.strategy: zero1 needs DeepSpeed, which is not installed: pip install deepspeed"
    ]
    assert mistakes(tiny_recipe, "distributed.strategy=fsdp2") == []
