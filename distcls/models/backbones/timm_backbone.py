"""TimmBackbone: any of timm's models as a backbone."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distcls.errors import ArgumentError
from distcls.models.backbones.library_weights import fetch_weights, load_own
from distcls.models.common import BaseModule
from distcls.registry import BACKBONES, did_you_mean


@BACKBONES.register
class TimmBackbone(BaseModule):
    """A model of timm (https://github.com/huggingface/pytorch-image-models) without its classifier.

    Images (N, 3, H, W) -> a tuple with the last feature map (N, C, h, w), whatever the model itself returns: tokens are
    arranged as a map, class tokens dropped. With `pooled`, the model's own pooling and the layers up to the classifier
    run as well and give (N, C): a pretrained network is then used as it was trained, and no neck follows. With
    `features_only`, one map per stage.

    Images must be normalised as the weights expect: timm's data configuration has ImageNet's mean and std for most
    models, 0.5 for some. `distcls models PATTERN` lists the names.

    Args:
        model_name: timm's, with or without the tag of its weights: convnextv2_tiny, vit_small_patch16_224.augreg_in1k.
        features_only: a tuple with the maps of all stages, or of those in an argument out_indices.
        pooled: give features (N, C) instead of a map.
        pretrained: start from the weights that timm names, from the hub's cache or the hub.
        checkpoint_path: start from a file of this model's weights instead; model.init does the same, with a report.
        in_channels: of the images.
        kwargs: for timm: drop_path_rate, img_size, ...

    Raises:
        UserError: no such model, an argument that it does not take, or weights that cannot be had.
    """

    def __init__(
        self,
        model_name: str,
        features_only: bool = False,
        pooled: bool = False,
        pretrained: bool = False,
        checkpoint_path: str = "",
        in_channels: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        import timm  # takes seconds: only if it is used

        if not timm.is_model(model_name):
            hint = did_you_mean(model_name, timm.list_models())
            raise ArgumentError(
                "TimmBackbone.model_name", f"timm {timm.__version__} has no model {model_name!r}.{hint}"
            )
        if features_only and pooled:
            raise ArgumentError("TimmBackbone", "features_only gives maps and pooled gives none: set one of them")
        self.in_channels = in_channels
        self.features_only, self.pooled = features_only, pooled
        self.pretrained, self.checkpoint_path = pretrained, checkpoint_path
        form: dict[str, Any] = {"features_only": True} if features_only else {"num_classes": 0}
        if not (features_only or pooled):
            form["global_pool"] = ""  # the head's norm and convolutions still run: every parameter has a gradient
        self._arguments = {"model_name": model_name, "in_chans": in_channels, **form, **kwargs}
        try:
            self.timm_model: Any = timm.create_model(**self._arguments)
        except (TypeError, RuntimeError, AssertionError) as error:
            raise ArgumentError("TimmBackbone", f"timm cannot build {model_name!r} like this: {error}") from error

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = self.timm_model(x)
        if self.pooled:
            return (out,)
        if self.features_only:
            return tuple(_channels_first(one, (w,)) for one, w in zip(out, self.widths, strict=True))
        return (_channels_first(out, self.widths) if out.ndim == 4 else self._places(out, x.shape[-2:]),)

    @property
    def widths(self) -> tuple[int, ...]:
        """How many channels the output may have; with features_only, those of each map."""
        if self.features_only:
            return tuple(self.timm_model.feature_info.channels())
        return self.timm_model.num_features, getattr(self.timm_model, "head_hidden_size", self.timm_model.num_features)

    def _places(self, tokens: Tensor, image: torch.Size) -> Tensor:
        """Tokens (N, class tokens + h * w, C) -> (N, C, h, w)."""
        name = type(self.timm_model).__name__
        embed: Any = getattr(self.timm_model, "patch_embed", None)
        if tokens.ndim != 3 or not hasattr(embed, "dynamic_feat_size"):
            raise ArgumentError("TimmBackbone", f"timm's {name} gives no feature map: set pooled")
        grid = embed.dynamic_feat_size(tuple(image))
        patches = tokens[:, getattr(self.timm_model, "num_prefix_tokens", 0) :]
        if grid[0] * grid[1] != patches.shape[1]:
            raise ArgumentError("TimmBackbone", f"the tokens of timm's {name} form no map: set pooled")
        return patches.transpose(1, 2).unflatten(2, grid)

    def init_weights(self) -> None:
        """Load pretrained weights, if any; otherwise timm's own initialisation is kept.

        Not done in the constructor, where every resume and every load would need the file or the hub again.
        """
        if self.checkpoint_path:
            load_own(self, Path(self.checkpoint_path), "timm")
        elif self.pretrained:
            import timm

            name = self._arguments["model_name"]
            twin = fetch_weights("timm", name, lambda: timm.create_model(pretrained=True, **self._arguments))
            self.timm_model.load_state_dict(twin.state_dict())

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths), for layer-wise learning rates, as timm groups its layers.

        Args:
            param_name: of the classifier; without `prefix` it is the head's, which has the largest depth.
        """
        deepest = max(self._depths.values()) + 1
        return self._depths.get(param_name.removeprefix(f"{prefix}timm_model."), deepest), deepest + 1

    @cached_property  # grouping takes milliseconds and is needed for every parameter
    def _depths(self) -> dict[str, int]:
        if not hasattr(self.timm_model, "group_matcher"):
            raise ArgumentError("TimmBackbone", f"timm groups no layers of {type(self.timm_model).__name__}")
        from timm.models import group_parameters

        groups = group_parameters(self.timm_model, self.timm_model.group_matcher(coarse=False))
        return {name: depth for depth, names in groups.items() for name in names}


def _channels_first(x: Tensor, widths: Collection[int]) -> Tensor:
    """(N, C, h, w), also where the model keeps the channels last, as Swin does."""
    return x if x.shape[1] in widths else x.permute(0, 3, 1, 2).contiguous()
