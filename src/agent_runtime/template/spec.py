"""The template's data model: the one source of the published JSON Schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from agent_runtime.errors import Problem
from agent_runtime.template.duration import Duration
from agent_runtime.template.json_schema import (
    external_refs,
    has_refs,
    schema_problems,
    undeclared_required,
)
from agent_runtime.template.parts_spec import (
    AnyModel,
    AnyTool,
    FileRef,
    InterruptSpec,
    MiddlewareSpec,
    ModelSpec,
    SubagentSpec,
    ToolSpec,
)
from agent_runtime.template.prompt import placeholders, strings_in
from agent_runtime.template.runtime_spec import RuntimeSpec, StrictModel
from agent_runtime.template.skills import Skill
from agent_runtime.template.yaml_reader import Mark

API_VERSION = "agent-runtime/v1"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"


def is_path(name_or_path: str | Path) -> bool:
    """Return whether a template is named by its file."""
    name = str(name_or_path)
    return isinstance(name_or_path, Path) or "/" in name or name.endswith((".yaml", ".yml"))


class Metadata(StrictModel):
    """Identify and describe the template."""

    name: Annotated[
        str,
        Field(
            pattern=NAME_PATTERN,
            max_length=64,
            description="Letters, digits, '_', '-' and single '.'.",
        ),
    ]
    version: str = "0.1.0"
    description: str = ""
    labels: dict[str, str] = {}
    owner: str = ""


class ResponseFormat(StrictModel):
    """The answer's JSON Schema: inline, or a `.json` or `.yaml` file beside the template."""

    schema_: Annotated[dict[str, Any] | str, Field(alias="schema")]


class SessionsSpec(StrictModel):
    """Configure the agent's sessions, which the application's session manager stores."""

    ttl: Annotated[
        Duration | None, Field(description="Time after the last use at which a session expires.")
    ] = None
    multitask_strategy: Literal["enqueue", "reject"] = "enqueue"


class Spec(StrictModel):
    """The agent: either a model with its tools and prompt, or a registered `workflow`."""

    model: AnyModel = None
    system_prompt: str | FileRef | None = None
    tools: list[AnyTool] = []
    subagents: Annotated[list[SubagentSpec], Field(description="Agents for whole tasks.")] = []
    skills: Annotated[
        list[str], Field(description="Folders of skills (each a folder with a SKILL.md).")
    ] = []
    response_format: ResponseFormat | None = None
    middleware: list[MiddlewareSpec] = []
    interrupt_on: Annotated[
        dict[str, bool | InterruptSpec],
        Field(description="Tools whose calls wait for a person's decision."),
    ] = {}
    memory: Annotated[str | None, Field(description="A registered store for long-term memory.")] = (
        None
    )
    sessions: SessionsSpec = SessionsSpec()
    workflow: str | None = None
    runtime: RuntimeSpec = RuntimeSpec()

    def all_tools(self) -> list[ToolSpec]:
        """Return the agent's own tools, and those of its sub-agents."""
        return [
            *self.tools,
            *(tool for subagent in self.subagents for tool in subagent.tools or ()),
        ]

    def all_models(self) -> list[ModelSpec]:
        """Return the agent's own model, and those of its sub-agents."""
        return [
            model
            for model in (self.model, *(subagent.model for subagent in self.subagents))
            if model is not None
        ]


