"""Provide the application's resources to the workers of one agent: models, tools, stores."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError
from agent_runtime.registry import MODEL_ARGUMENTS
from agent_runtime.remote.frames import loads
from agent_runtime.remote.remote_model import RemoteModelInfo
from agent_runtime.remote.remote_parts import RemoteAgentInfo, RemoteToolInfo
from agent_runtime.template.parts_spec import ModelSpec, fallback_specs

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool

    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.registry import Registry
    from agent_runtime.template import AgentTemplate
    from agent_runtime.template.parts_spec import ToolSpec

MAX_BOUND_MODELS = 32


class HostResources:
    """Answer workers that build their agent, and hold the resources of its calls.

    Args:
        template: the agent's; a worker can use the models and servers that it names only.
        registry: the application's.
        resolve_agent: returns the executor behind an `agent:` tool.
        saver: the application's checkpointer, or None.
    """

    def __init__(
        self,
        template: AgentTemplate,
        registry: Registry,
        resolve_agent: Callable[[str], AgentExecutor],
        saver: Any,
    ) -> None:
        self._template = template
        self._registry = registry
        self._resolve_agent = resolve_agent
        self.saver = saver
        self._model_specs = _template_model_specs(template)
        self._lock = threading.RLock()
        self.models: list[BaseChatModel] = []
        self.tools: list[BaseTool] = []
        self.agents: list[AgentExecutor] = []
        self._descriptions: dict[Any, Any] = {}
        self._bound_models: OrderedDict[tuple[int, bytes, str], Any] = OrderedDict()

    def describe(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answer a worker that builds its agent; raises the errors of building the part."""
        if method not in ("describe_model", "describe_mcp", "describe_agent"):
            raise ConfigurationError(f"a worker asks for '{method}' while it makes its agent")
        key = (method, repr(args))
        with self._lock:
            if key not in self._descriptions:
                self._descriptions[key] = getattr(self, method)(*args)
            return self._descriptions[key]

    def describe_model(self, spec: ModelSpec) -> RemoteModelInfo:
        """Describe a model that the template names."""
        if spec not in self._model_specs:
            raise ConfigurationError(
                f"the template '{self._template.metadata.name}' names no model '{spec.id}'"
            )
        model = self._registry.model(spec)
        self.models.append(model)
        return RemoteModelInfo.from_model(len(self.models) - 1, model)

    def describe_mcp(self, spec: ToolSpec) -> list[RemoteToolInfo]:
        """Describe an MCP server's tools."""
        if spec not in self._template.spec.all_tools():
            raise ConfigurationError(
                f"the template '{self._template.metadata.name}' names no such MCP server"
            )
        server_tools = self._registry.mcp(spec, self._template.folder)
        first_key = len(self.tools)
        self.tools += server_tools
        return [
            RemoteToolInfo.from_tool(first_key + n, tool) for n, tool in enumerate(server_tools)
        ]

    def describe_agent(self, name: str) -> RemoteAgentInfo:
        """Describe an agent that this one uses as a tool."""
        if name not in [tool.agent for tool in self._template.spec.all_tools()]:
            raise ConfigurationError(
                f"the template '{self._template.metadata.name}' names no agent '{name}'"
            )
        executor = self._resolve_agent(name)
        self.agents.append(executor)
        return RemoteAgentInfo(len(self.agents) - 1, executor.name or name, executor.description)

    def store(self, name: str) -> Any:
        """Return the template's long-term memory."""
        if name != self._template.spec.memory:
            raise ConfigurationError(
                f"the template '{self._template.metadata.name}' names no memory '{name}'"
            )
        return self._registry.memories[name]

    def bound_model(self, key: int, tools: bytes | None, kwargs: Mapping[str, Any]) -> Any:
        """Return a model bound to tools, in its provider's own form; cached for each set."""
        model = self.models[key]
        if tools is None:
            return model.bind(**kwargs) if kwargs else model
        cache_key = (key, tools, repr(sorted(kwargs.items(), key=lambda argument: argument[0])))
        if cache_key not in self._bound_models:
            self._bound_models[cache_key] = model.bind_tools(loads(tools), **kwargs)
            while len(self._bound_models) > MAX_BOUND_MODELS:
                self._bound_models.popitem(last=False)
        return self._bound_models[cache_key]


def _template_model_specs(template: AgentTemplate) -> list[ModelSpec]:
    """Return every model of the template's agent, as it is requested."""
    spec = template.spec
    model_specs = spec.all_models()
    if spec.model is not None:
        model_specs += fallback_specs(spec.model)
    for middleware_spec in [
        *spec.middleware,
        *(middleware for subagent in spec.subagents for middleware in subagent.middleware),
    ]:
        arguments = middleware_spec.model_extra or {}
        model_values: Sequence[Any] = [arguments.get(name) for name in MODEL_ARGUMENTS]
        if isinstance(arguments.get("models"), list):
            model_values = [*model_values, *arguments["models"]]
        model_specs += [ModelSpec(id=name) for name in model_values if isinstance(name, str)]
    return model_specs
