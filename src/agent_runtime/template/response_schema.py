"""A JSON Schema as a class, so that LangChain checks an answer against it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic_core import core_schema

from agent_runtime.template.json_schema import Fault, SchemaCheck

MAX_FAULTS = 5
"""Faults of one answer that its model reads."""


def validating_class(schema: dict[str, Any]) -> type[BaseModel]:
    """Return a class for `response_format` that accepts values of the schema.

    LangChain sends a JSON Schema to the model and returns its answer unchecked; for a class it
    checks the answer, and a model that answers by a tool call gets the error and another attempt.
    `schema` needs a `title`: LangChain names the answer's tool after it.
    """
    members = {
        "__doc__": schema.get("description", ""),
        "__module__": __name__,
        "__get_pydantic_core_schema__": classmethod(_core_schema(schema)),
        "model_json_schema": classmethod(lambda cls, *args, **kwargs: copy.deepcopy(schema)),
    }
    return type(str(schema["title"]), (BaseModel,), members)


def _core_schema(schema: dict[str, Any]) -> Callable[..., core_schema.CoreSchema]:
    schema_check = SchemaCheck(schema)

    def check(answer: Any) -> Any:
        faults = [
            _fault_text(fault)
            for fault in itertools.islice(schema_check.faults(answer), MAX_FAULTS)
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return answer

    def build_core_schema(
        cls: type[BaseModel], source: Any, handler: Any
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(check)

    return build_core_schema


def _fault_text(fault: Fault) -> str:
    instance_path = ".".join(map(str, fault.instance_path))
    return f"{instance_path}: {fault.message}" if instance_path else fault.message
