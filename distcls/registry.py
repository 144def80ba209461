"""Names in recipes -> classes: one registry per role, so that a Head cannot be asked for as a Backbone."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from distcls.errors import ArgumentError, UserError, first_line

#: The errors by which our parts, or torch layers in them, refuse arguments; any other error is a bug of ours.
REFUSALS = (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError)

Class = TypeVar("Class", bound=type)


class Registry:
    """The classes that a recipe may name for one role.

    Args:
        role: the word used in messages, e.g. ``"backbone"``.
        given: constructor arguments that the builder supplies and a recipe must not.
        found: those that the builder determines where a recipe leaves them out.
        example: the class that messages show as an example.

    The constructor signature of a registered class is its schema: annotated keyword arguments with their defaults. An
    argument that is itself a block of another role is annotated with that role's registry:
    ``loss: Annotated[dict, LOSSES]`` is one block, ``Annotated[list, LOSSES]`` a list of them.
    """

    def __init__(self, role: str, given: tuple[str, ...] = (), found: tuple[str, ...] = (), example: str = "") -> None:
        self.role = role
        self.example = example
        self.given = given
        self.found = found
        self._classes: dict[str, type] = {}

    def register(self, cls: Class) -> Class:
        """Class decorator ``@BACKBONES.register``; the recipe's ``type`` is the class name.

        Raises:
            UserError: another class has that name already.
        """
        old = self._classes.get(cls.__name__)
        if old is not None and (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UserError(
                f"{self.role} {cls.__name__!r} of {cls.__module__} is already registered by {old.__module__}: "
                "choose another class name"
            )
        self._classes[cls.__name__] = cls
        return cls

    def names(self) -> list[str]:
        return sorted(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __getitem__(self, name: str) -> type:
        """The class registered under `name`.

        Raises:
            UserError: there is none; the text suggests the nearest name.
        """
        if name not in self._classes:
            raise UserError(
                f"no {self.role} is named {name!r}.{did_you_mean(name, self._classes)} "
                f"Registered: {', '.join(self.names()) or 'none'}"
            )
        return self._classes[name]

    def build(self, block: Mapping[str, Any], **given: Any) -> Any:
        """Construct ``{type: NAME, argument: value, ...}``; `given` are the arguments that the builder supplies.

        Raises:
            UserError: no such class, or one of ours refuses its arguments. Errors of plug-ins keep their traceback.
        """
        arguments = {key: value for key, value in block.items() if key != "type"}
        cls = self[block["type"]]
        try:
            return cls(**arguments, **given)
        except ArgumentError as error:
            if error.place not in arguments:
                raise
            # Raised by a layer, which knows the argument but not the class that passed it on.
            raise ArgumentError(f"{cls.__name__}.{error.place}", error.reason) from error
        except REFUSALS as error:
            if not is_ours(cls):
                raise
            raise ArgumentError(cls.__name__, f"cannot be built like this: {first_line(error)}") from error


def is_ours(cls: type) -> bool:
    """Whether the class belongs to this package rather than to a plug-in."""
    return cls.__module__.startswith("distcls.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with a leading space, or nothing if no known word is similar."""
    near = nearest(word, known)
    return f" Did you mean {near!r}?" if near else ""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that was probably meant, ignoring case: `sgd` finds `SGD`."""
    lowered = {one.lower(): one for one in known}
    near = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=cutoff)
    return lowered[near[0]] if near else None


BACKBONES = Registry("backbone", example="ResNet")
NECKS = Registry("neck", example="GlobalAveragePooling")
HEADS = Registry("head", found=("in_channels",), example="LinearClsHead")
LOSSES = Registry("loss", example="CrossEntropyLoss")
TRANSFORMS = Registry("augmentation", example="RandomResizedCrop")
MIXES = Registry("mixing", example="Mixup")
OPTIMIZERS = Registry("optimizer", given=("model",), example="SGD")
SCHEDULES = Registry("schedule", given=("total_steps", "steps_per_epoch"), example="CosineWarmup")
TRACKERS = Registry("tracker", given=("run_folder", "run_id", "config"))
ROLES = (BACKBONES, NECKS, HEADS, LOSSES, TRANSFORMS, MIXES, OPTIMIZERS, SCHEDULES, TRACKERS)
