"""Finds the repeated blocks of a model: the units of FSDP2 and of activation checkpointing."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from distcls.errors import UserError
from distcls.models.common.activation_checkpoint import run_checkpointed
from distcls.registry import did_you_mean


def find_blocks(classifier: nn.Module, wrap: Sequence[str]) -> list[nn.Module]:
    """The modules whose class is named in `wrap`; if it is empty, the backbone's blocks.

    These are the modules with an attribute `with_cp`. In a library's backbone they are the repeated elements of
    Sequentials and ModuleLists, innermost ones only.

    Raises:
        UserError: no module has a class of such a name.
    """
    modules = list(classifier.modules())
    classes = {type(module).__name__ for module in modules[1:]}
    for name in wrap:
        if name not in classes:
            raise UserError(f"no module of the model is a {name!r}.{did_you_mean(name, classes)}")
    if wrap:
        return _outermost(classifier, lambda module: type(module).__name__ in wrap)
    backbone = classifier.get_submodule("backbone")
    blocks = _outermost(backbone, lambda module: hasattr(module, "with_cp"))
    return blocks or _repeated(backbone)


def checkpoint_activations(blocks: Sequence[nn.Module]) -> None:
    """Recompute the activations inside the blocks in backward instead of keeping them; the numbers do not change."""
    block: Any
    for block in blocks:
        if hasattr(block, "with_cp"):
            block.with_cp = True
        else:
            block.forward = partial(run_checkpointed, block, block.forward)


def _outermost(root: nn.Module, fits: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """Modules below `root` that fit and are not inside another one that fits."""
    found: list[nn.Module] = []
    for child in root.children():
        found += [child] if fits(child) else _outermost(child, fits)
    return found


def _repeated(backbone: nn.Module) -> list[nn.Module]:
    elements = [
        element
        for container in backbone.modules()
        if isinstance(container, nn.Sequential | nn.ModuleList)
        for element in container
        if not type(element).__module__.startswith("torch.nn.") and not isinstance(element, nn.Sequential)
    ]
    elements = [element for element in elements if list(element.children())]  # a single layer is not a block
    known = set(map(id, elements))
    kinds = [type(element) for element in elements]
    return [
        element
        for element in elements
        if kinds.count(type(element)) > 1 and not known & {id(inner) for inner in list(element.modules())[1:]}
    ]
