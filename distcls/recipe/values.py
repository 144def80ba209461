"""Checks one value of a recipe against one annotation, with pydantic but with our own messages."""

import contextlib
import json
import math
from collections.abc import Iterable
from typing import Any

import pydantic
import pydantic_core
from pydantic.json_schema import GenerateJsonSchema

from distcls.recipe.errors import KeyPath
from distcls.recipe.foreign_names import choice_meant
from distcls.registry import did_you_mean

_NOUNS = {
    "integer": ("a whole number", "whole numbers"),
    "number": ("a number", "numbers"),
    "string": ("a text", "texts"),
    "boolean": ("true or false", "true or false"),
    "object": ("a mapping", "mappings"),
    "array": ("a list", "lists"),
    "null": ("null", "null"),
}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
_RANGE_ERRORS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"}
_YAML_1_1 = {"yes": True, "on": True, "no": False, "off": False, "none": None}


class _Schema(GenerateJsonSchema):
    """JSON schema of any annotation; nothing satisfies that of a type that JSON cannot express (a class, a tensor)."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {"not": {}}


def adapter(annotation: Any) -> pydantic.TypeAdapter:
    """A strict validator: "0.1" is no number and true is not 1. It reads JSON, where a list may stand for a tuple."""
    config = pydantic.ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        return pydantic.TypeAdapter(annotation, config=config)
    except pydantic.PydanticUserError:  # pydantic does not know this annotation: accept any value
        return pydantic.TypeAdapter(Any)


def value_schema(annotation: Any) -> dict[str, Any]:
    """The JSON schema of an annotation."""
    return adapter(annotation).json_schema(ref_template="#/definitions/{model}", schema_generator=_Schema)


def convert(annotation: Any, value: Any) -> tuple[Any, list[tuple[KeyPath, str]]]:
    """Convert `value` to its annotation (a list to a tuple, an int to a float), and find its mistakes.

    Returns:
        The converted value; and for each mistake its key path below the value, and the text.
    """
    try:
        return adapter(annotation).validate_json(json.dumps(value)), []
    except pydantic.ValidationError as error:
        return value, _mistakes(annotation, value, error)


def plain(annotation: Any, value: Any) -> Any:
    """`value` as JSON-able lists, mappings and scalars; an int becomes a float if so annotated.

    Raises:
        pydantic_core.PydanticSerializationError: `value` contains something that JSON cannot express.
    """
    jsonable = pydantic_core.to_jsonable_python(value)
    return pydantic_core.to_jsonable_python(convert(annotation, jsonable)[0])


def _mistakes(annotation: Any, value: Any, error: pydantic.ValidationError) -> list[tuple[KeyPath, str]]:
    found: dict[KeyPath, list[Any]] = {}
    for one in error.errors(include_url=False):
        found.setdefault(_path_in(value, one["loc"]), []).append(one)
    # A union reports errors for each member; the member that was meant is the one whose errors are deepest.
    deepest = [path for path in found if not any(path == other[: len(path)] != other for other in found)]
    whole = value_schema(annotation)
    mistakes = []
    for path in deepest:
        part, schema, above = value, whole, whole
        for step in path:
            above = _resolve(schema, whole)
            part, schema = part[step], _below(above, step)
        if any(error["type"] == "extra_forbidden" for error in found[path]):
            known = list(above.get("properties", ()))
            hint = did_you_mean(str(path[-1]), known)
            mistakes.append((path, f"unknown key: expected {either(known)}.{hint}".removesuffix(".")))
            continue
        hint = _suggest(annotation, value, path, schema, whole)
        text = f"{_what(found[path])}: got {show(part)}, expected {describe(schema, whole)}.{hint}"
        mistakes.append((path, text.removesuffix(".")))
    return mistakes


def _path_in(value: Any, loc: tuple[int | str, ...]) -> KeyPath:
    """pydantic's location without the names of union members in it."""
    path: list[int | str] = []
    for step in loc:
        inside: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if step in inside:
            path.append(step)
            value = value[step]
    return tuple(path)


def _what(errors: list[Any]) -> str:
    types = {error["type"] for error in errors}
    if types & {"value_error", "assertion_error"}:
        reason = next(error["ctx"]["error"] for error in errors if "error" in error.get("ctx", {}))
        return f"refused: {str(reason).removesuffix('.')}"
    if types & _RANGE_ERRORS:
        return "out of range"
    if "finite_number" in types:
        return "not finite"
    if any(type.endswith(("too_short", "too_long")) for type in types) or "missing" in types:  # the rest of a tuple
        return "wrong length"
    if types & {"literal_error", "enum"}:
        return "unknown choice"
    wrong_type = all(type.endswith(("_type", "_of", "_parsing", "from_float")) for type in types)
    return "wrong type" if wrong_type else "wrong value"


