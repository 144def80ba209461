"""The JSON schema: what an editor completes, and that it takes whole and partial recipes."""

import json
from typing import Any

import pytest

from distcls.recipe.editor import json_schema
from tests.recipe import parts

with pytest.MonkeyPatch.context() as patch:
    parts.stand_in(patch)
    SCHEMA = json_schema()


def alternatives(role: str) -> list[dict[str, Any]]:
    return [at(one["$ref"]) if "$ref" in one else one for one in SCHEMA["definitions"][role]["oneOf"]]


def at(reference: str) -> dict[str, Any]:
    return SCHEMA["definitions"][reference.removeprefix("#/definitions/")]


def test_it_is_json_and_has_every_key_of_a_recipe() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert list(SCHEMA["properties"]) == [
        *("_base_", "name", "plugins", "output_dir", "model", "data", "optimizer", "schedule"),
        *("train", "eval", "checkpoint", "tracking", "distributed"),
    ]
    assert SCHEMA["additionalProperties"] is False


def test_every_key_of_the_fixed_parts_is_described() -> None:
    for name, part in SCHEMA["properties"].items():
        assert part["description"], name
        for key, value in part.get("properties", {}).items():
            assert value["description"], f"{name}.{key}"


def test_a_value_has_type_bounds_default_and_description() -> None:
    assert SCHEMA["properties"]["data"]["properties"]["val"]["properties"]["crop_ratio"] == {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "default": 0.875,
        "description": "Side of the centre crop, as a fraction of the shorter side of the image.",
    }


def test_a_block_is_one_of_the_registered_classes_with_its_arguments() -> None:
    resnet, cifar, timm, _ = alternatives("backbone")
    assert [one["properties"]["type"]["const"] for one in (resnet, cifar, timm)] == ["ResNet", "ResNet_CIFAR", "Timm"]
    assert resnet["description"] == "Residual network, He et al. 2015."
    assert resnet["required"] == ["type"]
    assert resnet["additionalProperties"] is False
    assert resnet["properties"]["depth"] == {
        "enum": [18, 34, 50, 101, 152],
        "type": "integer",
        "description": "number of layers with weights, shortcuts not counted.",
    }
    assert resnet["properties"]["out_indices"]["default"] == [3]
    assert "default" not in resnet["properties"]["act"]
    assert timm["additionalProperties"] is True


def test_a_block_without_type_changes_a_base() -> None:
    changes = alternatives("optimizer")[-1]
    assert changes["not"] == {"required": ["type"]}
    assert sorted(changes["properties"]) == ["betas", "lr", "momentum", "nesterov", "weight_decay"]
    assert "params" not in changes["properties"]


def test_blocks_nest_by_reference_even_in_themselves() -> None:
    head = alternatives("head")[0]
    assert head["properties"]["loss"] == {
        "allOf": [{"$ref": "#/definitions/loss"}],
        "default": {"type": "CrossEntropyLoss"},
    }
    losses = alternatives("loss")[1]["properties"]["losses"]
    assert losses == {"type": "array", "items": {"$ref": "#/definitions/loss"}}
    assert SCHEMA["properties"]["model"]["properties"]["neck"]["anyOf"] == [
        {"$ref": "#/definitions/neck"},
        {"type": "null"},
    ]


def test_every_reference_leads_somewhere() -> None:
    def references(schema: Any) -> list[str]:
        if isinstance(schema, list):
            return [one for item in schema for one in references(item)]
        if isinstance(schema, dict):
            here = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
            return here + [one for item in schema.values() for one in references(item)]
        return []

    assert references(SCHEMA)
    for reference in references(SCHEMA):
        assert at(reference)
