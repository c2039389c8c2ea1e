"""From a template to the LangChain agent it declares."""

from __future__ import annotations

import copy
import inspect
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.tools import BaseTool
from langgraph.pregel import Pregel

from agent_runtime.errors import ConfigurationError, Problem, close_matches
from agent_runtime.errors.user_code import error_text
from agent_runtime.factory.build_tools import build_tools
from agent_runtime.factory.tool_names import (
    TOOL_NAME_ARGUMENTS,
    ToolNames,
    tool_names_of,
    unknown_tool_names,
)
from agent_runtime.orchestration.boundaries import copy_graph
from agent_runtime.orchestration.prompt import PromptMiddleware
from agent_runtime.registry import (
    LANGCHAIN_MIDDLEWARE,
    MODEL_ARGUMENTS,
    REWRITING_MIDDLEWARE,
    Registry,
)
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.template.parts_spec import InterruptSpec, MiddlewareSpec, ModelSpec, SubagentSpec
from agent_runtime.template.prompt import placeholders
from agent_runtime.template.response_schema import validating_class
from agent_runtime.template.skills import with_skills

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.template import AgentTemplate
    from agent_runtime.template.spec import Spec


REWRITING_HOOKS = (
    *("after_model", "aafter_model", "after_agent", "aafter_agent"),
    *("wrap_model_call", "awrap_model_call"),
)


def unknown_names(
    template: AgentTemplate, registry: Registry, layers: Collection[str], templates: Collection[str]
) -> list[Problem]:
    """Return a problem for each unregistered name in a template and its agents."""
    spec = template.spec
    problems = list[Problem]()

    def check(path: str, kind: str, name: str | None, registered_names: Collection[str]) -> None:
        if name is not None and name not in registered_names:
            code = "unknown_tool" if kind == "tool" else "template_invalid"
            problems.append(
                template.problem(
                    path, f"unknown {kind} '{name}': {close_matches(name, registered_names)}", code
                )
            )

    parts: list[tuple[str, Spec | SubagentSpec]] = [("spec", spec)]
    parts += [(f"spec.subagents.{n}", subagent) for n, subagent in enumerate(spec.subagents)]
    for part_path, part in parts:
        for i, tool in enumerate(part.tools or ()):
            check(f"{part_path}.tools.{i}.use", "tool", tool.use, registry.tools)
            check(f"{part_path}.tools.{i}.ref", "tool", tool.ref, registry.allowed_refs)
            check(
                f"{part_path}.tools.{i}.agent",
                "template",
                tool.agent,
                {*template.agents, *templates},
            )
        for i, middleware in enumerate(part.middleware):
            middleware_names = {*registry.middleware, *LANGCHAIN_MIDDLEWARE}
            check(f"{part_path}.middleware.{i}.use", "middleware", middleware.use, middleware_names)
    for i, name in enumerate(spec.runtime.pipeline or ()):
        check(f"spec.runtime.pipeline.{i}", "layer", name, layers)
    check("spec.memory", "memory", spec.memory, registry.memories)
    check("spec.workflow", "workflow", spec.workflow, registry.workflows)
    if not problems:  # an unknown tool is reported once
        problems += unknown_tool_names(template, registry, templates)
    for nested_template in template.agents.values():
        problems += unknown_names(nested_template, registry, layers, templates)
    return problems


@dataclass(frozen=True, slots=True)
class BuiltAgent:
    """Hold a built agent, and what its executor has to know.

    `gated`: every model reports to the gate by itself. `hold_text`: messages are emitted whole.
    `needs_session`: the agent interrupts to ask a person.
    """

    agent: Runnable[Any, Any]
    gated: bool
    hold_text: bool
    needs_session: bool = False
    tools: Sequence[BaseTool] = ()