def _resolve(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").removeprefix("#/definitions/")
    return whole["$defs"][name] if name else schema


def _below(schema: dict[str, Any], step: int | str) -> dict[str, Any]:
    """The schema of one item of a list or mapping; of a union, of its first member that has items."""
    for one in schema.get("anyOf", [schema]):
        if isinstance(step, int) and step < len(one.get("prefixItems", ())):
            return one["prefixItems"][step]
        inner = one.get("items" if isinstance(step, int) else "additionalProperties")
        if isinstance(inner, dict):
            return inner
    return {}


def describe(schema: dict[str, Any], whole: dict[str, Any] | None = None) -> str:
    """A JSON schema in words: ``a whole number > 0 or null``."""
    whole = whole or schema
    schema = _resolve(schema, whole)
    if choices := _choices(schema):
        return either(map(_bare, choices))
    if "anyOf" in schema:
        members = [describe(one, whole) for one in schema["anyOf"]]
        wider = {one for one in members if one.startswith("a number")}
        return either(one for one in members if one.replace("a whole number", "a number") not in wider or one in wider)
    bounds = " and ".join(f"{sign} {_plain(schema[key])}" for key, sign in _BOUNDS.items() if key in schema)
    if "multipleOf" in schema:
        bounds += f" in multiples of {schema['multipleOf']:g}"
    if schema.get("type") == "array":
        return _describe_list(schema)
    if schema == {"not": {}}:
        return "an object that only Python code can make"
    if schema.get("format") == "path":
        return "a path"
    noun = _NOUNS[schema["type"]][0] if schema.get("type") in _NOUNS else "another value"
    return f"{noun} {bounds}".strip()


def _plain(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _describe_list(schema: dict[str, Any]) -> str:
    fewest, most = schema.get("minItems"), schema.get("maxItems")
    count = f"{fewest} " if fewest == most and fewest else ""
    least = f", at least {fewest}" if fewest and not count else ""
    items = schema.get("prefixItems") or [schema.get("items") or {}]
    kinds = {_NOUNS[one["type"]][1] if one.get("type") in _NOUNS and not _choices(one) else "" for one in items}
    noun = kinds.pop() if len(kinds) == 1 else ""
    if not noun and (choices := _choices(items[0])):
        return f"a list of {count}from {either(map(_bare, choices))}{least}"
    return f"a list of {count}{noun or 'items'}{least}" if noun or count or least else "a list"


def _choices(schema: dict[str, Any]) -> list[Any]:
    return schema.get("enum") or ([schema["const"]] if "const" in schema else [])


def _bare(choice: Any) -> str:
    return choice if isinstance(choice, str) and choice else show(choice)


def _suggest(annotation: Any, value: Any, path: KeyPath, schema: dict[str, Any], whole: dict[str, Any]) -> str:
    """`` Did you mean 1000?`` if a similar value of the right type would be accepted."""
    part = value
    for step in path:
        part = part[step]
    if isinstance(part, str):
        members = _resolve(schema, whole).get("anyOf", [schema])
        choices = [choice for one in members for choice in _choices(one) if isinstance(choice, str)]
        if near := choice_meant(part, choices):
            return f" Did you mean {near!r}?"
    for candidate in _neighbours(part):
        try:
            adapter(annotation).validate_json(json.dumps(_replaced(value, path, candidate)))
        except pydantic.ValidationError:
            continue
        return f" Did you mean {show(candidate)}?"
    return ""


def _neighbours(value: Any) -> Iterable[Any]:
    """The same value as other types."""
    if isinstance(value, str):
        if value.lower() in _YAML_1_1:
            yield _YAML_1_1[value.lower()]
        with contextlib.suppress(ValueError):
            yield json.loads(value.replace("_", ""))
        with contextlib.suppress(ValueError):
            yield json.loads(f"[{value.strip('()').rstrip(', ')}]")  # (1, 5) as Python writes it
        with contextlib.suppress(ValueError):
            yield json.loads(value.replace(",", "."))  # 0,1 with a decimal comma
    elif isinstance(value, float) and math.isfinite(value) and value == int(value):
        yield int(value)
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, int | float):
        yield str(value)
    if isinstance(value, str | int | float):
        yield [value]


def _replaced(value: Any, path: KeyPath, part: Any) -> Any:
    if not path:
        return part
    step, *rest = path
    if isinstance(value, list):
        return [_replaced(one, tuple(rest), part) if i == step else one for i, one in enumerate(value)]
    return {key: _replaced(one, tuple(rest), part) if key == step else one for key, one in value.items()}


def show(value: Any) -> str:
    """A value as written in a recipe, shortened to a readable length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, list):
        items = f"[{', '.join(map(show, value))}]"
        return items if len(items) <= 60 else f"a list of {len(value)} items"
    return "a mapping" if isinstance(value, dict) else repr(value)


def either(words: Iterable[str]) -> str:
    """``a, b or c``, each once; nothing where there are none."""
    unique = list(dict.fromkeys(words))
    return " or ".join(filter(None, [", ".join(unique[:-1]), *unique[-1:]]))
