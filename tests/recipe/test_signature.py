"""Which keys a class takes, found in constructors along its base classes."""

import inspect
from typing import Any, Protocol

import torch

from distcls.recipe.signature import REQUIRED, keys_of_class
from tests.recipe.parts import GlobalAveragePooling, ResNet, ResNet_CIFAR, Timm


def names(cls: type, *given: str) -> tuple[list[str], bool]:
    keys = keys_of_class(cls, given)
    return list(keys.named), keys.open


def test_defaults_and_descriptions_come_from_signature_and_docstring() -> None:
    keys = keys_of_class(ResNet).named
    assert keys["depth"].default is REQUIRED
    assert keys["depth"].description == "number of layers with weights, shortcuts not counted."
    assert keys["out_indices"].default == (3,)
    assert keys["out_indices"].description == "stages whose output is returned."
    assert keys["num_stages"].description == ""


def test_kwargs_go_on_along_the_base_classes() -> None:
    assert names(ResNet_CIFAR) == (
        ["depth", "deep_stem", "num_stages", "out_indices", "norm_cfg", "act", "init_cfg"],
        False,
    )
    assert keys_of_class(ResNet_CIFAR).named["deep_stem"].annotation is Any


def test_kwargs_that_no_base_ends_accept_every_key() -> None:
    assert names(Timm) == (["name"], True)


def test_a_class_without_constructor_takes_nothing() -> None:
    assert names(GlobalAveragePooling) == ([], False)


def test_a_torch_module_takes_nothing_of_its_own() -> None:
    class Neck(torch.nn.Module):
        pass

    class Wrapper(torch.nn.Module):
        def __init__(self, **kwargs: Any) -> None: ...

    assert names(Neck) == ([], False)
    assert names(Wrapper) == ([], True)


def test_what_a_class_hands_to_its_base_is_no_key() -> None:
    class Deep(ResNet):
        def __init__(self, depth=50, **kwargs) -> None:
            super().__init__(depth=depth, num_stages=2, **kwargs)

    assert names(Deep) == (["depth", "out_indices", "norm_cfg", "act", "init_cfg"], False)


def test_star_args_and_what_the_builder_gives_are_no_keys() -> None:
    class Optimizer:
        def __init__(self, params, *args, lr: float = 1.0) -> None: ...

    assert names(Optimizer, "params") == (["lr"], False)


def test_an_annotation_that_cannot_be_read_accepts_anything() -> None:
    class Head:
        def __init__(self, x: "Nowhere", y: int = 0) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert keys_of_class(Head).named["x"].annotation is Any


def test_a_protocol_among_the_bases_opens_nothing() -> None:
    class Named(Protocol):
        name: str

    class Head(Named):
        def __init__(self, x: int = 0) -> None: ...

    class Plain(Named):
        pass

    assert names(Head) == (["x"], False)
    assert names(Plain) == ([], False)


def test_a_docstring_line_for_two_arguments_describes_both() -> None:
    class Schedule:
        """Steps.

        Args:
            warmup_epochs, warmup_steps: how long: at most one.
            gamma (float): the factor.
        """

        def __init__(self, warmup_epochs=0, warmup_steps=0, gamma=1) -> None: ...

    keys = keys_of_class(Schedule).named
    assert [keys[name].description for name in inspect.signature(Schedule).parameters] == [
        "how long: at most one.",
        "how long: at most one.",
        "the factor.",
    ]
