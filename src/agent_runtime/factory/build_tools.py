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
from agent_runtime.orchestration.subagents import task_tool
from agent_runtime.registry import Registry
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.run.idempotency import idempotent
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


def toolbox(
    template: AgentTemplate,
    registry: Registry,
    inputs: Mapping[str, Any],
    agent_of: Callable[[str], AgentExecutor],
    middleware_of: Callable[..., Any],
    names: ToolNames,
) -> list[BaseTool]:
    """All tools of a template's agent, gated.

    `inputs` fill their arguments, `agent_of` gives the executor behind an `agent:` tool,
    `middleware_of` makes what sub-agents name; `names` hears how each tool may be called. Raises
    ConfigurationError for what does not fit, McpServerFailed.
    """
    spec = template.spec
    inner = partial(_tools, template=template, registry=registry, inputs=inputs, agent_of=agent_of)
    tools = inner(spec.tools, names=names)
    awaited = frozenset(
        tool
        for name, asks in spec.interrupt_on.items()
        if asks and name in names
        for tool in names.resolve(name)
    )
    subagents = {
        each.name: _subagent(each, spec, tools, inner, registry, middleware_of, awaited)
        for each in spec.subagents
    }
    if subagents:
        names.add("task")
        tools = [
            *tools,
            gated_tool(task_tool(spec.subagents, subagents, spec.runtime.limits.max_steps)),
        ]
    if template.skills:
        names.add("read_skill")
        tools = [*tools, gated_tool(idempotent(skill_reader(template.skills)))]
    _check_names(template, tools)
    return tools


def _tools(
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
            tools.append(_tool(spec, registry, inputs, agent_of))
            names.add(tools[-1].name, spec.use, spec.ref, spec.agent)
            continue
        for each in registry.mcp(spec, template.folder):
            tools.append(gated_tool(idempotent(each) if spec.idempotent else each))
            names.add(each.name, each.name.removeprefix(f"{spec.as_}_"))
    return tools


def _check_names(template: AgentTemplate, tools: Sequence[BaseTool]) -> None:
    names = [tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            f"template '{template.metadata.name}': two tools are called '{twice[0]}'; `as` "
            "renames an agent's tool, "
            "and goes before the names of an MCP server's tools"
        )


def _subagent(
    each: SubagentSpec,
    spec: Spec,
    tools: Sequence[BaseTool],
    inner: Callable[..., list[BaseTool]],
    registry: Registry,
    middleware_of: Callable[..., Any],
    awaited: frozenset[str],
) -> Any:
    """The graph of a sub-agent.

    It is part of this agent's run, and its steps are saved as steps of that.
    """
    names = ToolNames()
    own = list(tools) if each.tools is None else inner(each.tools, names=names)
    if each.tools is None:
        for tool in own:
            names.add(tool.name)
    if waits := sorted({tool.name for tool in own} & awaited):
        raise ConfigurationError(
            f"the sub-agent '{each.name}' would use '{waits[0]}', which waits for a person: a "
            "sub-agent cannot wait; "
            "give it `tools` without it"
        )
    model = each.model or spec.model
    assert model is not None  # noqa: S101 - the template's own check
    return create_agent(
        registry.model(model),
        own,
        system_prompt=each.system_prompt,
        middleware=[middleware_of(m, names=names) for m in each.middleware],
        name=each.name,
    )


def _tool(
    spec: ToolSpec,
    registry: Registry,
    inputs: Mapping[str, Any],
    agent_of: Callable[[str], AgentExecutor],
) -> BaseTool:
    if (
        spec.use is not None
        and not spec.args
        and not spec.idempotent
        and not registry.makes_tools(spec.use)
    ):
        code = registry.code_of(spec)
        (known, ready) = registry.ready_tools.get(spec.use, (None, None))
        if ready is None or known != code:
            ready = gated_tool(registry.tool(spec.use, {}))
            registry.ready_tools[spec.use] = (code, ready)
        return ready
    args = render_value(spec.args, inputs)
    if spec.use is not None:
        made = registry.tool(spec.use, args)
    elif spec.ref is not None:
        made = registry.ref(spec.ref, args)
    else:
        made = agent_tool(agent_of(spec.agent or ""), spec.as_)
    return gated_tool(idempotent(made) if spec.idempotent else made)


def agent_tool(
    executor: AgentExecutor, name: str | None = None, description: str | None = None
) -> BaseTool:
    """An agent as a tool of another.

    Its calls go through its own onion and count towards the run around it.

    What the inner agent raises as a CallError reaches the outer model as an error message of the
    tool; what its tools report reaches the reader of the outer stream. Raises ConfigurationError
    for an agent that may ask a person: it has no session of its own in which it could wait.
    """
    if getattr(executor, "needs_session", False):
        raise ConfigurationError(
            f"the agent '{executor.name}' may ask a person, and as a tool of another it cannot "
            "wait for the answer: "
            "take out its approvals, or give its tools to the outer agent, which can ask"
        )

    async def ask(request: str) -> str:
        try:
            return await _answer_of(executor, _inner_call(request))
        except (CallError, InputInvalid) as error:
            raise ToolException(f"{error.code}: {error}") from error

    return structured_tool(
        coroutine=ask,
        name=name or executor.name or "agent",
        description=description or executor.description or f"Ask the agent '{executor.name}'.",
        handle_tool_error=True,
    )


async def _answer_of(executor: AgentExecutor, call: AgentContext) -> str:
    run = current_run.get()
    if run is None or not run.context.streaming or not hasattr(executor, "execute_stream"):
        return (await executor.execute(call)).output
    write = get_stream_writer()
    async with executor.execute_stream(call) as stream:
        async for chunk in stream.chunks():
            if isinstance(chunk, CustomChunk):
                write(chunk.data)
    return stream.result.output


def _inner_call(request: str) -> AgentContext:
    run = current_run.get()
    if run is None:
        return AgentContext(request)
    return AgentContext(request, deadline=run.context.deadline)
