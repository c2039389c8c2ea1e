"""Register the components of templates: tools, models, middleware, layers and workflows."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from agent_runtime.errors import ConfigurationError, UnknownComponent
from agent_runtime.providers.limiter import PROVIDERS, ProviderLimiter

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool
    from langgraph.store.base import BaseStore

    from agent_runtime.template.parts_spec import ModelSpec, ToolSpec

F = TypeVar("F", bound=Callable[..., Any])

LANGCHAIN_MIDDLEWARE: Mapping[str, str] = {
    "context_editing": "ContextEditingMiddleware",
    "file_search": "FilesystemFileSearchMiddleware",
    "human_in_the_loop": "HumanInTheLoopMiddleware",
    "llm_tool_selector": "LLMToolSelectorMiddleware",
    "model_call_limit": "ModelCallLimitMiddleware",
    "model_fallback": "ModelFallbackMiddleware",
    "model_retry": "ModelRetryMiddleware",
    "pii": "PIIMiddleware",
    "provider_tool_search": "ProviderToolSearchMiddleware",
    "summarization": "SummarizationMiddleware",
    "todo_list": "TodoListMiddleware",
    "tool_call_limit": "ToolCallLimitMiddleware",
    "tool_emulator": "LLMToolEmulator",
    "tool_error": "ToolErrorMiddleware",
    "tool_retry": "ToolRetryMiddleware",
}
"""LangChain's own middleware by short name, in `langchain.agents.middleware`.

Not its shell tool: a template that could name it would run commands. An application registers that
one itself.
"""

MODEL_ARGUMENTS = ("model", "first_model", "summarizer")
"""Arguments of those that name a model.

Built as the template's own model is, so that the gate sees its calls. A name
that LangChain resolved would be a model of the account's that no limit or budget sees."""

REWRITING_MIDDLEWARE = frozenset({"pii"})
"""Middleware that may change a message after it was streamed.

Its text is held back until it is final.
"""


