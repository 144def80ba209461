"""The loop that users of ffcv-imagenet come from: FFCV's Loader decodes on the CPU, torchvision's ResNet runs eagerly.

Without BlurPool, which theirs has: that favours it. Normalised by torch, not by FFCV's NormalizeImage, which needs CuPy
on a GPU. Its main.py: https://github.com/libffcv/ffcv-imagenet
"""

import statistics
import time
from pathlib import Path

import torch
import torchvision


def ffcv_style(beton: Path, resolution: int, batch: int, steps: int, warm_up: int, workers: int) -> dict[str, float]:
    """Images per second of training, the median of windows of 20 steps after `warm_up`."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToDevice, ToTensor, ToTorchImage

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    half = torch.float16 if on_gpu else torch.float32
    mean, std = (
        255 * torch.tensor(values, device=device, dtype=half).view(1, 3, 1, 1)
        for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    image = [RandomResizedCropRGBImageDecoder((resolution, resolution)), RandomHorizontalFlip(), ToTensor()]
    label = [IntDecoder(), ToTensor(), Squeeze()]
    if on_gpu:
        image.append(ToDevice(device, non_blocking=True))
        label.append(ToDevice(device, non_blocking=True))
    image.append(ToTorchImage())
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
    scaler = torch.amp.GradScaler(device.type, enabled=on_gpu)
    windows, step, began = [], 0, time.perf_counter()
    while step < steps:
        for images, target in loader:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, half, enabled=on_gpu):
                normalised = images.to(half).sub_(mean).div_(std)
                loss = torch.nn.functional.cross_entropy(model(normalised), target.long())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            step += 1
            if step % 20 == 0:
                if on_gpu:
                    torch.cuda.synchronize()
                if step > warm_up:
                    windows.append(20 * batch / (time.perf_counter() - began))
                began = time.perf_counter()
    return {"images_per_second": statistics.median(windows)}
