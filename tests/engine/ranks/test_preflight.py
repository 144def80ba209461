import pytest

from distcls.engine.ranks.preflight import preflight
from distcls.errors import UserError


def test_the_launchers_defaults_contradict_nothing():
    preflight(
        precision="bf16",
        strategy="ddp",
        environment={
            "ACCELERATE_MIXED_PRECISION": "no",
            "ACCELERATE_DYNAMO_BACKEND": "NO",
            "ACCELERATE_USE_CPU": "False",
        },
    )


def test_what_a_deepspeed_configuration_leaves_open_is_a_contradiction_too():
    auto = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto", "ACCELERATE_GRADIENT_CLIPPING": "auto"}
    with pytest.raises(UserError, match="the launcher sets ACCELERATE_GRADIENT_CLIPPING: use"):
        preflight(precision="fp32", strategy="ddp", environment=auto)


def test_every_contradiction_is_named(tmp_path):
    config = tmp_path / "accelerate/default_config.yaml"
    config.parent.mkdir()
    config.write_text("distributed_type: DEEPSPEED\n")
    with pytest.raises(UserError) as caught:
        preflight(
            precision="fp32",
            strategy="ddp",
            environment={
                "ACCELERATE_MIXED_PRECISION": "bf16",
                "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
                "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
                "ACCELERATE_GRADIENT_CLIPPING": "1.0",
                "ACCELERATE_USE_DEEPSPEED": "true",
                "HF_HOME": str(tmp_path),
            },
        )
    assert str(caught.value).splitlines() == [
        "the launcher contradicts the recipe:",
        "  train.precision is 'fp32', but the launcher says ACCELERATE_MIXED_PRECISION=bf16: "
        "start it without --mixed_precision, or set train.precision=bf16",
        "  the launcher asks for torch.compile (ACCELERATE_DYNAMO_BACKEND): start it without --dynamo_backend",
        "  the launcher sets ACCELERATE_GRADIENT_ACCUMULATION_STEPS: use train.accumulation_steps in the recipe instead",
        "  the launcher sets ACCELERATE_GRADIENT_CLIPPING: use train.clip_grad_norm in the recipe instead",
        "  distributed.strategy is 'ddp', which the recipe's run starts by itself, but the launcher says "
        "ACCELERATE_USE_DEEPSPEED=true: start it without --use_deepspeed "
        f"(and without distributed_type in {config}: pass --multi_gpu)",
    ]
