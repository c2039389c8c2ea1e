"""One part of an operator's YAML file, checked whole: `pool:`, `batch:`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent_runtime.bounded_file import read_bounded
from agent_runtime.errors import ConfigurationError, close_matches
from agent_runtime.template.document import to_python
from agent_runtime.template.yaml_reader import MAX_BYTES, read_yaml

M = TypeVar("M", bound=BaseModel)


def parse_section(model: type[M], content: Any, name: str) -> M:
    """Parse `content` as a `model`; raises ConfigurationError with all problems by their paths."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = []
        for details in error.errors(include_input=False):
            path = ".".join(str(step) for step in (name, *details["loc"]))
            message = details["msg"].removeprefix("Value error, ")
            if details["type"] == "extra_forbidden":
                field_names = model.model_fields if len(details["loc"]) == 1 else ()
                message = (
                    f"unknown key: {close_matches(str(details['loc'][-1]), field_names)}"
                    if field_names
                    else "unknown key"
                )
            problems.append(f"{path}: {message}")
        raise ConfigurationError("\n".join(problems)) from None


def read_section(model: type[M], path: str | Path, name: str) -> M:
    """Read the map `name` of a YAML file.

    Raises ConfigurationError, TemplateError for invalid YAML, OSError.
    """
    content = to_python(read_yaml(read_bounded(path, MAX_BYTES), str(path)))
    if not isinstance(content, dict) or not isinstance(content.get(name), dict):
        raise ConfigurationError(f"{path}: there is no '{name}:' map in it")
    return parse_section(model, content[name], name)
