"""Skills.

Folders with a SKILL.md, in the format of the Agent Skills specification, as deepagents reads them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.bounded_file import read_bounded
from agent_runtime.errors import TemplateError
from agent_runtime.size_limits import size_limit
from agent_runtime.template.yaml_reader import read_yaml

MAX_FILE_BYTES = size_limit("skill_bytes")
_FRONT_MATTER = re.compile(rb"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_FRONT_MATTER_CACHE: dict[str, tuple[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Skill:
    """Describe one skill.

    `name` and `description` for the model, `folder`, `digest` of its SKILL.md.
    """

    name: str
    description: str
    folder: Path
    digest: str


def read_skills(source: Path, root: Path) -> tuple[list[Skill], list[str]]:
    """Return the skills in a folder of skill folders, and problems, reading only inside `root`."""
    skills = []
    problems = []
    for file in _skill_files(source):
        try:
            if not file.resolve().is_relative_to(root.resolve()):
                raise ValueError("a link leads out of the template's folder")
            skills.append(_read_skill(file))
        except (OSError, ValueError, RuntimeError, TemplateError) as error:
            problems.append(f"{file.parent.name}/SKILL.md: {error}")
    if not skills and not problems:
        problems.append(f"there is no skill in '{source.name}': each is a folder with a SKILL.md")
    return skills, problems


def skills_section(skills: Sequence[Skill]) -> str:
    """Return the skills' section of the system prompt: names and descriptions only."""
    if not skills:
        return ""
    lines = "\n".join(f"- {skill.name}: {skill.description}" for skill in skills)
    return (
        "\n\n## Skills\n\nThese are instructions for special kinds of work. When a task is of "
        "such a kind, read the "
        f"skill with `read_skill` first, and follow it.\n\n{lines}"
    )


def with_skills(prompt: str, skills: Sequence[Skill]) -> str:
    """Return the system prompt with the skills' names and descriptions.

    The rest of a skill is read on demand.
    """
    if not skills:
        return prompt
    lines = "\n".join(f"- {skill.name}: {skill.description}" for skill in skills)
    section = (
        "## Skills\n\nThese are instructions for special kinds of work. When a task is of such a "
        "kind, read the "
        f"skill with `read_skill` first, and follow it.\n\n{lines}"
    )
    return f"{prompt}\n\n{section}" if prompt else section


def _skill_files(source: Path) -> Iterator[Path]:
    for folder in sorted(source.iterdir()):
        if (file := folder / "SKILL.md").is_file():
            yield file


def _read_skill(file: Path) -> Skill:
    data = read_bounded(file, MAX_FILE_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    key = f"{file.parent.name}:{digest}"
    if key not in _FRONT_MATTER_CACHE:  # parsed once for each content
        if len(_FRONT_MATTER_CACHE) > 1_000:
            _FRONT_MATTER_CACHE.clear()
        _FRONT_MATTER_CACHE[key] = _parse_front_matter(data, file.parent.name)
    name, description = _FRONT_MATTER_CACHE[key]
    return Skill(name, description, file.parent.resolve(), digest)


def _parse_front_matter(data: bytes, folder: str) -> tuple[str, str]:
    match = _FRONT_MATTER.match(data)
    if match is None:
        raise ValueError("it begins with '---', name and description, '---'")
    node = read_yaml(match[1], "SKILL.md")
    fields = (
        {key: field_node.value for key, field_node in node.value.items()}
        if node.kind == "map"
        else {}
    )
    name = fields.get("name")
    description = fields.get("description")
    if not isinstance(name, str) or not _NAME.match(name) or len(name) > 64:
        raise ValueError("a name has at most 64 lowercase letters, digits and single hyphens")
    if name != folder:
        raise ValueError(f"the name '{name}' is not that of its folder")
    if not isinstance(description, str) or not 0 < len(description.strip()) <= 1024:
        raise ValueError("a description has 1 to 1024 characters")
    return name, " ".join(description.split())
