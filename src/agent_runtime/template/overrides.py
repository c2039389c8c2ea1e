"""A template with some of its keys said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agent_runtime.errors import TemplateError
from agent_runtime.template.loader import template_problems
from agent_runtime.template.spec import AgentTemplate


def overridden(template: AgentTemplate, overrides: Mapping[str, Any]) -> AgentTemplate:
    """The template with keys of its spec replaced or deepened; raises TemplateError for what does not fit."""
    content = template.model_dump(by_alias=True, exclude_unset=True)
    content["spec"] = _deepened(content["spec"], overrides)
    try:
        changed = AgentTemplate.model_validate(content)
    except ValidationError as error:
        raise TemplateError(template_problems(error)) from None
    changed._agents, changed._folder, changed._place = template.agents, template.folder, template._place
    changed._skills, changed._files = template.skills, template.files
    return changed


def _deepened(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _deepened(merged[key], value) if nested else value
    return merged
