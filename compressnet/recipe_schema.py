"""The JSON schema of recipes, for editors: made from the signatures of what is registered."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from compressnet import registry, signature
from compressnet.bounds import Seed
from compressnet.recipe import Eval, Train


def schema() -> dict[str, Any]:
    """The schema of a recipe file (JSON Schema 2020-12)."""
    text = {"type": "string"}
    smoke = {"type": "object", "description": "The overrides that make it a smoke run on built-in samples."}
    properties: dict[str, Any] = {
        "version": {"const": 1},
        "task": _component("task"),
        "model": _component("model"),
        "data": _component("data"),
        "train": {"$ref": "#/$defs/Train"},
        "eval": {"$ref": "#/$defs/Eval"},
        "seed": {**TypeAdapter(Seed).json_schema(), "default": 0},
        "init": {**text, "description": "A run or weights to start from: fine-tuning, second stages."},
        "init_skip": {
            "type": "array",
            "items": text,
            "description": "Modules that start fresh nevertheless.",
        },
        "init_only": {
            "type": "array",
            "items": text,
            "description": "The modules that alone start from it, which may be weights of another model.",
        },
        "smoke": smoke,
    }
    definitions: dict[str, Any] = {}
    for model in (Train, Eval):
        own = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= own.pop("$defs", {})
        definitions[model.__name__] = own
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "compressnet recipe",
        "type": "object",
        "properties": properties,
        "required": ["version", "task", "model", "data", "train"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def schema_text() -> str:
    """`recipes/schema.json`."""
    return json.dumps(schema(), indent=2) + "\n"


def _component(kind: str) -> dict[str, Any]:
    """One alternative for each registered name, with the arguments of its signature."""
    alternatives = []
    for name in sorted(registry.REGISTRIES[kind]):
        properties, required = signature.json_schema(registry.find(kind, name))
        alternatives.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, **properties},
                "required": ["name", *required],
                "additionalProperties": False,
            }
        )
    return {"oneOf": alternatives}
