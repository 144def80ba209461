"""The names that other frameworks use, so that a hint suggests what is meant rather than what is spelt alike.

From MMPretrain, MMClassification and Awesome-Backbones, ffcv-imagenet, timm, torch and torchvision.
"""

from collections.abc import Collection, Mapping
from typing import Any

from distcls.recipe.errors import KeyPath, dotted
from distcls.registry import nearest

_SURE = 0.84  # difflib's ratio: ResNet50 certainly means ResNet, MyBackbone does not mean TimmBackbone

#: Our class -> its names elsewhere.
_CLASSES = {
    "VisionTransformer": "ViT DeiT",
    "SwinTransformer": "Swin",
    "GlobalAveragePooling": "GAP GlobalAvgPool AvgPool AdaptiveAvgPool2d",
    "GeneralizedMeanPooling": "GeM GeMPooling",
    "LinearClsHead": "Linear fc classifier",
    "StackedLinearClsHead": "MLP",
    "CrossEntropyLoss": "ce CrossEntropy SoftTargetCrossEntropy NLLLoss",
    "LabelSmoothLoss": "LabelSmoothing LabelSmoothingCrossEntropy",
    "RandomHorizontalFlip": "RandomFlip Flip HorizontalFlip hflip",
    "RandomResizedCrop": "rrc RandomResizedCropAndInterpolation RandomResizedCropRGBImageDecoder",
    "RandomErasing": "Cutout RandomErase",
    "TrivialAugmentWide": "TrivialAugment",
    "ThreeAugment": "Random3Augment 3Augment",
    "Mixup": "BatchMixup",
    "CutMix": "BatchCutMix",
    "SGD": "Momentum Nesterov NAG",
    "AdamW": "Adam FusedAdam",
    "CosineWarmup": "cosine CosineLR CosineAnnealing CosineAnnealingLR CosineAnnealingLrUpdater",
    "StepWarmup": "MultiStep MultiStepLR",
    "ExponentialWarmup": "step StepLR StepLrUpdater ExponentialLR",
    "LinearWarmup": "linear cyclic LinearLR PolyLR PolyLrUpdater OneCycleLR",
}

#: Advice -> the classes that have no counterpart here.
_NO_CLASSES = {
    "Leave it out: images are decoded, batched and normalised (mean and std of the data file) without it.": "Normalize "
    "ToTensor PILToTensor ToDtype ToTorchImage ImageToTensor LoadImageFromFile PackInputs PackClsInputs Collect",
    "Leave it out: data.resolution is the training size, data.val.crop_ratio the centre crop of evaluation.": "Resize "
    "ResizeEdge CenterCrop CenterCropRGBImageDecoder",
    "Write the optimizer inside it alone: train.precision and train.clip_grad_norm say the rest.": "OptimWrapper "
    "AmpOptimWrapper ApexOptimWrapper",
    "Write {type: CrossEntropyLoss, use_sigmoid: true}.": "BCE BCELoss BCEWithLogitsLoss BinaryCrossEntropy",
}

#: Our key, with its full path if it has only one place -> its names elsewhere, and its own name if often misplaced.
_KEYS = {
    "p": "prob erase_prob",
    "every_epochs": "step_size interval",
    "checkpoint.every_steps": "interval",
    "train.ema.every_steps": "interval",
    "scale": "crop_ratio_range",
    "ratio": "aspect_ratio_range",
    "milestones": "step",
    "end_factor": "eta_min min_lr min_lr_ratio",
    "warmup_steps": "warmup_iters",
    "warmup_start_factor": "warmup_ratio start_factor",
    "label_smooth_val": "smoothing label_smoothing eps epsilon",
    "num_ops": "num_policies",
    "magnitude": "magnitude_level total_level",
    "mstd": "magnitude_std",
    "policy": "policies",
    "drop_path_rate": "drop_path",
    "lr": "learning_rate",
    "optimizer": "optim opt optim_wrapper optimizer_cfg",
    "optimizer.lr": "lr learning_rate",
    "optimizer.momentum": "momentum",
    "optimizer.weight_decay": "weight_decay wd",
    "schedule": "scheduler sched param_scheduler lr_config lr_schedule_type",
    "schedule.warmup_epochs": "warmup_epochs warmup",
    "model": "model_cfg",
    "model.backbone": "arch",
    "model.head.num_classes": "num_classes",
    "model.head.topk": "topk",
    "model.head.loss": "loss criterion",
    "model.init.checkpoint": "load_from pretrained pretrained_weights init_cfg",
    "model.freeze": "freeze_layers",
    "data.interpolation": "backend",
    "data.mix": "augments train_cfg",  # as a key of the model; at the top of a config it means `train`
    "train": "train_cfg training",
    "train.global_batch_size": "batch_size samples_per_gpu batch_size_per_gpu",
    "train.epochs": "max_epochs num_epochs",
    "train.max_steps": "max_iters",
    "train.accumulation_steps": "accumulative_counts grad_accum_steps",
    "train.clip_grad_norm": "clip_grad grad_clip max_norm",
    "train.precision": "amp fp16 mixed_precision",
    "train.ema": "model_ema custom_hooks",
    "train.seed": "randomness",
    "train.log_every_steps": "log_interval",
    "data": "data_cfg",
    "data.workers": "num_workers workers_per_gpu",
    "data.resolution": "img_size image_size input_size crop_size",
    "data.train": "train_dataloader",
    "data.train.path": "train_dataset",
    "data.val": "val_dataloader test_dataloader validation",
    "data.val.path": "val_dataset",
    "data.augment": "train_pipeline pipeline transforms",
    "eval": "evaluation val_cfg",
    "eval.every_epochs": "val_interval",
    "eval.tta": "lr_tta",
    "eval.metrics": "val_evaluator",
    "checkpoint": "checkpoint_config default_hooks",
    "checkpoint.keep": "max_keep_ckpts",
    "checkpoint.resume": "resume_from",
    "output_dir": "work_dir logging folder",
    "plugins": "custom_imports",
    "tracking": "visualizer vis_backends log_config wandb",
    "distributed": "dist env_cfg",
}

