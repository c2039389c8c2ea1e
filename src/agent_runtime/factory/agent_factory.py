"""Build agents from templates, with the resources that they share."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from agent_runtime.auth.scopes import check_scope
from agent_runtime.budgets.ledger.retries import flush_deferred
from agent_runtime.budgets.prices import PRICES
from agent_runtime.errors import ConfigurationError, TemplateError
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.factory.agent_cache import AgentCache
from agent_runtime.factory.build_agent import build_agent, unknown_names
from agent_runtime.factory.build_pipeline import PipelineDependencies, build_layers
from agent_runtime.factory.cache_keys import AgentCacheKeys
from agent_runtime.factory.components import (
    register_memory,
    register_middleware,
    register_model,
)
from agent_runtime.factory.template_registry import TemplateRegistry
from agent_runtime.limits.opening import LimitStore
from agent_runtime.limits.rate_limits import RateLimit
from agent_runtime.mcp.connection_pool import McpConnectionPool
from agent_runtime.monitoring.callback_handler import AgentCallbackHandler
from agent_runtime.orchestration.executor import AgentExecutor
from agent_runtime.orchestration.middleware import DEFAULT_ORDER, Middleware, SessionMiddleware
from agent_runtime.orchestration.timeouts import Timeouts
from agent_runtime.registry import Registry
from agent_runtime.run.limits import RunLimits
from agent_runtime.template import AgentTemplate, render_prompt
from agent_runtime.template.confinement import Confinement, confined_environ, confinement_of
from agent_runtime.template.overrides import apply_overrides
from agent_runtime.template.spec import is_path
from agent_runtime.tools import register_builtin_tools

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.store.base import BaseStore

    from agent_runtime.auth.authenticator import Authenticator
    from agent_runtime.budgets.budget import Budget
    from agent_runtime.budgets.ledger.ledger import Ledger
    from agent_runtime.budgets.prices import PriceTable
    from agent_runtime.limits.concurrency import ConcurrencyLimit
    from agent_runtime.monitoring.metrics import RuntimeMetrics
    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.sessions.session import Session
    from agent_runtime.types import Principal


class AgentFactory:
    """Create executors from templates, and share their resources.

    A compiled agent is cached by the digest of its template, the registry's generation, its tools'
    inputs and the version of its secret; a prompt's inputs do not compile a new one. All methods
    may be called from any thread. `async with AgentFactory() as factory:` closes the bus at the
    end.

    Args:
        registry: the components that templates may name; a new one with the built-in tools by
            default.
        event_bus: receives events; a new one by default.
        callback_handler: stores the events of every run; by default the last 1,000, published on
            the bus.
        pipeline: layers for every template without its own: names, or `Middleware` instances.
        session_manager: stores conversations: a call with a `session_id` continues that session.
        checkpointer: a LangGraph saver of your own instead. A `session_id` is then its thread id,
            without turns, tenant checks or repairs: for graphs that are managed elsewhere.
        ledger: records spending and holds budgets; without one only templates with budgets have an
            account, in memory.
        budgets: of every call of every agent of this factory, beside those of its template.
        prices: the prices of models; the public table by default.
        authenticators: authenticate callers by their credentials; with any, a call without a
            principal is refused.
        rate_limits: of every agent of this factory: RateLimit, or text such as `60/minute per
            user`.
        concurrency: how many calls run at once, of every agent of this factory.
        limits: the store that counts both, of `open_limits`; in this process by default.
        metrics: counts all runs, and their layers.
        mcp_pool: holds the sessions of MCP servers; a new one by default.
        allowed_refs: the exact `pkg.mod:obj` entries that templates may name by `ref`. With
            `registry`, set it there.
        templates: the trust in their authors. `trusted`: they may run programs and read files here,
            as the application's own developers. `confined`, or a `Confinement` with lists: their
            templates start no program and reach no address, variable, secret or folder outside the
            lists.
        max_agents: the size of the cache of compiled agents, least recently used first out.
    """

    def __init__(
        self,
        *,
        registry: Registry | None = None,
        event_bus: EventBus | None = None,
        callback_handler: AgentCallbackHandler | None = None,
        pipeline: Sequence[str | Middleware] | None = None,
        session_manager: SessionManager | None = None,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        ledger: Ledger | None = None,
        budgets: Sequence[Budget] = (),
        prices: PriceTable = PRICES,
        authenticators: Sequence[Authenticator] = (),
        rate_limits: Sequence[RateLimit | str] = (),
        concurrency: Sequence[ConcurrencyLimit] = (),
        limits: LimitStore | None = None,
        metrics: RuntimeMetrics | None = None,
        mcp_pool: McpConnectionPool | None = None,
        allowed_refs: Collection[str] = (),
        templates: Literal["trusted", "confined"] | Confinement = "trusted",
        max_agents: int = 256,
    ) -> None:
        if registry is not None and allowed_refs:
            raise ConfigurationError(
                "give allowed_refs to the Registry, or to the factory without a registry"
            )
        if session_manager is not None and checkpointer is not None:
            raise ConfigurationError(
                "give a session_manager or a checkpointer: the manager has its own"
            )
        self.registry = registry or Registry(frozenset(allowed_refs))
        register_builtin_tools(self.registry)
        self.mcp_broker = self.registry.mcp_pool = mcp_pool or McpConnectionPool(
            on_status=self._publish_server_status
        )
        self.event_bus = event_bus or EventBus()
        self.registry.providers.add_bus(self.event_bus)
        self.callback_handler = callback_handler or AgentCallbackHandler(bus=self.event_bus)
        self._checkpointer = checkpointer
        self.session_manager = session_manager
        self.ledger = ledger
        self._prices = prices
        self._dependencies = PipelineDependencies(
            self.event_bus,
            session_manager,
            ledger,
            tuple(budgets),
            tuple(authenticators),
            tuple(RateLimit.parse_many(rate_limits)),
            tuple(concurrency),
            limits or LimitStore(),
            metrics,
            pipeline,
        )
        if metrics is not None:
            self.callback_handler.listeners.append(metrics.on_event)
            metrics.watch_drops("bus", lambda: self.event_bus.dropped)
            metrics.watch_drops("events", lambda: self.callback_handler.dropped)
        if session_manager is not None:
            session_manager.agent_of = self.agent_of
            session_manager.records.bus = session_manager.records.bus or self.event_bus
        self._agents = AgentCache(max_agents)
        self.keys = AgentCacheKeys(self.registry, self.mcp_broker, self.get_template, max_agents)
        self.keys.confinement = confinement_of(templates)
        self.templates = TemplateRegistry(
            self.registry.bump_generation, confined_environ(self.keys.confinement)
        )

    @property
    def confinement(self) -> Confinement | None:
        """Return the confinement of templates; None when they are trusted."""
        return self.keys.confinement

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write all spending, and close all resources, even when one of them fails.

        Raises StoreError when spending could not be written: it is lost then, and reservations are
        charged at their estimates.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._dependencies.limits.aclose)
            if self.ledger is not None:
                stack.push_async_callback(self.ledger.aclose)
                stack.push_async_callback(flush_deferred, self.ledger)
            if self.session_manager is not None:
                stack.push_async_callback(self.session_manager.aclose)
            stack.push_async_callback(self.mcp_broker.aclose)
            self.event_bus.close()

    def _publish_server_status(self, server: str, status: str, error: str) -> None:
        self.event_bus.publish(
            Event(
                "mcp.server",
                {"server": server, "status": status, **({"error": error} if error else {})},
            )
        )

    async def drain(self, grace_s: float = 30.0) -> int:
        """Drain every agent of this factory, as `AgentExecutor.drain` does, at once.

        Returns how many calls had to be cancelled.
        """
        agents = self._agents.agents()
        return sum(await asyncio.gather(*(agent.drain(grace_s) for agent in agents)))

    # -- templates and their components

    def register_template(
        self, template: AgentTemplate | str | Path, name: str | None = None
    ) -> str:
        """Add a template, or the one in a file, under `name`, by default its own; return it."""
        return self.templates.register(template, name)

    def unregister_template(self, name: str) -> None:
        """Remove a name; existing executors stay usable. Raises UnknownComponent."""
        self.templates.unregister(name)

    def get_template(self, name_or_path: str | Path) -> AgentTemplate:
        """Return the template of a registered name, or in a file.

        Raises as `create_from_template`.
        """
        return self.templates.get(name_or_path)

    def list_templates(self) -> list[str]:
        """Return the registered names, sorted."""
        return self.templates.names()

    def register_tool(self, name: str, tool: Any) -> None:
        """Register a LangChain tool, a function, a tool class, or a `tool_factory`."""
        self.registry.register(self.registry.tools, name, tool)

    def register_model(self, name: str, factory: Any) -> None:
        """Register a chat model, or a function that makes one from `spec.model.params`."""
        register_model(self.registry, name, factory)

    def register_middleware(
        self, name: str, middleware: Any, *, streams_safely: bool = False
    ) -> None:
        """Register a runtime layer (`runtime.pipeline`) or a LangChain middleware.

        Accepts an instance or a class of either `agent_runtime.Middleware` or LangChain's
        `AgentMiddleware`, which determines where templates can name it. Raises ConfigurationError
        for anything else.

        An agent with a LangChain middleware that wraps model calls or acts after them streams its
        messages whole, because such a hook may change them; `streams_safely` declares that this one
        does not, so tokens stream.
        """
        register_middleware(self.registry, name, middleware, streams_safely=streams_safely)

    def register_memory(self, name: str, store: BaseStore, *, shared: bool = False) -> None:
        """Register a LangGraph store for `spec.memory`: long-term memory beyond a session.

        Each tenant has separate namespaces in it, below the tenant's name; with `shared` all
        tenants read and write the same ones, as the agent's tools name them.
        """
        register_memory(self.registry, name, store, shared=shared)

    def register_workflow(self, name: str, workflow: Any) -> None:
        """Register any Runnable or compiled graph, for `spec.workflow`."""
        self.registry.register(self.registry.workflows, name, workflow)

    # -- agents

    def create_agent(
        self, template: AgentTemplate, inputs: Mapping[str, Any] | None = None, **overrides: Any
    ) -> AgentExecutor:
        """Return the executor of a template.

        `inputs` are the template's parameters; `overrides` replace or deepen keys of its `spec`
        (`model="openai:gpt-5-mini"`, `runtime={"limits": {"model_calls": 3}}`). Raises
        InputInvalid, TemplateError for invalid overrides, and ConfigurationError (UnknownComponent,
        MissingExtra) for a template that cannot be built.
        """
        return self._create(template, inputs, overrides, template.metadata.name)

    def _create(
        self,
        template: AgentTemplate,
        inputs: Mapping[str, Any] | None,
        overrides: Mapping[str, Any],
        template_source: str,
    ) -> AgentExecutor:
        ref = {
            "template": template_source,
            "inputs": dict(inputs or {}),
            "overrides": dict(overrides),
        }
        ref |= self._folder_ref(template)
        if overrides:
            template = apply_overrides(template, overrides)
        values = self.keys.resolve_inputs(template, inputs)
        key = self.keys.compute(template, inputs)
        executor = self._agents.get_or_build(key, partial(self._build, template, values))
        # The cached agent has no prompt of its own: one caller's inputs must not reach another.
        return executor.with_prompt(
            render_prompt(template, values) if template.inputs else None, ref
        )

    def _folder_ref(self, template: AgentTemplate) -> dict[str, str]:
        """Return the folder of a confined template.

        Its author chooses its name, but not its folder.
        """
        return {} if self.confinement is None else {"folder": str(template.folder or "")}

    def agent_of(self, session: Session, principal: Principal | None = None) -> AgentExecutor:
        """Build the agent of a session's record.

        For a `principal` it is built only when that one may resume it: building starts MCP servers.
        Raises ConfigurationError when the record does not name its agent, Forbidden.
        """
        if "template" not in session.agent:
            raise ConfigurationError(
                f"the session '{session.id}' has no agent on record: pass `agent`"
            )
        ref = session.agent
        template = self.get_template(ref["template"])
        if principal is not None:
            self.check_scopes(principal, "resume", template)
        return self.create_from_template(
            ref["template"], ref.get("inputs") or None, **ref.get("overrides", {})
        )

    def check_scopes(self, principal: Principal, action: str, template: AgentTemplate) -> None:
        """Raise Forbidden when the agent's auth layer would; nothing is built before."""
        auth = template.spec.runtime.auth
        if self._dependencies.authenticators or auth.require:
            for scope in (f"{action}:{template.metadata.name}", *auth.require):
                check_scope(principal, scope)

    def create_from_template(
        self,
        name_or_path: str | Path | AgentTemplate,
        inputs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> AgentExecutor:
        """Return the executor of a registered name, a template file, or a template.

        A name with a `/` or a `.yaml` suffix is a file, which is read each time. Raises
        UnknownComponent for a name that is not registered, TemplateError for an invalid file,
        FileNotFoundError for a missing one, and as `create_agent`.
        """
        if isinstance(name_or_path, AgentTemplate):
            return self.create_agent(name_or_path, inputs, **overrides)
        source = str(Path(name_or_path).resolve()) if is_path(name_or_path) else str(name_or_path)
        return self._create(self.get_template(name_or_path), inputs, overrides, source)

    def create_batch(
        self,
        templates: Sequence[str | Path | AgentTemplate],
        inputs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> list[AgentExecutor]:
        """Return the executors of `templates`, in order; raises for the first that fails."""
        return [self.create_from_template(template, inputs, **overrides) for template in templates]

    def check_template(self, template: AgentTemplate) -> None:
        """Raise TemplateError for each unknown name and each target that is not allowed.

        Builds nothing.
        """
        layers = {*DEFAULT_ORDER, *self.registry.layers}
        problems = [] if self.keys.confinement is None else self.keys.confinement.problems(template)
        if problems := problems or unknown_names(
            template, self.registry, layers, self.templates.names()
        ):
            raise TemplateError(problems)

    # -- building

    def inner_agent(self, template: AgentTemplate, name: str) -> AgentExecutor:
        """Return the executor behind an `agent:` tool of a template."""
        return self.create_agent(self.keys.nested_template(template, name))

    def build_agent(
        self,
        template: AgentTemplate,
        inputs: Mapping[str, Any] | None = None,
        *,
        ref: Mapping[str, Any] | None = None,
    ) -> AgentExecutor:
        """Build an agent without the cache, for callers that cache agents themselves.

        `ref` describes how to build it again, for the records of its sessions.
        """
        ref = ref or {
            "template": template.metadata.name,
            "inputs": dict(inputs or {}),
            "overrides": {},
        }
        ref = {**ref, **self._folder_ref(template)}
        values = self.keys.resolve_inputs(template, inputs)
        executor = self._build(template, values)
        return executor.with_prompt(
            render_prompt(template, values) if template.inputs else None, ref
        )

    def _build(self, template: AgentTemplate, values: Mapping[str, Any]) -> AgentExecutor:
        self.check_template(template)
        layers = build_layers(template, self._dependencies, self.registry.layers)
        # Without the session layer nothing would take turns: such an agent keeps no sessions.
        sessions = (
            self.session_manager
            if any(isinstance(layer, SessionMiddleware) for layer in layers)
            else None
        )
        saver = self._checkpointer if sessions is None else sessions.checkpointer
        built_agent = build_agent(
            template, self.registry, values, partial(self.inner_agent, template), saver
        )
        runtime = template.spec.runtime
        limits = runtime.limits
        timeout = runtime.timeout
        return AgentExecutor(
            built_agent.agent,
            pipeline=layers,
            prices=self._prices,
            limits=RunLimits(**dict(limits)) if limits.model_fields_set else None,
            timeouts=Timeouts(timeout.run, timeout.idle, timeout.model_call)
            if timeout.model_fields_set
            else None,
            callback_handler=self.callback_handler,
            name=template.metadata.name,
            description=template.metadata.description,
            gated=built_agent.gated,
            hold_text=built_agent.hold_text,
            needs_session=built_agent.needs_session,
            tools=built_agent.tools,
            durability=runtime.durability,
            digest=template.digest,
            on_layer=self._dependencies.metrics,
        )
