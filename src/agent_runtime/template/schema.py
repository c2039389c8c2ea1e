"""The published JSON Schema."""

from __future__ import annotations

import json
from typing import Any

from agent_runtime.template.spec import AgentTemplate

SCHEMA_FILE = "agent-template.v1.schema.json"


def template_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a template file, from the same models that check it."""
    schema = AgentTemplate.model_json_schema(by_alias=True)
    # What the loader understands before the models see it.
    schema["patternProperties"] = {"^x-": {}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "agent-template.v1.schema.json",
        "title": "agent_runtime AgentTemplate v1",
        **{k: v for k, v in schema.items() if k != "title"},
    }


def template_schema_text() -> str:
    """The schema as it is published, byte for byte."""
    return json.dumps(template_schema(), indent=2, ensure_ascii=False) + "\n"
