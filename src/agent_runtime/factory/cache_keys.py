"""Compute the cache key of a built agent from everything it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError
from agent_runtime.mcp.connection_pool import CachedKeys, McpConnectionPool, McpKey
from agent_runtime.mcp.server import credential_scope
from agent_runtime.models.resolve import auto_model, secret_digest
from agent_runtime.registry import Registry
from agent_runtime.template import AgentTemplate, resolve_inputs
from agent_runtime.template.prompt import render_value, uses_inputs

if TYPE_CHECKING:
    from agent_runtime.template.confinement import Confinement
    from agent_runtime.template.parts_spec import McpSpec

AgentKey = tuple[Any, ...]


class AgentCacheKeys:
    """Compute keys.

    A key has the template's content and folder, the registry's generation, the tools' inputs and
    code, the versions of secrets, MCP servers with their tool lists, and the credential scope. A
    prompt's inputs are not part of it: they are filled in for each call.

    Args:
        registry: the components of templates.
        broker: the pool of MCP servers.
        get_template: returns a registered template by its name.
        max_defaults: how many templates' default inputs are cached.
    """

    def __init__(
        self,
        registry: Registry,
        broker: McpConnectionPool,
        get_template: Callable[[str | Path], AgentTemplate],
        max_defaults: int,
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._get_template = get_template
        self._max_defaults = max_defaults
        self.confinement: Confinement | None = None
        """What templates may reach; None where they are trusted.

        Looked at before a server is asked for its tools.
        """
        self._default_inputs: dict[tuple[str, Path | None], dict[str, Any]] = {}

    def compute(self, template: AgentTemplate, inputs: Mapping[str, Any] | None = None) -> AgentKey:
        """Return the current key. Raises InputInvalid, ConfigurationError, McpServerFailed.

        MCP servers with an unknown or outdated tool list are queried, which blocks.
        """
        return self._compute_acyclic(template, inputs, self._broker.key)

    def cached(
        self, template: AgentTemplate, inputs: Mapping[str, Any] | None = None
    ) -> tuple[AgentKey | None, bool]:
        """Return the key without querying a server, and whether a tool list is outdated.

        The key is None when a server must be queried.
        """
        cached_mcp_keys = CachedKeys(self._broker)
        key = self._compute_acyclic(template, inputs, cached_mcp_keys.key)
        return (None if cached_mcp_keys.has_missing else key), cached_mcp_keys.has_stale

    def resolve_inputs(
        self, template: AgentTemplate, inputs: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the template's inputs with its defaults.

        Raises InputInvalid, and TemplateError as `Confinement`.
        """
        values = self._inputs_with_defaults(template, inputs)
        if self.confinement is not None:
            self.confinement.check(template, values)
        return values

    def _inputs_with_defaults(
        self, template: AgentTemplate, inputs: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if inputs or not template.inputs:
            return resolve_inputs(template, inputs)
        if template.identity not in self._default_inputs:
            if len(self._default_inputs) >= self._max_defaults:
                self._default_inputs.clear()
            self._default_inputs[template.identity] = resolve_inputs(template, None)
        return self._default_inputs[template.identity]

    def nested_template(self, template: AgentTemplate, name: str) -> AgentTemplate:
        """Return the template behind an `agent:` tool."""
        return template.agents.get(name) or self._get_template(name)

    def _compute_acyclic(
        self, template: AgentTemplate, inputs: Mapping[str, Any] | None, mcp_key: McpKey
    ) -> AgentKey:
        try:
            return self._template_key(template, self.resolve_inputs(template, inputs), mcp_key)
        except RecursionError:
            raise ConfigurationError(
                f"template '{template.metadata.name}': its agents call each other in a circle"
            ) from None

    def _template_key(
        self, template: AgentTemplate, values: Mapping[str, Any], mcp_key: McpKey
    ) -> AgentKey:
        spec = template.spec
        auto_model_id = (
            auto_model()[0] if any(model.id == "auto" for model in spec.all_models()) else ""
        )
        secret_versions = tuple([secret_digest(model.api_key) for model in spec.all_models()])
        tools = spec.all_tools()
        args = ""
        if values and (templated_args := [tool.args for tool in tools if uses_inputs(tool.args)]):
            args = repr(render_value(templated_args, values))
        tool_keys = tuple([self._tool_key(template, tool, mcp_key) for tool in tools])
        return (
            template.identity,
            self._registry.generation,
            auto_model_id,
            secret_versions,
            args,
            tool_keys,
            credential_scope.get(),
        )

    def _tool_key(self, template: AgentTemplate, tool: Any, mcp_key: McpKey) -> Any:
        if tool.mcp is not None:
            server: McpSpec = tool.mcp
            return mcp_key(server, template.folder)
        if tool.agent is not None:
            nested = self.nested_template(template, tool.agent)
            return self._template_key(nested, self.resolve_inputs(nested, None), mcp_key)
        return self._registry.tool_fingerprint(tool)