class AgentTemplate(StrictModel):
    """An agent, declared. Made by `load_template`, or directly from Python data.

    `digest` identifies the resolved content: prompts, schemas and nested agents included, secrets
    by reference.
    """

    api_version: Annotated[Literal["agent-runtime/v1"], Field(alias="apiVersion")]
    kind: Literal["AgentTemplate"]
    metadata: Metadata
    extends: list[str] = []
    include: list[str] = []
    inputs: Annotated[
        dict[str, Any], Field(description="JSON Schema of the template's parameters.")
    ] = {}
    spec: Spec

    _agents: dict[str, AgentTemplate] = PrivateAttr(default_factory=dict)
    _skills: tuple[Skill, ...] = PrivateAttr(default=())
    _files: tuple[Path, ...] = PrivateAttr(default=())
    _variables: tuple[str, ...] = PrivateAttr(default=())
    _folder: Path | None = PrivateAttr(default=None)
    _locate: Callable[[str], Mark] | None = PrivateAttr(default=None)

    @property
    def agents(self) -> dict[str, AgentTemplate]:
        """Return the templates of the `agent:` tools that are named by path."""
        return self._agents

    @property
    def skills(self) -> tuple[Skill, ...]:
        """Return the skills in the folders of `spec.skills`."""
        return self._skills

    @property
    def files(self) -> tuple[Path, ...]:
        """Return every file and skill folder that the template was read from."""
        return self._files

    @property
    def variables(self) -> tuple[str, ...]:
        """Return the environment variables in the template."""
        return self._variables

    @property
    def folder(self) -> Path | None:
        """Return the folder of the template's file, the base of its relative paths."""
        return self._folder

    def problem(self, path: str, message: str, code: str = "template_invalid") -> Problem:
        """Return a problem of the value at `path` (`spec.tools.0.use`), with its location."""
        mark = Mark("<template>") if self._locate is None else self._locate(path)
        return mark.problem(message, path, code)

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the resolved template, in hex."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"extends", "include"})
        for tool in content["spec"]["tools"]:
            if tool["agent"] in self._agents:
                tool["agent"] = self._agents[tool["agent"]].digest
        if self._skills:
            content["skills"] = [skill.digest for skill in self._skills]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def identity(self) -> tuple[str, Path | None]:
        """Digest and folder.

        A default path is meant from there, and two folders may hold the same text.
        """
        return (self.digest, self._folder)

    @property
    def input_names(self) -> set[str]:
        """Return the names of the declared inputs."""
        properties = self.inputs.get("properties")
        return set(properties) if isinstance(properties, dict) else set()

    def used_inputs(self) -> set[str]:
        """Return the inputs that the prompt or a tool argument uses."""
        return {name for _, text in self._texts_with_path() for name in placeholders(text)[0]}

    def _texts_with_path(self) -> list[tuple[str, str]]:
        prompt = self.spec.system_prompt
        texts = [("spec.system_prompt", prompt)] if isinstance(prompt, str) else []
        for index, tool in enumerate(self.spec.tools):
            texts += [(f"spec.tools.{index}.args", text) for text in strings_in(tool.args)]
        for n, subagent in enumerate(self.spec.subagents):
            for index, tool in enumerate(subagent.tools or ()):
                texts += [
                    (f"spec.subagents.{n}.tools.{index}.args", text)
                    for text in strings_in(tool.args)
                ]
        return texts

    @model_validator(mode="after")
    def _check_consistency(self) -> AgentTemplate:
        problems = [*self._text_problems(), *_spec_problems(self.spec)]
        if self.inputs:
            problems += schema_problems(self.inputs, "inputs")
            problems += [
                (
                    "inputs.required",
                    f"'{name}' is required and no input: declare it under properties",
                )
                for name in undeclared_required(self.inputs)
            ]
            if has_refs(self.inputs):  # the validator would go and fetch it
                problems.append(
                    ("inputs", "'$ref' is not supported in inputs: write the schema out")
                )
        if self.spec.response_format is not None and isinstance(
            self.spec.response_format.schema_, dict
        ):
            schema = self.spec.response_format.schema_
            problems += schema_problems(schema, "spec.response_format.schema")
            problems += [
                (
                    "spec.response_format.schema",
                    f"'{reference}' points out of the schema: write it below $defs",
                )
                for reference in external_refs(schema)
            ]
        if problems:
            text = "; ".join(f"{path}: {message}" for path, message in problems)
            raise PydanticCustomError("template", "{text}", {"text": text, "found": problems})
        return self

    def _text_problems(self) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        for n, subagent in enumerate(self.spec.subagents):
            if placeholders(subagent.system_prompt) != (set(), []):
                problems.append(
                    (
                        f"spec.subagents.{n}.system_prompt",
                        "inputs are not filled in here: say it in the task",
                    )
                )
        for path, text in self._texts_with_path():
            names, messages = placeholders(text)
            problems += [(path, message) for message in messages]
            problems += [
                (path, f"input '{n}' is used but not declared under inputs")
                for n in sorted(names - self.input_names)
            ]
        return problems


def _spec_problems(spec: Spec) -> list[tuple[str, str]]:
    if spec.workflow is None:
        problems = [] if spec.model is not None else [("spec", "give a model, or a workflow")]
        names = [subagent.name for subagent in spec.subagents]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        return problems + [
            ("spec.subagents", f"two sub-agents are called '{name}'") for name in duplicates
        ]
    conflicting_keys = [
        n for n in ("model", "system_prompt", "response_format") if getattr(spec, n) is not None
    ]
    conflicting_keys += [
        n
        for n in ("tools", "middleware", "interrupt_on", "memory", "subagents", "skills")
        if getattr(spec, n)
    ]
    return [
        (f"spec.{n}", f"'{n}' has no meaning beside 'workflow', which is a whole agent")
        for n in conflicting_keys
    ]