_NO_KEYS = {
    "Leave it out: only the block of a class has a type.": "type",
    "Leave it out: mean and std come with the data file, images are RGB.": "data_preprocessor",
    "Leave it out: the batch does not depend on the GPUs, so the rate need not.": "auto_scale_lr",
    "Leave it out: the schedule ends with the run.": "T_max t_max",
    "Leave it out: files are mapped, the system keeps them in memory.": "in_memory",
    "Leave it out: train.epochs counts epochs, train.max_steps updates.": "by_epoch",
    "Leave it out: flips are horizontal.": "direction",
    "Leave it out: the best weights are always kept.": "save_best",
    "Leave it out: data.val.resolution and data.val.crop_ratio say how images are evaluated.": "test_pipeline "
    "val_pipeline",
    "Leave it out: the loader shuffles, batches and reads ahead by itself.": "persistent_workers pin_memory drop_last "
    "collate_fn prefetch_factor",
    "Leave it out: it has no counterpart.": "default_scope log_level log_processor dataset_type test_cfg",
    "Convert it once: distcls data convert ANN_FILE OUT.beton --image-root DATA_ROOT. It is the path.": "ann_file "
    "data_root data_prefix",
    "Leave it out: a mapping with another type replaces its base.": "_delete_",
}

_CHOICES = {"fp16": "amp half float16", "bf16": "bfloat16", "fp32": "float32 no", "fp64": "float64 double",
            "zero2": "deepspeed", "fsdp2": "fsdp", "auto": "latest"}  # fmt: skip


def class_meant(role: str, name: str, known: Collection[str], guess: bool = True) -> tuple[str | None, str]:
    """The class of `known` that `name` certainly means, or None; and a hint with a leading space, or nothing.

    Args:
        guess: whether to suggest a name that is only similar; not if a failed plug-in may have defined it.
    """
    if sentence := _of(name, _NO_CLASSES):
        return None, f" {sentence[0]}"
    told = [one for one in _of(name, _CLASSES) if one in known]
    sure = told[0] if told else nearest(name, known, _SURE)
    if not (sure or guess):
        return None, ""
    near = sure or nearest(name, known)
    hint = f" Did you mean {near!r}?" if near else ""
    if role == "backbone" and not sure:
        hint += f" `distcls models {name}` looks among timm's and torchvision's."
    return sure, hint


def key_meant(name: str, above: KeyPath, known: Collection[str], parts: Collection[KeyPath]) -> tuple[KeyPath, str]:
    """The path of the key that `name`, written below `above`, means; and a hint with a leading space, or nothing.

    Args:
        known: the keys allowed there.
        parts: the paths of all keys of the recipe's fixed parts.
    """
    if sentence := _of(name, _NO_KEYS):
        return (*above, name), f" {sentence[0]}"
    told: list[KeyPath] = [tuple(one.split(".")) for one in _of(name, _KEYS)]
    here = [path for path in told if path[-1] in known and path[:-1] in ((), above)]
    if here:
        return (*above, here[0][-1]), f" Did you mean {here[0][-1]!r}?"
    elsewhere = [path for path in told if len(path) > 1 or path in parts] or [one for one in parts if one[-1] == name]
    near = nearest(name, known)
    if near and (not elsewhere or near == nearest(name, known, _SURE)):
        return (*above, near), f" Did you mean {near!r}?"
    return (elsewhere[0], f" Did you mean {dotted(elsewhere[0])!r}?") if elsewhere else ((*above, name), "")


def value_meant(key: str | int, value: Any) -> str:
    """A hint, with a leading space, if a key of the same name takes another kind of value elsewhere."""
    size = key in ("scale", "size", "crop_size") and type(value) is int
    return " data.resolution is the size in pixels." if size else ""


def choice_meant(word: str, choices: Collection[str]) -> str | None:
    """The one of `choices` that `word` probably means."""
    return next((one for one in _of(word, _CHOICES) if one in choices), None) or nearest(word, choices)


def _of(name: str, table: Mapping[str, str]) -> list[str]:
    """Our names in `table` for a name from elsewhere, ignoring case."""
    return [ours for ours, theirs in table.items() if name.lower() in theirs.lower().split()]
