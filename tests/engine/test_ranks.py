import pytest

from distcls.engine.ranks.preflight import preflight
from distcls.engine.ranks.topology import _first_host, launched_ranks
from distcls.errors import UserError


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("gpu7", "gpu7"),
        ("gpu[003-007,9]", "gpu003"),
        ("gpu[12,15],cpu1", "gpu12"),
        ("a1,b[2-3]", "a1"),
        ("rack-2-node[1-4]", "rack-2-node1"),
    ],
)
def test_first_host_of_a_slurm_nodelist(nodelist, host):
    assert _first_host(nodelist) == host


def test_one_process_without_a_launcher():
    assert launched_ranks({}) == (0, 1, 0, 1)


def test_ranks_of_torchrun():
    assert launched_ranks({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}) == (5, 8, 1, 4)


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
