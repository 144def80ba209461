"""Every optimizer of torch's with the kernels that it takes on a GPU, on weights that FSDP2 has cut into shards."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from distcls.optim import optimizers


@pytest.fixture
def mesh():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def update(model, optimizer):
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(3):
        scaler.scale(model(torch.ones(3, 4)).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop"])
def test_shards_are_updated_as_whole_weights_are(name, mesh, monkeypatch):
    models = []
    for sharded in (False, True):
        torch.manual_seed(0)
        models.append(nn.Linear(4, 2))
        if sharded:
            fully_shard(models[-1], mesh=mesh)
            monkeypatch.setattr(optimizers, "_on_gpu", lambda model: True)
        update(models[-1], getattr(optimizers, name)(models[-1], lr=0.1, weight_decay=0.01))
    whole, shards = ([getattr(one, "_local_tensor", one) for one in model.parameters()] for model in models)
    for one, other in zip(whole, shards, strict=True):
        torch.testing.assert_close(other, one)
