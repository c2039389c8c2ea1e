"""Read a batch from one YAML file: source, agent, settings and output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from agent_runtime.batch.settings import BatchSettings
from agent_runtime.bounded_file import read_bounded
from agent_runtime.errors import ConfigurationError, TemplateError
from agent_runtime.template.config_section import parse_section
from agent_runtime.template.document import to_python
from agent_runtime.template.spec import is_path
from agent_runtime.template.yaml_reader import MAX_BYTES, read_yaml

PATH_FIELDS = ("tasks", "output", "report")


class BatchFile(BatchSettings):
    """Describe the `batch:` part of a file; paths are relative to the file's folder."""

    agent: Annotated[str, Field(description="A template's name or path.")] = ""
    model: Annotated[str | None, Field(description="Replaces the template's model.")] = None
    tasks: Annotated[
        str | list[Any] | None, Field(description="A file of tasks, or the tasks themselves.")
    ] = None
    mapping: dict[str, str] = Field(default={}, description="Maps columns to the fields of tasks.")
    output: Annotated[
        str | None, Field(description="A JSONL file for results, written as they arrive.")
    ] = None
    report: Annotated[
        str | None,
        Field(description="A file for the final report: JSON if it ends in .json, else text."),
    ] = None
    name: str = ""

    @model_validator(mode="after")
    def _has_tasks(self) -> BatchFile:
        if isinstance(self.tasks, list) and not self.tasks:
            raise ValueError("tasks: a batch has at least one task")
        return self

    def settings(self) -> BatchSettings:
        """Return the settings of the execution."""
        batch_fields = set(BatchSettings.model_fields)
        return BatchSettings.parse(
            {key: value for key, value in self.explicit_settings().items() if key in batch_fields}
        )

    @classmethod
    def read(cls, path: str | Path) -> BatchFile | None:
        """Return the batch in a YAML file, or None for one without a `batch:` map.

        The file is a list of tasks then. Raises ConfigurationError, TemplateError for invalid YAML,
        OSError.
        """
        try:
            content = to_python(read_yaml(read_bounded(path, MAX_BYTES), str(path)))
        except TemplateError as error:
            raise ConfigurationError(str(error)) from None
        if not isinstance(content, dict) or "batch" not in content:
            return None
        section = content["batch"]
        if isinstance(section, dict):
            folder = Path(path).resolve().parent
            for key in PATH_FIELDS:
                if isinstance(section.get(key), str):
                    section[key] = str(folder / section[key])
            if isinstance(section.get("agent"), str) and is_path(section["agent"]):
                section["agent"] = str(folder / section["agent"])
        return parse_section(cls, section, "batch")
