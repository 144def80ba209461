"""The keys that a recipe may write for a class: the signature of its constructor is its schema."""

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union

import pydantic

from distcls.registry import Registry

REQUIRED: Any = object()
ABSENT: Any = object()
_TAKES_NOTHING = ("torch.nn.modules.module", "Module")  # declares (*args, **kwargs) but refuses any


@dataclass(frozen=True)
class Key:
    """One key that a mapping of the recipe accepts.

    Attributes:
        annotation: the type of its value, with ``Annotated`` extras; ``Any`` accepts everything.
        default: `REQUIRED` if the recipe must write the key, `ABSENT` if it need not and there is no default.
        description: one sentence for editors, or empty.
    """

    annotation: Any
    default: Any = REQUIRED
    description: str = ""


@dataclass(frozen=True)
class Keys:
    """The keys that a mapping accepts: the named ones, and any others if it is `open`."""

    named: Mapping[str, Key]
    open: bool = False


def keys_of_block(registry: Registry, name: str) -> Keys:
    """The keys of a block ``{type: NAME, ...}`` of that role, apart from `type`."""
    keys = keys_of_class(registry[name], registry.given)
    found = {key: replace(keys.named[key], default=ABSENT) for key in registry.found if _is_required(keys, key)}
    return Keys({**keys.named, **found}, keys.open)


def none_required(keys: Keys) -> Keys:
    """The same keys, none of which is required."""
    named = {name: replace(key, default=ABSENT) if key.default is REQUIRED else key for name, key in keys.named.items()}
    return Keys(named, keys.open)


def _is_required(keys: Keys, key: str) -> bool:
    return key in keys.named and keys.named[key].default is REQUIRED


def keys_of_class(cls: type, given: Sequence[str] = ()) -> Keys:
    """The keyword arguments of `cls`, without those that the builder supplies (`given`).

    ``**kwargs`` adds the arguments of the base classes; if the last of them takes ``**kwargs`` too, every key is
    accepted. An argument that a constructor passes to its base itself (``super().__init__(deep_stem=True, **kwargs)``)
    is not a key. An argument without annotation, or with one that cannot be evaluated here (a name imported only for
    type checkers), accepts anything. With the default ``None`` it accepts null.
    """
    named: dict[str, Key] = {}
    passes_on, taken = False, set(given)
    for owner in cls.__mro__:
        if owner is object or (owner.__module__, owner.__name__) == _TAKES_NOTHING:
            break
        if "__init__" not in vars(owner) or vars(owner).get("_is_protocol"):
            continue
        init = vars(owner)["__init__"]
        parameters = list(inspect.signature(init).parameters.values())[1:]
        described, hints = _descriptions(owner), _hints(init)
        for one in parameters:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name not in taken:
                annotation = hints.get(one.name, Any)
                if one.default is None and annotation is not Any:
                    annotation = Union[annotation, None]  # noqa: UP007  (X | None does not take every Annotated)
                default = REQUIRED if one.default is one.empty else one.default
                named[one.name] = Key(annotation, default, described.get(one.name, ""))
        taken |= {one.name for one in parameters} | _handed_on(init)
        passes_on = any(one.kind is one.VAR_KEYWORD for one in parameters)
        if not passes_on:
            break
    return Keys(named, passes_on)


def keys_of_part(part: type) -> Keys:
    """The fields of a fixed part of the recipe: a pydantic model or a TypedDict."""
    hints = typing.get_type_hints(part, include_extras=True)
    if issubclass(part, pydantic.BaseModel):
        fields = part.model_fields.items()
        defaults = {name: REQUIRED if field.is_required() else field.get_default() for name, field in fields}
        return Keys({name: Key(hints[name], defaults[name], field.description or "") for name, field in fields})
    required: frozenset[str] = vars(part)["__required_keys__"]
    values = {name: typing.get_args(hint)[0] if _is_wrapped(hint) else hint for name, hint in hints.items()}
    return Keys({name: Key(hint, REQUIRED if name in required else ABSENT) for name, hint in values.items()})


def paths_of(keys: Keys, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of these keys, followed by those inside fixed parts."""
    paths = [(*above, name) for name in keys.named]
    for name, key in keys.named.items():
        if part := part_among(key.annotation):
            paths += paths_of(keys_of_part(part), (*above, name))
    return paths


def part_of(annotation: Any) -> type | None:
    """The pydantic model or TypedDict in ``Part``, ``Part | None`` or ``Annotated[Part, ...]``, if there is one."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return part_of(inner[0])
    if origin in (Union, types.UnionType):
        members = [one for one in inner if one is not types.NoneType]
        return part_of(members[0]) if len(members) == 1 else None
    is_part = isinstance(annotation, type) and (
        "__required_keys__" in vars(annotation) or (origin is None and issubclass(annotation, pydantic.BaseModel))
    )
    return annotation if is_part else None


def part_among(annotation: Any) -> type | None:
    """Like `part_of`, but also for ``int | Part``, where a scalar may take its place."""
    if typing.get_origin(annotation) is Annotated:
        return part_among(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return next(filter(None, map(part_of, typing.get_args(annotation))), None)
    return part_of(annotation)


def accepts_null(annotation: Any) -> bool:
    """Whether null is accepted: ``X | None``."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return accepts_null(inner[0])
    return annotation is types.NoneType or (origin in (Union, types.UnionType) and any(map(accepts_null, inner)))


@dataclass(frozen=True)
class Nested:
    """The blocks of another role that an argument accepts: `one`, or `many` in a list."""

    registry: Registry | None = None
    one: bool = False
    many: bool = False

    def __or__(self, other: "Nested") -> "Nested":
        registry = self.registry or other.registry
        return Nested(registry, self.one or other.one, self.many or other.many)


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
        return Nested()
    if isinstance(origin or annotation, type) and issubclass(origin or annotation, list | tuple | Sequence):
        found = nested(inner[0], registry) if inner else Nested(registry)
        return Nested(found.registry, many=found.registry is not None)
    return Nested(registry, one=registry is not None, many=registry is not None and annotation is Any)


def _is_wrapped(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Required, typing.NotRequired)


def _handed_on(init: Any) -> set[str]:
    """The keywords that a constructor passes to that of its base class itself, beside ``**kwargs``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):
        return set()  # no source, for example from a decorator: accept the key
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call) and ast.unparse(one.func).endswith(".__init__")]
    to_base = [one for one in calls if any(word.arg is None for word in one.keywords)]
    return {word.arg for call in to_base for word in call.keywords if word.arg}


def _hints(init: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(init, include_extras=True)
    except (NameError, AttributeError, TypeError):
        return {}


def _descriptions(cls: type) -> dict[str, str]:
    """Argument -> its text in the ``Args:`` section of the Google docstring of `cls` or of its constructor."""
    found: dict[str, str] = {}
    for text in (vars(cls).get("__doc__"), vars(cls)["__init__"].__doc__):
        section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", inspect.cleandoc(text or ""), re.MULTILINE)
        if section:
            for names, words in re.findall(r"^ {4}([\w, ]+)[^:\n]*:(.*(?:\n {5,}.*)*)", section[1], re.MULTILINE):
                found |= {name.strip(): " ".join(words.split()) for name in names.split(",")} | found
    return found
