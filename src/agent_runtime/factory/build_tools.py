"""The tools of a template's agent.

Registered ones, other agents, MCP servers', sub-agents and skills.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain.agents import create_agent
from langchain_core.tools import BaseTool, ToolException
from langgraph.config import get_stream_writer

from agent_runtime.chunks import CustomChunk
from agent_runtime.errors import CallError, ConfigurationError, InputInvalid
from agent_runtime.factory.tool_names import ToolNames
from agent_runtime.orchestration.subagents import build_task_tool
from agent_runtime.registry import Registry
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.run.idempotency import mark_idempotent
from agent_runtime.run.state import current_run
from agent_runtime.template.parts_spec import SubagentSpec, ToolSpec
from agent_runtime.template.prompt import render_value
from agent_runtime.tools.function_tool import structured_tool
from agent_runtime.tools.skill_reader import skill_reader
from agent_runtime.types import AgentContext

if TYPE_CHECKING:
    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.template import AgentTemplate
    from agent_runtime.template.spec import Spec


def build_tools(
    template: AgentTemplate,
    registry: Registry,
    inputs: Mapping[str, Any],
    agent_of: Callable[[str], AgentExecutor],
    middleware_of: Callable[..., Any],
    names: ToolNames,
) -> list[BaseTool]:
    """Build all tools of a template's agent, gated.

    `inputs` fill their arguments, `agent_of` returns the executor behind an `agent:` tool,
    `middleware_of` builds the middleware of sub-agents; `names` collects the tools' names. Raises
    ConfigurationError for invalid arguments, McpServerFailed.
    """
    spec = template.spec
    tools_for = partial(
        _build_listed_tools, template=template, registry=registry, inputs=inputs, agent_of=agent_of
    )
    tools = tools_for(spec.tools, names=names)
    approval_tools = frozenset(
        tool
        for name, needs_approval in spec.interrupt_on.items()
        if needs_approval and name in names
        for tool in names.resolve(name)
    )
    subagents = {
        subagent.name: _build_subagent(
            subagent, spec, tools, tools_for, registry, middleware_of, approval_tools
        )
        for subagent in spec.subagents
    }
    if subagents:
        names.add("task")
        tools = [
            *tools,
            gated_tool(build_task_tool(spec.subagents, subagents, spec.runtime.limits.max_steps)),
        ]
    if template.skills:
        names.add("read_skill")
        tools = [*tools, gated_tool(mark_idempotent(skill_reader(template.skills)))]
    _check_unique_names(template, tools)
    return tools


def _build_listed_tools(
    specs: Sequence[ToolSpec],
    template: AgentTemplate,
    registry: Registry,
    inputs: Mapping[str, Any],
    agent_of: Callable[[str], AgentExecutor],
    names: ToolNames,
) -> list[BaseTool]:
    tools: list[BaseTool] = []
    for spec in specs:
        if spec.mcp is None:
            tools.append(_build_tool(spec, registry, inputs, agent_of))
            names.add(tools[-1].name, spec.use, spec.ref, spec.agent)
            continue
        for mcp_tool in registry.mcp(spec, template.folder):
            tools.append(gated_tool(mark_idempotent(mcp_tool) if spec.idempotent else mcp_tool))
            names.add(mcp_tool.name, mcp_tool.name.removeprefix(f"{spec.as_}_"))
    return tools


def _check_unique_names(template: AgentTemplate, tools: Sequence[BaseTool]) -> None:
    names = [tool.name for tool in tools]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            f"template '{template.metadata.name}': two tools are called '{duplicates[0]}'; `as` "
            "renames an agent's tool, "
            "and goes before the names of an MCP server's tools"
        )


def _build_subagent(
    subagent: SubagentSpec,
    spec: Spec,
    tools: Sequence[BaseTool],
    tools_for: Callable[..., list[BaseTool]],
    registry: Registry,
    middleware_of: Callable[..., Any],
    approval_tools: frozenset[str],
) -> Any:
    """Build the graph of a sub-agent, which is part of this agent's run and its saved steps."""
    names = ToolNames()
    subagent_tools = (
        list(tools) if subagent.tools is None else tools_for(subagent.tools, names=names)
    )
    if subagent.tools is None:
        for tool in subagent_tools:
            names.add(tool.name)
    if blocked_tools := sorted({tool.name for tool in subagent_tools} & approval_tools):
        raise ConfigurationError(
            f"the sub-agent '{subagent.name}' would use '{blocked_tools[0]}', which waits for a "
            "person: a "
            "sub-agent cannot wait; "
            "give it `tools` without it"
        )
    model = subagent.model or spec.model
    assert model is not None  # noqa: S101 - the template's own check
    return create_agent(
        registry.model(model),
        subagent_tools,
        system_prompt=subagent.system_prompt,
        middleware=[middleware_of(m, names=names) for m in subagent.middleware],
        name=subagent.name,
    )


def _build_tool(
    spec: ToolSpec,
    registry: Registry,
    inputs: Mapping[str, Any],
    agent_of: Callable[[str], AgentExecutor],
) -> BaseTool:
    if (
        spec.use is not None
        and not spec.args
        and not spec.idempotent
        and not registry.is_tool_factory(spec.use)
    ):
        fingerprint = registry.tool_fingerprint(spec)
        (cached_fingerprint, shared_tool) = registry.tool_cache.get(spec.use, (None, None))
        if shared_tool is None or cached_fingerprint != fingerprint:
            shared_tool = gated_tool(registry.tool(spec.use, {}))
            registry.tool_cache[spec.use] = (fingerprint, shared_tool)
        return shared_tool
    args = render_value(spec.args, inputs)
    if spec.use is not None:
        tool = registry.tool(spec.use, args)
    elif spec.ref is not None:
        tool = registry.ref(spec.ref, args)
    else:
        tool = agent_tool(agent_of(spec.agent or ""), spec.as_)
    return gated_tool(mark_idempotent(tool) if spec.idempotent else tool)


def agent_tool(
    executor: AgentExecutor, name: str | None = None, description: str | None = None
) -> BaseTool:
    """Return an agent as a tool of another.

    Its calls pass through its own pipeline and count towards the outer run. A CallError of the
    inner agent reaches the outer model as the tool's error message; custom chunks of its tools
    reach the outer stream. Raises ConfigurationError for an agent that may ask a person: it has no
    session of its own to wait in.
    """
    if getattr(executor, "needs_session", False):
        raise ConfigurationError(
            f"the agent '{executor.name}' may ask a person, and as a tool of another it cannot "
            "wait for the answer: "
            "take out its approvals, or give its tools to the outer agent, which can ask"
        )

    async def ask(request: str) -> str:
        try:
            return await _run_inner_agent(executor, _inner_context(request))
        except (CallError, InputInvalid) as error:
            raise ToolException(f"{error.code}: {error}") from error

    return structured_tool(
        coroutine=ask,
        name=name or executor.name or "agent",
        description=description or executor.description or f"Ask the agent '{executor.name}'.",
        handle_tool_error=True,
    )


async def _run_inner_agent(executor: AgentExecutor, context: AgentContext) -> str:
    run = current_run.get()
    if run is None or not run.context.streaming or not hasattr(executor, "execute_stream"):
        return (await executor.execute(context)).output
    write = get_stream_writer()
    async with executor.execute_stream(context) as stream:
        async for chunk in stream.chunks():
            if isinstance(chunk, CustomChunk):
                write(chunk.data)
    return stream.result.output


def _inner_context(request: str) -> AgentContext:
    run = current_run.get()
    if run is None:
        return AgentContext(request)
    return AgentContext(request, deadline=run.context.deadline)
