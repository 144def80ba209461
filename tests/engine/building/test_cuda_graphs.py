from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

import distcls
from distcls.engine.attempt.preparing import prepare
from distcls.engine.building.cuda_graphs import capture_backbone
from distcls.engine.strategies.accelerator import make_accelerator
from distcls.errors import UserError
from distcls.models.freezing import freeze

BLOCK = {
    "backbone": {"type": "ResNet", "depth": 18, "drop_path_rate": 0.3},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {"type": "LinearClsHead", "num_classes": 10, "loss": {"type": "CrossEntropyLoss"}},
}


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("train.compile=true", "got true beside train.compile, expected one of them"),
        ("train.accumulation_steps=2", "needs one micro-batch a step: got 2 accumulation steps, expected 1"),
        ("data.resolution={start: 16, end: 28, ramp: [0, 1]}", "needs images of one size: got a resolution schedule"),
        ("distributed.activation_checkpointing=true", "keeps activations in fixed memory"),
        ("distributed.strategy=fsdp2", "needs weights that stay where they are: got fsdp2, expected false, or ddp"),
    ],
)
def test_what_does_not_go_with_graphs_is_refused_at_its_key(override, text, tiny_recipe):
    with pytest.raises(UserError) as refused:
        prepare(tiny_recipe, ["train.cuda_graphs=true", override], 1)
    assert f"command line: train.cuda_graphs: {text}" in str(refused.value)


@pytest.fixture
def captured(monkeypatch):
    """What stands still in the backbones that are captured; nothing is."""
    found = []
    monkeypatch.setattr(
        torch.cuda,
        "make_graphed_callables",
        lambda backbone, images: found.append([name for name, one in backbone.named_modules() if not one.training]),
    )
    return found


def test_what_is_frozen_is_captured_as_it_stands(captured):
    """A graph replays BatchNorm as it was then: in training mode it would go on averaging."""
    accelerator = SimpleNamespace(device=torch.device("cpu"), autocast=nullcontext)
    model = distcls.build_model(BLOCK, image_size=(64, 64))
    freeze(model, ["backbone.bn1"])
    capture_backbone(model.backbone, 2, 64, torch.float32, accelerator)
    assert captured == [["bn1"]]
    freeze(model, ["backbone"])
    capture_backbone(model.backbone, 2, 64, torch.float32, accelerator)
    assert len(captured) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_by_graphs_is_the_step_without_them():
    accelerator = make_accelerator(precision="fp16", timeout=timedelta(minutes=1))
    found = []
    for graphs in (False, True):
        torch.manual_seed(0)
        model = distcls.build_model(BLOCK, image_size=(64, 64)).to("cuda", memory_format=torch.channels_last).train()
        if graphs:
            capture_backbone(model.backbone, 16, 64, torch.float16, accelerator)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(4):
            torch.manual_seed(step)
            images = torch.randn(16, 3, 64, 64, device="cuda").half().to(memory_format=torch.channels_last)
            torch.manual_seed(100 + step)
            with accelerator.autocast():
                loss = model(images, torch.arange(16, device="cuda") % 10)["loss"]
            (loss * 64).backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            found.append([loss.detach(), model(images[:4].float()), *model.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