def build_agent(
    template: AgentTemplate,
    registry: Registry,
    inputs: Mapping[str, Any],
    agent_of: Callable[[str], AgentExecutor],
    checkpointer: Any = None,
) -> BuiltAgent:
    """Build a template's agent.

    `inputs` fill the tools' arguments; `agent_of` returns the executor behind an `agent:` tool.
    `unknown_names` has checked the names before. Raises ConfigurationError for invalid arguments.
    """
    spec = template.spec
    if spec.workflow is not None:
        return BuiltAgent(
            _with_checkpointer(checkpointer, registry.workflows[spec.workflow]),
            gated=False,
            hold_text=False,
        )
    assert spec.model is not None  # noqa: S101 - the template's own check
    prompt = spec.system_prompt if isinstance(spec.system_prompt, str) else None
    per_run_prompt = prompt is not None and bool(placeholders(prompt)[0])
    names = ToolNames()
    middleware_of = partial(_build_gated_middleware, registry=registry, names=names)
    tools = build_tools(template, registry, inputs, agent_of, middleware_of, names)
    middleware: list[Any] = [PromptMiddleware()] if per_run_prompt else []
    middleware += _build_all_middleware(spec.middleware, middleware_of, names)
    middleware += _fallback_middleware(spec.model, registry)
    middleware += _approval_middleware(spec.interrupt_on, names)
    model = registry.model(spec.model)
    try:
        agent = create_agent(
            model,
            tools,
            system_prompt=None
            if per_run_prompt
            else with_skills(prompt or "", template.skills) or None,
            middleware=middleware,
            response_format=_response_format(template),
            checkpointer=checkpointer,
            store=registry.memories.get(spec.memory or ""),
            name=template.metadata.name,
        )
    except (
        AssertionError,
        ValueError,
        TypeError,
        NotImplementedError,
    ) as error:  # LangChain's own checks
        raise ConfigurationError(
            f"template '{template.metadata.name}' cannot be built: {error}"
        ) from error
    subagent_middleware = [m for subagent in spec.subagents for m in subagent.middleware]
    return BuiltAgent(
        agent,
        gated=not any(
            m.use in registry.middleware for m in [*spec.middleware, *subagent_middleware]
        ),
        hold_text=any(_may_rewrite_answer(m, registry) for m in spec.middleware),
        needs_session=bool(spec.interrupt_on)
        or any(m.use == "human_in_the_loop" for m in spec.middleware),
        tools=tools,
    )


def _with_checkpointer(checkpointer: Any, workflow: Any) -> Any:
    # The session manager's saver replaces the graph's own: it alone handles turns and tenants.
    replaces_saver = checkpointer is not None and isinstance(workflow, Pregel)
    return copy_graph(workflow, checkpointer=checkpointer) if replaces_saver else workflow


def _build_all_middleware(
    specs: Sequence[MiddlewareSpec],
    middleware_of: Callable[[MiddlewareSpec], Any],
    names: ToolNames,
) -> list[Any]:
    """Build an agent's middleware; those that name tools come last, because others may add some."""
    middleware_by_position: dict[int, Any] = {}
    for position, spec in sorted(
        enumerate(specs), key=lambda indexed_spec: indexed_spec[1].use in TOOL_NAME_ARGUMENTS
    ):
        middleware_by_position[position] = middleware_of(spec)
        for name in tool_names_of(middleware_by_position[position]):
            names.add(name)
    return [middleware_by_position[position] for position in range(len(specs))]


def _approval_middleware(
    interrupt_on: Mapping[str, bool | InterruptSpec], names: ToolNames
) -> list[Any]:
    if not interrupt_on:
        return []
    from langchain.agents.middleware import HumanInTheLoopMiddleware

    decisions = {
        name: spec if isinstance(spec, bool) else spec.model_dump(exclude_none=True)
        for name, spec in interrupt_on.items()
    }
    return [HumanInTheLoopMiddleware(interrupt_on=names.resolve_keys(decisions))]


def _response_format(template: AgentTemplate) -> Any:
    if template.spec.response_format is None:
        return None
    schema = template.spec.response_format.schema_
    # LangChain names the answer's tool after the title, and makes up a random one without it.
    return (
        validating_class({"title": "final_answer", **schema})
        if isinstance(schema, dict)
        else schema
    )


def _middleware_arguments(spec: MiddlewareSpec) -> dict[str, Any]:
    return dict(spec.model_extra or {})


def _may_rewrite_answer(spec: MiddlewareSpec, registry: Registry) -> bool:
    """Return whether a middleware may change a message after it was streamed."""
    if spec.use not in registry.middleware:
        return spec.use in REWRITING_MIDDLEWARE and bool(
            _middleware_arguments(spec).get("apply_to_output")
        )
    if spec.use in registry.streams_safely:
        return False
    component = registry.middleware[spec.use]
    cls = component if inspect.isclass(component) else type(component)
    return any(getattr(cls, hook) is not getattr(AgentMiddleware, hook) for hook in REWRITING_HOOKS)


