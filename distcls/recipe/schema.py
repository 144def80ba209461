"""The keys of a recipe, their types and defaults; and `check`, which reports all mistakes of a recipe at once."""

from typing import Annotated, Any, Literal

from pydantic import Field

from distcls.recipe.checker import Checker, filled
from distcls.recipe.errors import RecipeError
from distcls.recipe.key_pairs import check_together
from distcls.recipe.named_keys import check_named
from distcls.recipe.part import Count, Part
from distcls.recipe.signature import keys_of_part
from distcls.recipe.source import Source
from distcls.recipe.tracking import Tracking
from distcls.recipe.written_paths import check_paths
from distcls.registry import BACKBONES, HEADS, MIXES, NECKS, OPTIMIZERS, SCHEDULES, TRANSFORMS


class Init(Part):
    """Weights to start from; read when training begins, not when it goes on."""

    checkpoint: str
    """A file of OpenMMLab's, torchvision's, timm's or ours, or a run folder, relative to the working directory."""
    prefix: str | None = None
    """Take only the entries whose names begin with it, without it."""
    map: Literal["auto", "none", "openmmlab", "torchvision", "timm", "distcls"] = "auto"
    """Whose names the file has. auto: what fits best. none: change no name."""
    allow_low_match: bool = False
    """Accept a file with less than 90% of the backbone's parameter elements, or whose network computes otherwise."""


class Model(Part):
    """What is trained. Blocks are plain dicts: `type` and the arguments that the user wrote."""

    backbone: Annotated[dict[str, Any], BACKBONES]
    """Images to feature maps."""
    neck: Annotated[dict[str, Any] | None, NECKS] = None
    """Feature maps to what the head takes, for example GlobalAveragePooling."""
    head: Annotated[dict[str, Any], HEADS]
    """Features to logits; owns the loss and top-k."""
    init: Init | None = None
    """Weights to start from; null starts from random ones."""
    freeze: list[str] = []
    """Modules or parameters that are not trained, by name, with * and ?: backbone.layer1, "*.bias"."""


class TrainData(Part):
    """The images to train on."""

    path: str | Annotated[list[str], Field(min_length=1)]
    """A .beton file, a list of shards or a pattern such as data/train-*.beton, relative to the working directory."""


class ValData(Part):
    """The images to evaluate on, each exactly once."""

    path: str | Annotated[list[str], Field(min_length=1)]
    """A .beton file, a list of shards or a pattern such as data/train-*.beton, relative to the working directory."""
    crop_ratio: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Side of the centre crop, as a fraction of the shorter side of the image."""
    resolution: Count | None = None
    """Pixels per side; null means data.resolution, of a schedule its end."""


class ProgressiveResolution(Part):
    """A resolution that grows (or shrinks) over epochs, which count from 0."""

    start: Count
    """Pixels per side up to epoch ramp[0]."""
    end: Count
    """Pixels per side from epoch ramp[1] on."""
    ramp: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    """The last epoch of start and the first of end; between them the resolution follows a straight line."""
    multiple_of: Count = 32
    """Pixels; what the line is rounded to."""


class Data(Part):
    """Where the images are and what becomes of them."""

    train: TrainData
    """The images to train on."""
    val: ValData
    """The images to evaluate on."""
    resolution: Count | ProgressiveResolution
    """Pixels per side of the square images for the model, or a schedule {start: 128, end: 192, ramp: [11, 13]}."""
    augment: Annotated[list[dict[str, Any]], TRANSFORMS] = []
    """Random changes of each training image, in this order."""
    sampler: Literal["shuffle", "balanced", "repeated", "block_shuffle"] = "shuffle"
    """shuffle: each image once per epoch. balanced: each class equally often. repeated: fewer, each `repeats` times.
    block_shuffle: as shuffle, for data larger than memory: reads blocks of neighbours, and keeps few of them."""
    repeats: Annotated[int, Field(ge=2)] = 3
    """Of the sampler repeated: how often an image comes in its epoch, augmented anew each time."""
    block_size: Count = 16
    """Of the sampler block_shuffle: images that are read together, one after the other in the file."""
    block_window: Count = 8
    """Of the sampler block_shuffle: the blocks that are mixed for each place in the global batch."""
    mix: Annotated[list[dict[str, Any]], MIXES] = []
    """Mixing of pairs of images and of their labels; each step takes one of these at random."""
    interpolation: Literal["bilinear", "bicubic", "ffcv_area"] = "bilinear"
    """How crops are resized. bilinear: antialiased, as torchvision. bicubic: as Pillow and so as timm and MMPretrain's
    backend='pillow'. ffcv_area: as FFCV. The last two decode each JPEG at full size."""
    gpu_decode_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training JPEGs that the GPU decodes (nvJPEG): for machines with few CPU cores beside their GPUs."""
    workers: Count | None = None
    """Decoding threads per rank; null means the cores that this process may use over the local ranks."""


class Ema(Part):
    """A moving average of the weights, evaluated beside them (val_ema/*) and exported in their place."""

    decay: Annotated[float, Field(gt=0, lt=1)]
    """Share of itself that the average keeps each time, for example 0.9999."""
    every_steps: Count = 1
    """Optimizer updates from one time to the next."""
    start_epoch: Annotated[float, Field(ge=0)] = 0.0
    """Up to here the average is the weights themselves: for the length of a warm-up."""
    buffers: Literal["copy", "average"] = "copy"
    """BatchNorm's statistics beside the average. copy: the model's own. average: averaged too, as timm, torchvision."""


