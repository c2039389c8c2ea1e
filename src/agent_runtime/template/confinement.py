"""Restrict the reach of untrusted templates to allow-lists."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from agent_runtime.errors import ConfigurationError, Problem, TemplateError
from agent_runtime.template.reach import Reach, path_reaches, reaches_of
from agent_runtime.template.spec import AgentTemplate

HARMLESS_MIDDLEWARE = (
    "context_editing", "human_in_the_loop", "llm_tool_selector", "model_call_limit",
    "model_fallback", "model_retry",
    "summarization", "todo_list", "tool_call_limit", "tool_error", "tool_retry",
)  # fmt: skip
"""LangChain's middleware that reaches nothing outside of the run."""


@dataclass(frozen=True)
class Confinement:
    """List what confined templates may reach; empty lists, the default, allow nothing.

    Args:
        commands: programs of MCP servers with all their arguments, in shell syntax: `"/usr/bin/uvx
            mcp-server-time"`.
        environment: names of variables that a template may set for such a program.
        addresses: of models (`base_url`) and MCP servers (`url`). One that ends with `/` includes
            all addresses below it.
        accounts: addresses that may receive the application's own key of a provider, as `"openai at
            https://..."`.
        variables: of the environment, for `${VAR}` and `from_env`.
        secret_files: that `from_file` may name.
        middleware: by name, beside those of LangChain that reach nothing outside of the run.
        agents: registered templates that `agent:` tools may name; their scopes are not checked
            again.
        workflows: registered ones that `workflow` may name.
        memories: registered ones that `memory` may name.
        parameters: names that `params.extra` of a model may have.
        settings: `"unknown_price: allow"`, which lets a model without a price pass a budget in USD;
            `"pipeline"`, an order of layers that may leave out one of the application; `"patterns
            in inputs"` and `"patterns in response_format"`, regular expressions and references,
            which may make a check slow; `"limits of a model"`, which apply to the account and so to
            every agent.
        roots: folders that arguments and inputs of the format `path` may lead into, beside the
            template's own, and the `cwd` of a server, which may not be the template's own.
    """

    commands: Collection[str] = ()
    environment: Collection[str] = ()
    addresses: Collection[str] = ()
    accounts: Collection[str] = ()
    variables: Collection[str] = ()
    secret_files: Collection[str] = ()
    middleware: Collection[str] = ()
    agents: Collection[str] = ()
    workflows: Collection[str] = ()
    memories: Collection[str] = ()
    parameters: Collection[str] = ()
    settings: Collection[str] = ()
    roots: Collection[str | Path] = ()

    def problems(self, template: AgentTemplate) -> list[Problem]:
        """Return a problem for each target that a template, or an agent in it, may not reach."""
        return [
            template.problem(reach.place, _refusal_message(reach), "not_confined")
            for reach in reaches_of(template)
            if not self.allows(reach, template)
        ]

    def check(self, template: AgentTemplate, values: Mapping[str, Any]) -> None:
        """Raise TemplateError for a template that reaches beyond the lists, with these inputs."""
        problems = self.problems(template)
        problems += [
            template.problem(reach.place, _refusal_message(reach), "not_confined")
            for reach in path_reaches(template, values)
            if not self.allows(reach, template)
        ]
        if problems:
            raise TemplateError(dict.fromkeys(problems))

    def allows(self, reach: Reach, template: AgentTemplate) -> bool:
        """Tell whether a template may reach this."""
        if reach.kind == "path":
            template_roots = [] if template.folder is None else [template.folder]
            return _is_inside(reach.value, [*template_roots, *self.roots])
        if reach.kind == "working folder":
            return _is_inside(reach.value, self.roots)
        if reach.kind == "command":
            return any(
                shlex.split(allowed) == shlex.split(reach.value) for allowed in self.commands
            )
        if reach.kind == "address":
            return any(_covers(allowed, reach.value) for allowed in self.addresses)
        if reach.kind == "middleware":
            return reach.value in self.middleware or reach.value in HARMLESS_MIDDLEWARE
        lists: dict[str, Collection[str]] = {
            "environment": self.environment,
            "agent": self.agents,
            "workflow": self.workflows,
            "memory": self.memories,
            "account": self.accounts,
            "variable": self.variables,
            "secret file": self.secret_files,
            "parameter": self.parameters,
            "setting": self.settings,
        }
        return reach.value in lists[reach.kind]


def _is_inside(value: str, roots: Collection[str | Path]) -> bool:
    if value.lower().startswith("file:"):
        value = unquote(urlsplit(value).path)
    try:
        resolved = Path(os.path.realpath(Path(value).expanduser()))
    except (RuntimeError, ValueError):  # the home of an unknown user; a null byte
        return False
    return any(resolved.is_relative_to(os.path.realpath(root)) for root in roots)


def _covers(allowed: str, address: str) -> bool:
    """Tell whether an address is an allowed one, or below it.

    By its parts, so that no other host has its beginning.
    """
    allowed_parts = urlsplit(allowed)
    address_parts = urlsplit(address)
    if (allowed_parts.scheme, allowed_parts.netloc) != (
        address_parts.scheme,
        address_parts.netloc,
    ) or ".." in unquote(address_parts.path).split("/"):
        return False
    if allowed.endswith("/"):
        return (
            address_parts.path.startswith(allowed_parts.path)
            or f"{address_parts.path}/" == allowed_parts.path
        )
    return allowed == address


def _refusal_message(reach: Reach) -> str:
    return (
        f"this template is confined, and reaches the {reach.kind} '{reach.value[:200]}', which "
        "the application does "
        "not list in its Confinement"
    )


def confinement_of(trust: str | Confinement) -> Confinement | None:
    """Return the confinement of templates; None for trusted ones. Raises ConfigurationError."""
    if isinstance(trust, Confinement):
        return trust
    if trust not in ("trusted", "confined"):
        raise ConfigurationError(
            f"templates are 'trusted', 'confined' or a Confinement, not {trust!r}"
        )
    return Confinement() if trust == "confined" else None


def confined_environ(confinement: Confinement | None) -> dict[str, str] | None:
    """Return the variables that confined templates may read; None for trusted ones."""
    if confinement is None:
        return None
    # Errors quote values, so unlisted ones are not even read.
    return {name: os.environ[name] for name in confinement.variables if name in os.environ}
