"""The JSON schema of recipes, draft 7, for VS Code's YAML extension and other editors."""

from typing import Any

import pydantic
import pydantic_core

from distcls.recipe.schema import Recipe
from distcls.recipe.signature import (
    ABSENT,
    REQUIRED,
    Key,
    Keys,
    accepts_null,
    keys_of_block,
    keys_of_part,
    nested,
    part_of,
)
from distcls.recipe.values import plain, value_schema
from distcls.registry import Registry


def json_schema() -> dict[str, Any]:
    """Completion, descriptions and defaults of every key and every registered class, in whole and partial recipes.

    No key is required, because a file with a `_base_` contains only its changes; `distcls recipe check` reports missing
    keys. A block either names a class of its role in `type`, or has no `type` and changes arguments of its base.
    """
    schema = _Schema()
    top = schema.mapping(keys_of_part(Recipe))
    bases: dict[str, Any] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "Recipes that this one changes: a path or a list, relative to this file.",
    }
    top["properties"] = {"_base_": bases, **top["properties"]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "distcls recipe",
        "description": (Recipe.__doc__ or "").splitlines()[0],
        **top,
        "definitions": dict(sorted(schema.definitions.items())),
    }


class _Schema:
    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def mapping(self, keys: Keys) -> dict[str, Any]:
        properties = {name: self.key(key) for name, key in keys.named.items()}
        return {"type": "object", "properties": properties, "additionalProperties": keys.open}

    def key(self, key: Key) -> dict[str, Any]:
        extra: dict[str, Any] = {"description": key.description} if key.description else {}
        try:
            if key.default not in (REQUIRED, ABSENT) and not isinstance(key.default, pydantic.BaseModel):
                extra["default"] = plain(key.annotation, key.default)
        except pydantic_core.PydanticSerializationError:
            pass  # a class or a function, of no use to an editor
        schema = self.value(key.annotation)
        # Draft 7 ignores all other keywords beside a $ref.
        return {"allOf": [schema], **extra} if "$ref" in schema and extra else {**schema, **extra}

    def value(self, annotation: Any) -> dict[str, Any]:
        forms: list[dict[str, Any]] = []
        if part := part_of(annotation):
            forms = [self.mapping(keys_of_part(part))]
        elif (blocks := nested(annotation)).registry:
            block = {"$ref": f"#/definitions/{self.role(blocks.registry)}"}
            forms = [block] if blocks.one else []
            forms += [{"type": "array", "items": block}] if blocks.many else []
        if forms:
            forms += [{"type": "null"}] if accepts_null(annotation) else []
            return forms[0] if len(forms) == 1 else {"anyOf": forms}
        schema = value_schema(annotation)
        self.definitions |= schema.pop("$defs", {})
        return schema

    def role(self, registry: Registry) -> str:
        """Define the blocks of a role, once; return the name of the definition."""
        if registry.role not in self.definitions:
            self.definitions[registry.role] = {}  # a role may contain itself
            classes = {name: self.block(registry, name) for name in registry.names()}
            self.definitions |= {f"{registry.role}.{name}": block for name, block in classes.items()}
            arguments = {key for block in classes.values() for key in block["properties"] if key != "type"}
            changes = {
                "title": f"changes of the base's {registry.role}",
                "type": "object",
                "not": {"required": ["type"]},
                "properties": {key: {} for key in sorted(arguments)},
                "additionalProperties": any(block["additionalProperties"] for block in classes.values()),
            }
            references: list[dict[str, Any]] = [{"$ref": f"#/definitions/{registry.role}.{name}"} for name in classes]
            self.definitions[registry.role] = {"oneOf": [*references, changes]}
        return registry.role

    def block(self, registry: Registry, name: str) -> dict[str, Any]:
        cls = registry[name]
        schema = self.mapping(keys_of_block(registry, name))
        words = (cls.__doc__ or "").strip().partition("\n\n")[0]
        schema["properties"] = {"type": {"const": name, "description": " ".join(words.split())}, **schema["properties"]}
        return {"title": name, "description": " ".join(words.split()), **schema, "required": ["type"]}
