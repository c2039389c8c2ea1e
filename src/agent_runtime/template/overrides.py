"""Override keys of a template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent_runtime.errors import Problem, TemplateError
from agent_runtime.template.loader import template_problems
from agent_runtime.template.skills import Skill, read_skills
from agent_runtime.template.spec import AgentTemplate


def apply_overrides(template: AgentTemplate, overrides: Mapping[str, Any]) -> AgentTemplate:
    """Return the template with keys of its spec replaced or deepened; raises TemplateError."""
    content = template.model_dump(by_alias=True, exclude_unset=True)
    content["spec"] = _deep_merge(content["spec"], overrides)
    try:
        changed = AgentTemplate.model_validate(content)
    except ValidationError as error:
        raise TemplateError(template_problems(error)) from None
    changed._agents = template.agents
    changed._folder = template.folder
    changed._locate = template._locate
    changed._files = template.files
    changed._variables = template.variables
    changed._skills = template.skills
    if changed.spec.skills != template.spec.skills:
        changed._skills = _load_skills(changed)
    return changed


def _load_skills(template: AgentTemplate) -> tuple[Skill, ...]:
    root = (template.folder or Path.cwd()).resolve()
    skills_by_name: dict[str, Skill] = {}
    for index, name in enumerate(template.spec.skills):
        folder = root / name
        if not (folder.resolve().is_relative_to(root) and folder.is_dir()):
            raise TemplateError(
                [
                    Problem(
                        f"there is no folder '{name}' beside the template", f"spec.skills.{index}"
                    )
                ]
            )
        skills, problems = read_skills(folder, root)
        if problems:
            raise TemplateError([Problem(problem, f"spec.skills.{index}") for problem in problems])
        skills_by_name.update({skill.name: skill for skill in skills})
    return tuple(skills_by_name.values())


def _deep_merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        both_are_maps = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _deep_merge(merged[key], value) if both_are_maps else value
    return merged