def _fallback_middleware(spec: ModelSpec, registry: Registry) -> list[Any]:
    if not spec.fallbacks:
        return []
    from langchain.agents.middleware import ModelFallbackMiddleware

    first, *rest = [
        registry.model(ModelSpec(id=name, params=spec.params, limits=spec.limits))
        for name in spec.fallbacks
    ]
    return [ModelFallbackMiddleware(first, *rest)]


def _build_middleware(spec: MiddlewareSpec, registry: Registry, names: ToolNames) -> Any:
    component = registry.langchain_middleware(spec.use)
    args = _middleware_arguments(spec)
    if not inspect.isclass(component):
        if args:
            raise ConfigurationError(
                f"middleware '{spec.use}' is registered ready-made and takes no arguments"
            )
        return component
    for name in MODEL_ARGUMENTS:
        if args.get(name) is not None:
            args[name] = _model_argument(spec.use, name, args[name], registry)
    if (
        spec.use not in registry.middleware
        and (tools_argument := TOOL_NAME_ARGUMENTS.get(spec.use)) in args
    ):
        args[tools_argument] = names.resolve_argument(spec.use, args[tools_argument])
    try:
        args, positional = _adapt_arguments(spec.use, args, registry)
        _check_arguments(component, positional, args)
        return component(*positional, **args)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"middleware '{spec.use}': {error}") from None


def _model_argument(use: str, name: str, value: Any, registry: Registry) -> Any:
    if isinstance(
        value, dict | list
    ):  # an application's own middleware defines this argument itself
        raise ConfigurationError(
            f"middleware '{use}': '{name}' is the name of a model, not {value!r}"
        )
    if not isinstance(value, str):
        return value
    return registry.model(ModelSpec(id=value))


def _check_arguments(middleware: Any, positional: list[Any], keywords: dict[str, Any]) -> None:
    signature = inspect.signature(middleware)
    signature.bind(*positional, **keywords)
    parameter_names = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    is_from_langchain = getattr(middleware, "__module__", "").startswith("langchain.")
    if is_from_langchain and (
        unknown := [name for name in keywords if name not in parameter_names]
    ):
        raise TypeError(f"got an unexpected keyword argument '{unknown[0]}'")


def _build_gated_middleware(spec: MiddlewareSpec, registry: Registry, names: ToolNames) -> Any:
    """Build a middleware, and count, limit and record its own tools like the template's."""
    middleware = _build_middleware(spec, registry, names)
    tools = [
        tool for tool in getattr(middleware, "tools", None) or () if isinstance(tool, BaseTool)
    ]
    if not tools:
        return middleware
    gated_copy = copy.copy(middleware)  # a ready-made one may serve several agents
    gated_copy.tools = [gated_tool(registry.wrap_middleware_tool(tool)) for tool in tools]
    return gated_copy


def _check_summary_prompt(prompt: Any) -> None:
    """Raise ValueError for a text whose formatting does more than insert the messages.

    A width may take all memory.
    """
    fields = [field for _, *field in string.Formatter().parse(str(prompt)) if field[0] is not None]
    if any(field != ["messages", "", None] for field in fields):
        raise ValueError("summary_prompt has {messages} and no other field; write a brace twice")


def _adapt_arguments(
    name: str, args: dict[str, Any], registry: Registry
) -> tuple[dict[str, Any], list[Any]]:
    """Convert the few arguments that YAML cannot express as Python does."""
    if name == "model_fallback":
        if set(args) != {"models"}:
            raise ValueError("give its models as a list: models: [...]")
        return {}, [registry.model(ModelSpec(id=m)) for m in args["models"]]
    if name == "context_editing":
        from langchain.agents.middleware import ClearToolUsesEdit

        return {"edits": [ClearToolUsesEdit(**args)]}, []
    if name == "tool_emulator" and "model" not in args:
        raise ValueError("give the model that plays the tools: model: provider:name")
    if name == "tool_error":
        return {
            "on_error": lambda error, _request: f"{type(error).__name__}: {error_text(error)}",
            **args,
        }, []
    if name == "summarization" and "summary_prompt" in args:
        _check_summary_prompt(args["summary_prompt"])
    if name == "summarization":  # `trigger: {tokens: 8000}` means LangChain's ("tokens", 8000)
        return {
            k: next(iter(v.items())) if isinstance(v, dict) and len(v) == 1 else v
            for k, v in args.items()
        }, []
    return args, []
