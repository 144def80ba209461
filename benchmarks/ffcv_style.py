"""The loop that users of ffcv-imagenet come from: FFCV's Loader decodes on the CPU, torchvision's ResNet runs eagerly.

Without BlurPool, which theirs has: that favours it. Its main.py: https://github.com/libffcv/ffcv-imagenet
"""

import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torchvision


def ffcv_style(beton: Path, resolution: int, batch: int, steps: int, warm_up: int, workers: int) -> dict[str, float]:
    """Images per second of training, the median of windows of 20 steps after `warm_up`."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        NormalizeImage,
        RandomHorizontalFlip,
        Squeeze,
        ToDevice,
        ToTensor,
        ToTorchImage,
    )

    device = torch.device("cuda")
    scale = [255 * np.array(values) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    image = [RandomResizedCropRGBImageDecoder((resolution, resolution)), RandomHorizontalFlip(), ToTensor()]
    image += [ToDevice(device, non_blocking=True), ToTorchImage(), NormalizeImage(*scale, np.float16)]
    label = [IntDecoder(), ToTensor(), Squeeze(), ToDevice(device, non_blocking=True)]
    loader = Loader(
        str(beton),
        batch_size=batch,
        num_workers=workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": image, "label": label},
    )
    model = torchvision.models.resnet50().to(device=device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-5)
    scaler = torch.amp.GradScaler("cuda")
    windows, step, began = [], 0, time.perf_counter()
    while step < steps:
        for images, target in loader:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.float16):
                loss = torch.nn.functional.cross_entropy(model(images), target.long())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            step += 1
            if step % 20 == 0:
                torch.cuda.synchronize()
                if step > warm_up:
                    windows.append(20 * batch / (time.perf_counter() - began))
                began = time.perf_counter()
    return {"images_per_second": statistics.median(windows)}
