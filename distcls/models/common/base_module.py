"""BaseModule: a part of a classifier that initialises itself."""

from torch import nn

from distcls.models.common.weight_init import init_layers


class BaseModule(nn.Module):
    """Base of backbones, necks and heads: a module with `init_weights`.

    The classifier's `init_weights` calls that of its parts; each part initialises the layers under it once, in
    registration order, from torch's global generator, so that `torch.manual_seed` determines the weights. A part with
    its own rules overrides it, usually with one call of `init_layers`. Layers that no rule names keep their
    constructor's initialisation. Blocks inside a backbone stay plain `nn.Module`s, so that its rules apply to them.
    """

    def init_weights(self) -> None:
        init_layers(self, {})
