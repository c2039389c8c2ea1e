"""Allow the classes of an agent's structured answers in its sessions."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langgraph.pregel import Pregel
from pydantic import BaseModel

from agent_runtime.checkpoints.checkpointer import Checkpointer
from agent_runtime.orchestration.answer_bounds import is_model_node


def allow_answer_types(agent: Any) -> None:
    """Let the checkpointer of a graph store the types of its agents' `response_format`.

    `create_agent` puts the object into the state, and names its class nowhere else. A type that a
    middleware requests in a call is not visible here: it needs `allowed_types`.
    """
    saver = getattr(agent, "checkpointer", None)
    if not isinstance(agent, Pregel) or not isinstance(saver, Checkpointer):
        return
    graphs = [agent, *(graph for _, graph in agent.get_subgraphs(recurse=True))]
    classes = {
        answer_class
        for graph in graphs
        for schema in _response_schemas(graph)
        for answer_class in _nested_classes(schema, set())
    }
    if classes:
        saver.allow(classes)


def _response_schemas(graph: Any) -> Iterator[Any]:
    for node in getattr(graph, "nodes", {}).values():
        function = getattr(node.bound, "func", None)
        if function is not None and is_model_node(function):
            for cell in function.__closure__ or ():
                if isinstance(cell.cell_contents, ToolStrategy | ProviderStrategy | AutoStrategy):
                    yield cell.cell_contents.schema


def _nested_classes(annotation: Any, visited: set[Any]) -> Iterator[type]:
    """Yield the classes in a type, and in the fields of those: models, dataclasses, enums."""
    for type_argument in typing.get_args(annotation):
        yield from _nested_classes(type_argument, visited)
    if not isinstance(annotation, type) or annotation in visited:
        return
    visited.add(annotation)
    if issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _nested_classes(field.annotation, visited)
    elif dataclasses.is_dataclass(annotation):
        yield annotation
        for hint in typing.get_type_hints(annotation).values():
            yield from _nested_classes(hint, visited)
    elif issubclass(annotation, Enum):
        yield annotation
