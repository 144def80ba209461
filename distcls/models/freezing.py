"""Freezing parts of a model, selected by module or parameter name."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier
from distcls.registry import did_you_mean


def freeze(model: ImageClassifier, patterns: Sequence[str]) -> list[str]:
    """Exclude the parameters that match a pattern from training, and keep matching modules in eval mode.

    A pattern is the name of a module or a parameter, with `*` and `?`: ``backbone.layer1``, ``backbone.layers.?.attn``,
    ``*.bias``. A module stands for everything in it: its BatchNorm also keeps its running statistics, and its dropout
    is off.

    Returns:
        The names of the frozen parameters.

    Raises:
        UserError: a pattern matches nothing.
    """
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    kept: list[str] = []
    frozen: set[str] = set()
    for pattern in patterns:
        named = [name for name in modules if name and fnmatchcase(name, pattern)]
        single = {name for name in parameters if fnmatchcase(name, pattern)}
        if not named and not single:
            inside = [name for name in modules if name.endswith(f".{pattern}")]
            hint = f" Did you mean {inside[0]!r}?" if inside else did_you_mean(pattern, modules)
            raise UserError(f"no module or parameter has the name {pattern!r}.{hint}")
        kept += named
        frozen |= single | {name for name in parameters if _within(name, named)}
    for name in frozen:
        parameters[name].requires_grad_(False)
    model.kept_in_eval_mode = tuple(kept)
    model.train(model.training)
    return [name for name in parameters if name in frozen]


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)
