"""Reference loops for the trainer, each run in its own process, so that all start under equal conditions.

    python benchmarks/plain_loops.py resident [--resolution 224] [--batch 512] [--steps 200] [--warm-up 60] [--depth 50]
        [--precision fp16] [--mode eager | graphs | compile]
    python benchmarks/plain_loops.py ffcv --data FILE.beton ...
    python benchmarks/plain_loops.py dataloader --data FOLDER ...

resident: the trainer's classifier and optimizer on one batch that stays on the device, the upper bound of any trainer.
ffcv: a loop in the style of ffcv-imagenet (https://github.com/libffcv/ffcv-imagenet): FFCV's Loader decodes on the CPU,
torchvision's ResNet runs eagerly; without its BlurPool, and normalised by torch, because FFCV's NormalizeImage needs
CuPy on a GPU. dataloader: the same with torch's DataLoader on a folder of JPEGs, as in torchvision's
references/classification. Prints images per second, the median over windows of 20 steps.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torchvision
from torchvision.transforms import v2

import distcls

WINDOW = 20  # steps
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Batch = tuple[torch.Tensor, torch.Tensor]


def rate(step: Callable[[], None], options: argparse.Namespace) -> float:
    """Training throughput in images per second, the median of the windows after the warm-up."""
    windows, began = [], time.perf_counter()
    for done in range(1, options.steps + 1):
        step()
        if done % WINDOW == 0:
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            if done > options.warm_up:
                windows.append(WINDOW * options.batch / (time.perf_counter() - began))
            began = time.perf_counter()
    return statistics.median(windows)


def training(
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    precision: str,
) -> Callable[[], None]:
    """One step of a usual training loop: AMP, backward, optimizer step."""
    half = HALF.get(precision)
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=precision == "fp16")

    def step() -> None:
        images, target = next(batches)
        with torch.autocast(DEVICE.type, half, enabled=half is not None):
            loss = loss_of(images, target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def resident(options: argparse.Namespace) -> float:
    torch.backends.cudnn.benchmark = True
    size = (options.resolution, options.resolution)
    block = {
        "backbone": {"type": "ResNet", "depth": options.depth, "out_indices": (3,)},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "num_classes": 10, "loss": {"type": "CrossEntropyLoss"}},
    }
    model = distcls.build_model(block, image_size=size).to(DEVICE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-5, fused=DEVICE.type == "cuda"
    )
    half = HALF.get(options.precision)
    images = torch.randn(options.batch, 3, *size, device=DEVICE, dtype=half or torch.float32)
    images = images.to(memory_format=torch.channels_last)
    target = torch.randint(0, 10, (options.batch,), device=DEVICE)
    if options.mode == "compile":
        model.compile()
    if options.mode == "graphs" and DEVICE.type == "cuda":
        with torch.autocast(DEVICE.type, half, enabled=half is not None, cache_enabled=False):
            torch.cuda.make_graphed_callables(model.backbone, (images.clone(),))
    batches = iter(lambda: (images, target), None)
    return rate(training(lambda *batch: model(*batch)["loss"], optimizer, batches, options.precision), options)


def torchvisions(batches: Iterator[Batch], options: argparse.Namespace) -> float:
    """Throughput of torchvision's ResNet on these batches in eager mode."""
    model = getattr(torchvision.models, f"resnet{options.depth}")()
    model.to(DEVICE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-5)
    criterion = torch.nn.functional.cross_entropy
    return rate(training(lambda x, y: criterion(model(x), y), optimizer, batches, options.precision), options)


def ffcv(options: argparse.Namespace) -> float:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToDevice, ToTensor, ToTorchImage

    to_device = [ToDevice(DEVICE, non_blocking=True)] if DEVICE.type == "cuda" else []
    size = (options.resolution, options.resolution)
    image = [RandomResizedCropRGBImageDecoder(size), RandomHorizontalFlip(), ToTensor(), *to_device, ToTorchImage()]
    loader = Loader(
        str(options.data),
        batch_size=options.batch,
        num_workers=len(os.sched_getaffinity(0)),
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze(), *to_device]},
    )
    kind = HALF.get(options.precision, torch.float32)
    mean, std = (255 * torch.tensor(values, device=DEVICE, dtype=kind).view(1, 3, 1, 1) for values in (MEAN, STD))

    def batches() -> Iterator[Batch]:
        while True:
            for images, target in loader:
                yield images.to(kind).sub_(mean).div_(std), target.long()

    return torchvisions(batches(), options)


def dataloader(options: argparse.Namespace) -> float:
    steps = [v2.RandomResizedCrop(options.resolution), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    loader = torch.utils.data.DataLoader(
        torchvision.datasets.ImageFolder(options.data, v2.Compose(steps)),
        batch_size=options.batch,
        shuffle=True,
        num_workers=len(os.sched_getaffinity(0)),
        pin_memory=DEVICE.type == "cuda",
        persistent_workers=True,
        drop_last=True,
    )

    def batches() -> Iterator[Batch]:
        while True:
            for images, target in loader:
                images = images.to(DEVICE, non_blocking=True, memory_format=torch.channels_last)
                yield images, target.to(DEVICE, non_blocking=True)

    return torchvisions(batches(), options)


LOOPS = {"resident": resident, "ffcv": ffcv, "dataloader": dataloader}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("loop", choices=LOOPS)
    arguments.add_argument("--data", type=Path)
    arguments.add_argument("--resolution", type=int, default=224)
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--batch", type=int, default=512)
    arguments.add_argument("--warm-up", type=int, default=60)
    arguments.add_argument("--depth", type=int, default=50)
    arguments.add_argument("--precision", default="fp16")
    arguments.add_argument("--mode", choices=["eager", "graphs", "compile"], default="graphs")
    options = arguments.parse_args()
    print(LOOPS[options.loop](options))


if __name__ == "__main__":
    main()
