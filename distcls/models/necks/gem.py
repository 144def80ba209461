"""GeneralizedMeanPooling: between mean and maximum, with a learned exponent."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.registry import NECKS


@NECKS.register
class GeneralizedMeanPooling(nn.Module):
    """(N, C, H, W) -> (N, C): ``mean(x^p)^(1/p)``; a tuple of maps -> a tuple. Follows MMPretrain 1.2.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2017.

    Args:
        p: exponent at the start: 1 is the mean, infinity the maximum.
        p_trainable: learn it.
        eps: lower bound of the features, with clamp.
        clamp: clamp features to at least eps first; otherwise negative ones give NaN for most p.

    Raises:
        UserError: in `forward`, for features that are not maps.
    """

    def __init__(
        self, p: Annotated[float, Field(ge=1)] = 3.0, p_trainable: bool = True, eps: float = 1e-6, clamp: bool = True
    ) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), float(p)), requires_grad=p_trainable)
        self.eps = eps
        self.clamp = clamp

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        if isinstance(inputs, tuple):
            return tuple(self._pool(x) for x in inputs)
        return self._pool(inputs)

    def _pool(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ArgumentError(
                "GeneralizedMeanPooling",
                f"got features of shape {tuple(x.shape)}, expected maps (N, C, H, W). "
                "Features that are pooled already need no neck: model.neck=null",
            )
        if self.clamp:
            x = x.clamp(min=self.eps)
        return x.pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)
