"""BaseModule: a part of a classifier that initialises itself."""

from torch import nn

from distcls.models.common.weight_init import init_layers


class BaseModule(nn.Module):
    """Base of backbones, necks and heads: a module with `init_weights`.

    `init_weights` of the classifier calls that of its parts, each part's initialises the layers under it once, in the
    order of their registration, drawing from torch's global generator: after `torch.manual_seed` the weights are always
    the same. A part with rules of its own overrides it, usually with one call of `init_layers`. Layers that no rule
    names keep what their constructor drew. Blocks inside a backbone stay plain `nn.Module`s: its rules reach into them.
    """

    def init_weights(self) -> None:
        init_layers(self, {})