class Registry:
    """Map names to components. `generation` changes with every registration.

    Args:
        allowed_refs: the exact `pkg.mod:obj` entries that templates may name by `ref`; none by
            default. A reference runs the code of its module, so the application must list it.
    """

    def __init__(self, allowed_refs: frozenset[str] = frozenset()) -> None:
        self.allowed_refs = allowed_refs
        self.generation = 0
        self.tools: dict[str, Any] = {}
        self.tool_cache: dict[str, tuple[Any, BaseTool]] = {}
        """Tools without arguments, converted and gated once for their code.

        A schema is most of an agent's cost.
        """
        self.models: dict[str, Callable[..., BaseChatModel]] = {}
        self.middleware: dict[str, Any] = {}
        self.streams_safely: set[str] = set()
        """LangChain middleware that, by its registration, never changes an answer's text."""
        self.layers: dict[str, Any] = {}
        self.workflows: dict[str, Any] = {}
        self.memories: dict[str, BaseStore] = {}
        self.providers: ProviderLimiter = PROVIDERS
        self.mcp_pool: Any = None
        """Holds the sessions of MCP servers; the factory's."""

    def bump_generation(self) -> None:
        """Make agents that were built before stale, because a template may build another one."""
        self.generation += 1

    def register(self, table: dict[str, Any], name: str, component: Any) -> None:
        """Register under `name`, replacing an earlier component, for agents built from now on."""
        table[name] = component
        self.tool_cache.pop(name, None)
        self.bump_generation()

    def model(self, spec: ModelSpec) -> BaseChatModel:
        """Return the gated chat model of a spec. Raises as `build_model`."""
        from agent_runtime.models.resolve import build_model
        from agent_runtime.providers.http_transport import bound_model_answers
        from agent_runtime.run.request import ACCOUNT_ATTRIBUTE, IDEMPOTENCY_HEADER_ATTRIBUTE

        model = build_model(
            spec, self.models
        ).model_copy()  # one that is registered ready-made serves several
        bound_model_answers(model)
        account = self.providers.account_of(model)
        account.allow(spec.limits.max_in_flight, spec.limits.overload_codes)
        model.__dict__[ACCOUNT_ATTRIBUTE] = account
        model.__dict__[IDEMPOTENCY_HEADER_ATTRIBUTE] = spec.idempotency_header
        return model

    def is_tool_factory(self, name: str) -> bool:
        """Return whether a registered tool is built for each agent, and may hold its state."""
        component = self.tools.get(name)
        return inspect.isclass(component) or getattr(component, "_makes_tool", False)

    def tool(self, name: str, args: Mapping[str, Any]) -> BaseTool:
        """Return the tool registered as `name`.

        Raises UnknownComponent, or ConfigurationError for invalid `args`.
        """
        if name not in self.tools:
            raise UnknownComponent("tool", name, self.tools)
        return as_tool(self.tools[name], name, args)

    def ref(self, ref: str, args: Mapping[str, Any]) -> BaseTool:
        """Return the tool at `pkg.mod:obj`; only entries that the application allowed."""
        if ref not in self.allowed_refs:
            raise UnknownComponent("tool reference", ref, self.allowed_refs)
        module, _, attribute = ref.partition(":")
        try:
            component = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"cannot load the tool '{ref}': {error}") from error
        return as_tool(component, ref, args)

    def tool_fingerprint(self, spec: ToolSpec) -> Any:
        """Return a fingerprint of a tool's behaviour: the object itself and its code."""
        component: Any = None
        if spec.use is not None:
            component = self.tools.get(spec.use)
        elif spec.ref is not None and spec.ref in self.allowed_refs:
            module, _, attribute = spec.ref.partition(":")
            with contextlib.suppress(ImportError):  # building the tool reports the error
                component = getattr(importlib.import_module(module), attribute, None)
        else:
            return None
        inner = (
            getattr(component, "func", None) or getattr(component, "coroutine", None) or component
        )
        code = getattr(inner, "__code__", None)
        if code is None:
            kind = inner if isinstance(inner, type) else type(inner)
            code = tuple(
                [method.__code__ for method in vars(kind).values() if inspect.isfunction(method)]
            )
        return id(component), code

    def mcp(self, spec: ToolSpec, folder: Path | None) -> Sequence[BaseTool]:
        """Return the tools of an MCP server; raises ConfigurationError without a server pool."""
        if self.mcp_pool is None or spec.mcp is None:
            raise ConfigurationError("no MCP broker is there: make the agent by an AgentFactory")
        tools: list[BaseTool] = self.mcp_pool.tools(
            spec.mcp, folder, include=spec.include, exclude=spec.exclude, prefix=spec.as_
        )
        return tools

    def wrap_middleware_tool(self, tool: BaseTool) -> BaseTool:
        """Return a LangChain middleware's tool in the form for agents of this registry."""
        return tool

    def langchain_middleware(self, name: str) -> Any:
        """Return the LangChain middleware class or instance called `name`.

        Raises UnknownComponent.
        """
        if name in self.middleware:
            return self.middleware[name]
        if name not in LANGCHAIN_MIDDLEWARE:
            raise UnknownComponent("middleware", name, [*self.middleware, *LANGCHAIN_MIDDLEWARE])
        module = importlib.import_module("langchain.agents.middleware")
        return getattr(module, LANGCHAIN_MIDDLEWARE[name])


def as_tool(component: Any, name: str, args: Mapping[str, Any]) -> BaseTool:
    """Return a tool from a component: a tool or function, or a factory called with `args`.

    A class, or a function marked by `tool_factory`, is a factory; anything else takes no arguments.
    Raises ConfigurationError for invalid arguments.
    """
    from langchain_core.tools import BaseTool

    from agent_runtime.tools.function_tool import function_tool

    if getattr(component, "_makes_tool", False) or inspect.isclass(component):
        try:
            inspect.signature(component).bind(**args)
            component = component(**args)
        except (TypeError, ValueError, OSError) as error:
            raise ConfigurationError(f"tool '{name}': {error}") from error
    elif args:
        raise ConfigurationError(f"tool '{name}' takes no args")
    if isinstance(component, BaseTool):
        return component
    if callable(component):
        return function_tool(component)
    raise ConfigurationError(
        f"tool '{name}' is neither a LangChain tool nor a function: {type(component).__name__}"
    )


@overload
def tool_factory(function: F) -> F: ...


@overload
def tool_factory(*, name: str) -> Callable[[F], F]: ...


def tool_factory(function: Any = None, *, name: str | None = None) -> Any:
    """Mark a function that creates a tool from a template's `args`.

    `name` is the name of its tools, to check a template without creating them.
    """
    if function is None:
        return partial(tool_factory, name=name)
    function._makes_tool = True
    function._tool_name = name
    return function
