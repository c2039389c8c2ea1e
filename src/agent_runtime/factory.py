"""AgentFactory: the composition root."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError

from agent_runtime.assembly import assemble, unknown_names
from agent_runtime.callback_handler import AgentCallbackHandler
from agent_runtime.errors import ConfigurationError, TemplateError, UnknownComponent
from agent_runtime.event_bus import EventBus
from agent_runtime.models.gate import RunLimits
from agent_runtime.models.gated_model import gated
from agent_runtime.models.resolve import auto_model, secret_version
from agent_runtime.orchestration.executor import AgentExecutor, Timeouts
from agent_runtime.orchestration.middleware import DEFAULT_ORDER, LoggingMiddleware, Middleware, RetryMiddleware
from agent_runtime.registry import Registry
from agent_runtime.template import AgentTemplate, load_template, rendered_prompt, resolve_inputs, shipped_templates
from agent_runtime.template.loader import template_problems
from agent_runtime.template.prompt import render_value, uses_inputs
from agent_runtime.tools import register_shipped_tools

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver


class AgentFactory:
    """Makes executors from templates, and keeps what they share.

    A compiled agent is kept under the digest of its template, the registry's generation, its tools' inputs and
    the version of its secret; a prompt's inputs do not compile a new one. All methods may be called from any thread.

    Args:
        registry: what templates may name; a new one with the shipped tools by default.
        event_bus: where events go; a new one by default.
        callback_handler: keeps the events of every run; by default the last 1,000, published on the bus.
        pipeline: layers for every template that does not say its own: names, or `Middleware` instances.
        checkpointer: a LangGraph saver, so that a call with a `session_id` remembers the conversation.
        allowed_refs: the exact `pkg.mod:obj` entries that templates may name by `ref`. With `registry` given,
            say it there.
        max_agents: how many compiled agents are kept, least recently used first out.

    `async with AgentFactory() as factory:` closes the bus at the end.
    """

    def __init__(
        self,
        *,
        registry: Registry | None = None,
        event_bus: EventBus | None = None,
        callback_handler: AgentCallbackHandler | None = None,
        pipeline: Sequence[str | Middleware] | None = None,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        allowed_refs: Collection[str] = (),
        max_agents: int = 256,
    ) -> None:
        if registry is not None and allowed_refs:
            raise ConfigurationError("give allowed_refs to the Registry, or to the factory without a registry")
        self.registry = registry or Registry(frozenset(allowed_refs))
        register_shipped_tools(self.registry)
        self.event_bus = event_bus or EventBus()
        self.callback_handler = callback_handler or AgentCallbackHandler(bus=self.event_bus)
        self._pipeline, self._checkpointer, self._max_agents = pipeline, checkpointer, max_agents
        self._templates: dict[str, AgentTemplate | Path] = dict(shipped_templates())
        self._built: OrderedDict[tuple[Any, ...], AgentExecutor] = OrderedDict()
        self._defaults: dict[tuple[str, Path | None], dict[str, Any]] = {}
        self._lock = threading.RLock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.event_bus.close()

    # -- agents --------------------------------------------------------------------------------------------

    def create_agent(
        self, template: AgentTemplate, inputs: Mapping[str, Any] | None = None, **overrides: Any
    ) -> AgentExecutor:
        """The executor of a template.

        `inputs` are the template's parameters; `overrides` replace or deepen keys of its `spec`
        (`model="openai:gpt-5-mini"`, `runtime={"limits": {"model_calls": 3}}`). Raises InputInvalid,
        TemplateError for overrides that do not fit, and ConfigurationError (UnknownComponent, MissingExtra)
        for what cannot be built.
        """
        if overrides:
            template = _overridden(template, overrides)
        values = self._values(template, inputs)
        try:
            key = self._key(template, values)
        except RecursionError:
            raise ConfigurationError(
                f"template '{template.metadata.name}': its agents call each other in a circle"
            ) from None
        with self._lock:
            built = self._built.get(key)
            if built is None:
                built = self._built[key] = self._build(template, values)
                while len(self._built) > self._max_agents:
                    self._built.popitem(last=False)
            else:
                self._built.move_to_end(key)
        # What is kept has no prompt of its own: one caller's inputs must not reach another.
        return built.with_prompt(rendered_prompt(template, values) if template.inputs else None)

    def create_from_template(
        self,
        name_or_path: str | Path | AgentTemplate,
        inputs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> AgentExecutor:
        """`create_agent` for a registered name, a template file, or a template at hand.

        A name with a `/` or a `.yaml` ending is a file, read anew each time. Raises UnknownComponent for a
        name that is not registered, TemplateError for an invalid file, FileNotFoundError for a missing one.
        """
        template = name_or_path if isinstance(name_or_path, AgentTemplate) else self.get_template(name_or_path)
        return self.create_agent(template, inputs, **overrides)

    def create_batch(
        self, templates: Sequence[str | Path | AgentTemplate], inputs: Mapping[str, Any] | None = None, **overrides: Any
    ) -> list[AgentExecutor]:
        """`create_from_template` for each of `templates`, in order; raises for the first that fails."""
        return [self.create_from_template(template, inputs, **overrides) for template in templates]

    # -- templates and components --------------------------------------------------------------------------

    def register_template(self, template: AgentTemplate | str | Path, name: str | None = None) -> str:
        """Make a template (or the one in a file) known by `name`, by default its own; returns the name."""
        loaded = template if isinstance(template, AgentTemplate) else load_template(template)
        name = name or loaded.metadata.name
        with self._lock:
            self._templates[name] = loaded
            self.registry.generation += 1
        return name

    def unregister_template(self, name: str) -> None:
        """Forget a name; executors already made go on. Raises UnknownComponent."""
        with self._lock:
            if self._templates.pop(name, None) is None:
                raise UnknownComponent("template", name, self._templates)
            self.registry.generation += 1

    def get_template(self, name_or_path: str | Path) -> AgentTemplate:
        """The template of a registered name, or in a file. Raises as `create_from_template`."""
        name = str(name_or_path)
        if isinstance(name_or_path, Path) or "/" in name or name.endswith((".yaml", ".yml")):
            return load_template(name_or_path)
        with self._lock:
            found = self._templates.get(name)
            if found is None:
                raise UnknownComponent("template", name, self._templates)
            if isinstance(found, Path):  # a shipped one, read at its first use
                found = self._templates[name] = load_template(found)
            return found

    def check_template(self, template: AgentTemplate) -> None:
        """Raise TemplateError for every name in `template` that is not registered here. Builds nothing."""
        layers = {*DEFAULT_ORDER, *self.registry.layers}
        if problems := unknown_names(template, self.registry, layers, self._templates):
            raise TemplateError(problems)

    def list_templates(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._templates)

    def register_tool(self, name: str, tool: Any) -> None:
        """Register a LangChain tool, a function, a tool class, or a function marked by `tool_factory`."""
        self.registry.put(self.registry.tools, name, tool)

    def register_model(self, name: str, factory: Any) -> None:
        """Register a chat model, or a function that makes one from `spec.model.params`."""
        ready = gated(factory) if isinstance(factory, BaseChatModel) else None
        self.registry.put(self.registry.models, name, factory if ready is None else lambda **_: ready)

    def register_middleware(self, name: str, middleware: Any, *, keeps_answer: bool = False) -> None:
        """Register a runtime layer (for `runtime.pipeline`) or a LangChain middleware (for `spec.middleware`).

        Takes an instance or a class of either `agent_runtime.Middleware` or LangChain's `AgentMiddleware`;
        which of the two decides where templates can name it. Raises ConfigurationError for anything else.
        An agent with a LangChain middleware that wraps model calls or acts after them streams its messages whole,
        because such a hook may change them; `keeps_answer` says that this one does not, so tokens stream.
        """
        from langchain.agents.middleware import AgentMiddleware

        cls = middleware if isinstance(middleware, type) else type(middleware)
        if issubclass(cls, Middleware):
            self.registry.put(self.registry.layers, name, middleware)
        elif issubclass(cls, AgentMiddleware):
            (self.registry.keeps_answer.add if keeps_answer else self.registry.keeps_answer.discard)(name)
            self.registry.put(self.registry.middleware, name, middleware)
        else:
            raise ConfigurationError(f"'{name}' is neither a runtime Middleware nor a LangChain AgentMiddleware")

    def register_workflow(self, name: str, workflow: Any) -> None:
        """Register any Runnable or compiled graph, for `spec.workflow`."""
        self.registry.put(self.registry.workflows, name, workflow)

    # -- building ------------------------------------------------------------------------------------------

    def _values(self, template: AgentTemplate, inputs: Mapping[str, Any] | None) -> dict[str, Any]:
        if inputs or not template.inputs:
            return resolve_inputs(template, inputs)
        if template.identity not in self._defaults:
            if len(self._defaults) >= self._max_agents:
                self._defaults.clear()
            self._defaults[template.identity] = resolve_inputs(template, None)
        return self._defaults[template.identity]

    def _key(self, template: AgentTemplate, values: Mapping[str, Any]) -> tuple[Any, ...]:
        spec = template.spec
        auto = auto_model()[0] if spec.model is not None and spec.model.id == "auto" else ""
        secret = "" if spec.model is None else secret_version(spec.model.api_key)
        args = ""
        if values and (used := [t.args for t in spec.tools if uses_inputs(t.args)]):
            args = repr(render_value(used, values))
        inner = tuple([self._inner_key(template, t.agent) for t in spec.tools if t.agent])
        return (template.identity, self.registry.generation, auto, secret, args, inner)

    def _inner_key(self, template: AgentTemplate, name: str) -> tuple[Any, ...]:
        inner = self._inner(template, name)
        return self._key(inner, self._values(inner, None))

    def _inner(self, template: AgentTemplate, name: str) -> AgentTemplate:
        return template.agents.get(name) or self.get_template(name)

    def _build(self, template: AgentTemplate, values: Mapping[str, Any]) -> AgentExecutor:
        def agent_of(name: str) -> AgentExecutor:
            return self.create_agent(self._inner(template, name))

        self.check_template(template)
        built = assemble(template, self.registry, values, agent_of, self._checkpointer)
        runtime = template.spec.runtime
        limits, timeout = runtime.limits, runtime.timeout
        return AgentExecutor(
            built.agent,
            pipeline=self._layers(template),
            limits=RunLimits(**dict(limits)) if limits.model_fields_set else None,
            timeouts=Timeouts(timeout.run, timeout.idle, timeout.model_call) if timeout.model_fields_set else None,
            callback_handler=self.callback_handler,
            name=template.metadata.name,
            description=template.metadata.description,
            gated=built.gated,
            hold_text=built.hold_text,
            digest=template.digest,
        )

    def _layers(self, template: AgentTemplate) -> list[Middleware]:
        retry = template.spec.runtime.retry
        configured: dict[str, Middleware] = {
            "logging": LoggingMiddleware(),
            "retry": RetryMiddleware(retry.attempts, retry.retry_on, retry.initial_delay, retry.max_delay),
        }
        names: Sequence[str | Middleware] = template.spec.runtime.pipeline or self._pipeline or DEFAULT_ORDER
        layers: list[Middleware] = []
        for name in names:
            layer = name if isinstance(name, Middleware) else configured.get(name) or self.registry.layers.get(name)
            if layer is None:
                raise UnknownComponent("layer", str(name), [*configured, *self.registry.layers])
            layers.append(layer() if isinstance(layer, type) else layer)
        return layers


def _overridden(template: AgentTemplate, overrides: Mapping[str, Any]) -> AgentTemplate:
    content = template.model_dump(by_alias=True, exclude_unset=True)
    content["spec"] = _deepened(content["spec"], overrides)
    try:
        changed = AgentTemplate.model_validate(content)
    except ValidationError as error:
        raise TemplateError(template_problems(error)) from None
    changed._agents, changed._folder, changed._place = template.agents, template.folder, template._place
    return changed


def _deepened(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _deepened(merged[key], value) if nested else value
    return merged
