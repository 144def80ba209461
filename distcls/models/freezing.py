"""Which parts of a model are not trained, by the names of their parameters."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier
from distcls.registry import did_you_mean


def freeze(model: ImageClassifier, patterns: Sequence[str]) -> list[str]:
    """Take the parameters that a pattern names out of training, and keep the modules that it names in eval mode.

    A pattern is the name of a module or a parameter, with `*` and `?`: ``backbone.layer1``, ``backbone.layers.?.attn``,
    ``*.bias``. A module stands for all that is in it: its BatchNorm keeps its running averages as well, and its dropout
    is off.

    Returns:
        The names of the parameters that are frozen now.

    Raises:
        UserError: a pattern names nothing.
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