class Train(Part):
    """How long, how much at once, how exactly."""

    epochs: Annotated[float, Field(gt=0)] | Count | None = None
    """Passes over the training images. Either this or max_steps."""
    max_steps: Count | None = None
    """Optimizer updates. Either this or epochs."""
    global_batch_size: Count
    """Images per optimizer update, over all GPUs and accumulation."""
    accumulation_steps: Count = 1
    """Forward and backward passes per optimizer update on each rank."""
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    """Number format of the forward and backward pass."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of the gradient; null does not clip."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Weights, order, crops and augmentation follow from it."""
    log_every_steps: Count = 50
    """Optimizer updates between rows of training metrics."""
    ema: Ema | None = None
    """A moving average of the weights; null keeps none."""
    compile: bool = False
    """torch.compile the model: a minute at the start, then a third faster on a GPU."""
    cuda_graphs: bool = False
    """On a GPU, replay the backbone as CUDA graphs: fewer launches, no compilation. One image size, ddp."""
    channels_last: bool = False
    """Channels-last memory format: faster convolutions on most GPUs."""


class Eval(Part):
    """Evaluation during training; one at the end always runs."""

    every_epochs: Annotated[float, Field(gt=0)] = 1.0
    """Epochs between evaluations; may be a fraction."""
    batch_size: Count | None = None
    """Images per rank; null means the training micro-batch."""
    tta: Literal["flip"] | None = None
    """Test-time augmentation. flip: the mean of the logits of each image and of its mirror image, at twice the cost."""
    metrics: list[Literal["precision", "recall", "f1", "confusion", "calibration", "map"]] = []
    """Beside loss and top-k, means over classes; each class and the confusion matrix go to val_per_class.json."""


class Checkpoint(Part):
    """What survives a kill."""

    every_steps: Count = 1000
    """Optimizer updates between checkpoints."""
    keep: Annotated[int, Field(ge=2)] = 2
    """Newest checkpoints to keep; at least 2, so that a damaged one has a predecessor."""
    resume: Literal["auto", "never", "must"] = "auto"
    """auto: go on if there is a checkpoint. never: refuse a used folder. must: fail without a checkpoint."""
    allow_changes: list[str] = []
    """Keys that may differ from what the run was before, with all below them: optimizer.lr, train.epochs, data."""


class Distributed(Part):
    """How ranks work together."""

    strategy: Literal["ddp", "zero1", "zero2", "zero3", "fsdp2"] = "ddp"
    """ddp: every rank holds all. zero1: its share of the optimizer; zero2: and gradients; zero3, fsdp2: and weights."""
    sync_bn: bool = False
    """BatchNorm statistics over all ranks instead of each micro-batch; GPUs only."""
    activation_checkpointing: bool = False
    """Compute the activations within blocks again in backward instead of keeping them: less memory, a third slower."""
    wrap: list[str] = []
    """Classes of modules that are blocks (fsdp2, activation_checkpointing), by name; empty: the backbone's own."""
    deepspeed_overrides: dict[str, Any] = {}
    """For zero1 to zero3: keys of DeepSpeed's configuration, for example {zero_optimization: {overlap_comm: true}}."""
    timeout_s: Annotated[float, Field(gt=0)] | Count = 1800
    """Seconds without progress after which the run ends and names the rank that is behind; saving must fit within."""
    warn_after_s: Annotated[float, Field(gt=0)] | Count = 300
    """Seconds without progress after which a warning names the rank that is behind."""


class Recipe(Part):
    """One experiment. Made by `check`."""

    name: str = ""
    """Name of the recipe; the stem of its file unless written."""
    plugins: list[str] = []
    """Python files (relative to the recipe) or modules that register classes."""
    output_dir: str = ""
    """The run folder, relative to the working directory; runs/<name> unless written."""
    model: Model
    """What is trained."""
    data: Data
    """The images."""
    optimizer: Annotated[dict[str, Any], OPTIMIZERS]
    """How gradients change the weights."""
    schedule: Annotated[dict[str, Any], SCHEDULES]
    """The learning rate as a function of the step."""
    train: Train
    """Length, batch and precision."""
    eval: Eval = Eval()
    """Evaluation during training."""
    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints and resume."""
    tracking: Tracking = Tracking()
    """Weights & Biases."""
    distributed: Distributed = Distributed()
    """How ranks work together."""

    def resolved(self) -> dict[str, Any]:
        """The whole recipe with all defaults, JSON-able. `to_yaml` makes it a recipe of the same meaning again."""
        return filled(keys_of_part(Recipe), {key: getattr(self, key) for key in Recipe.model_fields})


def check(source: Source) -> Recipe:
    """The recipe of `source`, every value converted to its annotation.

    The classes that it names must be registered already: import them first, see engine/checks/plugins.py.

    Raises:
        RecipeError: all mistakes, including those of the files and the command line.
    """
    checker = Checker(source)
    values = checker.mapping(keys_of_part(Recipe), source.tree)
    check_together(checker, source.tree)
    check_named(checker, keys_of_part(Recipe), source.tree)
    check_paths(checker, source.tree)
    if checker.problems:
        raise RecipeError(source.recipe, checker.problems)
    values["name"] = values.get("name") or source.name
    values["output_dir"] = values.get("output_dir") or f"runs/{values['name']}"
    return Recipe.model_validate(values)
