"""What the application has for the workers of one agent.

Models, MCP tools, inner agents, stores, checkpoints.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError
from agent_runtime.registry import MODEL_ARGUMENTS
from agent_runtime.remote.frames import unpacked
from agent_runtime.remote.remote_model import ModelCard
from agent_runtime.remote.remote_parts import AgentCard, ToolCard
from agent_runtime.template.parts_spec import ModelSpec, fallback_specs

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool

    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.registry import Registry
    from agent_runtime.template import AgentTemplate
    from agent_runtime.template.parts_spec import ToolSpec

MAX_BOUND = 32


class Desk:
    """Answers what workers ask while they make their agent, and keeps what their calls will need.

    Args:
        template: the agent's; a worker can have the models and servers that it names, and no
        others.
        registry: the application's.
        agent_of: gives the executor behind an `agent:` tool.
        saver: the application's checkpointer, or None.
    """

    def __init__(
        self,
        template: AgentTemplate,
        registry: Registry,
        agent_of: Callable[[str], AgentExecutor],
        saver: Any,
    ) -> None:
        self._template = template
        self._registry = registry
        self._agent_of = agent_of
        self.saver = saver
        self._model_specs = _models_named(template)
        self._lock = threading.RLock()
        self.models: list[BaseChatModel] = []
        self.tools: list[BaseTool] = []
        self.agents: list[AgentExecutor] = []
        self._known: dict[Any, Any] = {}
        self._bound: OrderedDict[tuple[int, bytes, str], Any] = OrderedDict()

    def describe(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answer a worker that makes its agent; raises what making the part raises."""
        if method not in ("describe_model", "describe_mcp", "describe_agent"):
            raise ConfigurationError(f"a worker asks for '{method}' while it makes its agent")
        key = (method, repr(args))
        with self._lock:
            if key not in self._known:
                self._known[key] = getattr(self, method)(*args)
            return self._known[key]

    def describe_model(self, spec: ModelSpec) -> ModelCard:
        """The card of a model that the template names."""
        if spec not in self._model_specs:
            raise ConfigurationError(
                f"the template '{self._template.metadata.name}' names no model '{spec.id}'"
            )
        model = self._registry.model(spec)
        self.models.append(model)
        return ModelCard.of(len(self.models) - 1, model)

    def describe_mcp(self, spec: ToolSpec) -> list[ToolCard]:
        """The cards of an MCP server's tools."""
        if spec not in self._template.spec.all_tools():
            raise ConfigurationError(
                f"the template '{self._template.metadata.name}' names no such MCP server"
            )
        found = self._registry.mcp(spec, self._template.folder)
        first = len(self.tools)
        self.tools += found
        return [ToolCard.of(first + n, tool) for n, tool in enumerate(found)]

    def describe_agent(self, name: str) -> AgentCard:
        """The card of an agent that this one uses as a tool."""
        if name not in [tool.agent for tool in self._template.spec.all_tools()]:
            raise ConfigurationError(
                f"the template '{self._template.metadata.name}' names no agent '{name}'"
            )
        executor = self._agent_of(name)
        self.agents.append(executor)
        return AgentCard(len(self.agents) - 1, executor.name or name, executor.description)

    def store(self, name: str) -> Any:
        """The template's long-term memory."""
        if name != self._template.spec.memory:
            raise ConfigurationError(
                f"the template '{self._template.metadata.name}' names no memory '{name}'"
            )
        return self._registry.memories[name]

    def offered(self, key: int, tools: bytes | None, kwargs: Mapping[str, Any]) -> Any:
        """A model with its tools, in its provider's own form; made once for each set of them."""
        model = self.models[key]
        if tools is None:
            return model.bind(**kwargs) if kwargs else model
        named = (key, tools, repr(sorted(kwargs.items(), key=lambda each: each[0])))
        if named not in self._bound:
            self._bound[named] = model.bind_tools(unpacked(tools), **kwargs)
            while len(self._bound) > MAX_BOUND:
                self._bound.popitem(last=False)
        return self._bound[named]


def _models_named(template: AgentTemplate) -> list[ModelSpec]:
    """Every model that the template's agent is made with, as it is asked for."""
    spec = template.spec
    found = spec.all_models()
    if spec.model is not None:
        found += fallback_specs(spec.model)
    for each in [
        *spec.middleware,
        *(middleware for inner in spec.subagents for middleware in inner.middleware),
    ]:
        args = each.model_extra or {}
        named: Sequence[Any] = [args.get(name) for name in MODEL_ARGUMENTS]
        if isinstance(args.get("models"), list):
            named = [*named, *args["models"]]
        found += [ModelSpec(id=name) for name in named if isinstance(name, str)]
    return found
