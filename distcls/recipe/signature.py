"""A class -> the keys that a recipe may write for it: its constructor's signature is its schema."""

import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union

import pydantic

from distcls.registry import Registry

REQUIRED: Any = object()
_TAKES_NOTHING = ("torch.nn.modules.module", "Module")  # declares (*args, **kwargs) and refuses whatever comes


@dataclass(frozen=True)
class Key:
    """One key that a mapping of the recipe accepts.

    Attributes:
        annotation: the type of its value, with ``Annotated`` extras; ``Any`` accepts everything.
        default: `REQUIRED` where the recipe must write the key.
        description: one sentence for editors, or nothing.
    """

    annotation: Any
    default: Any = REQUIRED
    description: str = ""


@dataclass(frozen=True)
class Keys:
    """What a mapping accepts: named keys, and any other one where it is `open`."""

    named: Mapping[str, Key]
    open: bool = False


def keys_of_class(cls: type, given: Sequence[str] = ()) -> Keys:
    """The keyword arguments of `cls`, without those that the builder supplies (`given`).

    ``**kwargs`` goes on along the base classes; where none of them ends it, the names cannot be known and every key is
    accepted. An unannotated argument accepts anything, and so does one whose annotation cannot be read here (a name
    that is imported for type checkers only). ``None`` as default accepts null.
    """
    named: dict[str, Key] = {}
    passes_on = False
    for owner in cls.__mro__:
        if owner is object or (owner.__module__, owner.__name__) == _TAKES_NOTHING:
            break
        if "__init__" not in vars(owner):
            continue
        init = vars(owner)["__init__"]
        parameters = list(inspect.signature(init).parameters.values())[1:]
        described, hints = _descriptions(owner), _hints(init)
        for one in parameters:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name not in (*named, *given):
                annotation = hints.get(one.name, Any)
                if one.default is None and annotation is not Any:
                    annotation = Union[annotation, None]  # noqa: UP007  (X | None does not take every Annotated)
                default = REQUIRED if one.default is one.empty else one.default
                named[one.name] = Key(annotation, default, described.get(one.name, ""))
        passes_on = any(one.kind is one.VAR_KEYWORD for one in parameters)
        if not passes_on:
            break
    return Keys(named, passes_on)


def keys_of_part(part: type[pydantic.BaseModel]) -> Keys:
    """The fields of a fixed part of the recipe."""
    hints = typing.get_type_hints(part, include_extras=True)
    return Keys(
        {
            name: Key(hints[name], REQUIRED if field.is_required() else field.get_default(), field.description or "")
            for name, field in part.model_fields.items()
        }
    )


@dataclass(frozen=True)
class Nested:
    """The blocks of another role that an argument takes: `one` of them, `many` in a list, or `null`."""

    registry: Registry | None = None
    one: bool = False
    many: bool = False
    null: bool = False

    def __or__(self, other: "Nested") -> "Nested":
        registry = self.registry or other.registry
        return Nested(registry, self.one or other.one, self.many or other.many, self.null or other.null)


def nested(annotation: Any, registry: Registry | None = None) -> Nested:
    """The registry in ``Annotated[dict, LOSSES]``, ``list[Annotated[dict, LOSSES]]``, ``Annotated[list, LOSSES]``"""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return nested(inner[0], next((extra for extra in inner[1:] if isinstance(extra, Registry)), registry))
    if origin in (Union, types.UnionType):
        found = Nested(registry)
        for one in inner:
            found |= nested(one, registry)
        return found
    if annotation is types.NoneType:
        return Nested(null=True)
    if isinstance(origin or annotation, type) and issubclass(origin or annotation, list | tuple | Sequence):
        found = nested(inner[0], registry) if inner else Nested(registry)
        return Nested(found.registry, many=found.registry is not None)
    return Nested(registry, one=registry is not None, many=registry is not None and annotation is Any)


def _hints(init: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(init, include_extras=True)
    except (NameError, AttributeError, TypeError):
        return {}


def _descriptions(cls: type) -> dict[str, str]:
    """Argument -> its sentence in the ``Args:`` section of the Google docstring of `cls` or of its constructor."""
    found: dict[str, str] = {}
    for text in (vars(cls).get("__doc__"), vars(cls)["__init__"].__doc__):
        section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", inspect.cleandoc(text or ""), re.MULTILINE)
        if section:
            for name, words in re.findall(r"^ {1,4}(\w+)[^:\n]*:((?:.*)(?:\n {5,}.*)*)", section[1], re.MULTILINE):
                found.setdefault(name, " ".join(words.split()))
    return found
