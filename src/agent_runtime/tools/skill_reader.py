"""The tool that reads a skill in full, when the agent needs it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Annotated

from langchain_core.tools import BaseTool, ToolException

from agent_runtime.bounded_file import read_bounded
from agent_runtime.template.skills import MAX_FILE_BYTES, Skill
from agent_runtime.tools.function_tool import structured_tool


def skill_reader(skills: Sequence[Skill]) -> BaseTool:
    """Create the tool `read_skill` for these skills; it reads nothing outside their folders."""
    folders = {skill.name: skill.folder for skill in skills}

    def read_skill(
        name: Annotated[str, "The skill."],
        path: Annotated[str, "A file of its folder."] = "SKILL.md",
    ) -> str:
        if name not in folders:
            raise ToolException(f"there is no skill '{name}'; there are: {', '.join(folders)}")
        folder = folders[name].resolve()
        try:
            file = (folder / path).resolve()
            data = (
                read_bounded(file, MAX_FILE_BYTES)
                if file.is_relative_to(folder) and file.is_file()
                else None
            )
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # a null byte, a name too long, links in a circle
            if isinstance(error, OSError) and error.errno == errno.EFBIG:
                raise ToolException(f"'{path}' is larger than {MAX_FILE_BYTES} bytes") from None
            data = None
        if data is None:
            file_names = sorted(
                str(skill_file.relative_to(folder))
                for skill_file in folder.rglob("*")
                if skill_file.is_file()
            )
            raise ToolException(
                f"the skill '{name}' has no file '{path[:200]}'; it has: "
                f"{', '.join(file_names[:50])}"
            )
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ToolException(f"'{path}' is not text") from None

    return structured_tool(
        func=read_skill,
        name="read_skill",
        description="Read a skill's instructions, or another file of its folder, before a task "
        "that the skill covers.",
        handle_tool_error=True,
    )
