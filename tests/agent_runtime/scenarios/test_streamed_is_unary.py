"""A call has one result, whether it is unary or streamed: every field, over generated runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langgraph.types import interrupt

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFailed,
    AgentResult,
    CallError,
    ProviderError,
    Resume,
    RunLimits,
    SessionManager,
    SessionMiddleware,
    gated,
)
from agent_runtime.testing import ScriptedChatModel, say

TOOLS = st.sampled_from(["plain", "listed", "fails", "asks", "also_asks"])
WORDS = st.sampled_from(["", "Let me look. ", "two  words\n", "ünïcode ✓"])
STEPS = st.lists(st.tuples(WORDS, st.lists(TOOLS, max_size=3, unique=True)), max_size=3)
ENDS = st.sampled_from(["answer", "structured", "fails", "fails in mid-stream", "says no usage"])


def plain(text: str = "x") -> str:
    """Return text."""
    return f"plain {text}"


def listed() -> list[dict[str, str]]:
    """Return content blocks."""
    return [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]


def fails() -> str:
    """Fail in the tool."""
    raise ValueError("the tool failed")


async def asks() -> str:
    """Ask a person."""
    return f"said {interrupt('which?')}"


async def also_asks() -> str:
    """Ask a person a step of the loop later."""
    await asyncio.sleep(0)
    return f"said {interrupt({'question': 'how much?'})}"


def end_of(kind: str) -> Any:
    if kind == "structured":
        return say("", ("Verdict", {"right": True}))
    if kind == "fails":
        return say("no", fail=ConnectionError("cut"))
    if kind == "fails in mid-stream":
        return say("not to the end", fail=ConnectionError("cut"), fail_after=2)
    return say("The end is here.", usage=None if kind == "says no usage" else (30, 4))


def agent_of(steps: Sequence[tuple[str, list[str]]], kind: str, limit: int | None) -> AgentExecutor:
    script = [say(text, *((name, {}) for name in names)) for text, names in steps if names]
    script.append(end_of(kind))
    schema = {
        "title": "Verdict",
        "type": "object",
        "properties": {"right": {"type": "boolean"}},
        "required": ["right"],
    }
    manager = SessionManager()
    how: Any = schema if kind == "structured" else None
    graph: Any = create_agent(
        gated(ScriptedChatModel(script=script)),
        [plain, listed, fails, asks, also_asks],
        response_format=how,
        checkpointer=manager.checkpointer,
    )
    return AgentExecutor(
        graph,
        gated=True,
        pipeline=[SessionMiddleware(manager)],
        limits=RunLimits(model_calls=limit),
    )


def shown(result: AgentResult) -> dict[str, Any]:
    """Return every field that is not random: ids of runs and messages are."""
    messages = [each.model_dump(exclude={"id"}) for each in result.messages]
    document = result.to_dict()
    return {
        **{
            name: document[name]
            for name in document
            if name not in ("run_id", "duration_s", "interrupts")
        },
        "interrupts": sorted(repr(each.value) for each in result.interrupts),
        "ids": len({each.id for each in result.interrupts}),
        "messages": messages,
        "types": [type(each) for each in result.messages],
        "value": sorted(result.value) if isinstance(result.value, dict) else type(result.value),
    }


async def turns(agent: AgentExecutor, *, streamed: bool) -> list[Any]:
    """Run a conversation to its end, and answer what it asks; return what each turn gave."""
    given: Any = "go"
    outcomes: list[Any] = []
    for _ in range(12):
        context = AgentContext(given, session_id="s")
        try:
            if streamed:
                async with agent.execute_stream(context) as stream:
                    async for _ in stream:
                        pass
                result = stream.result
            else:
                result = await agent.execute(context)
        except CallError as error:
            usage = error.usage.to_dict()
            # Which calls had begun, and which threads still ran, is the scheduler's matter.
            if isinstance(error, AgentFailed):
                usage["tool_calls"] = usage["sync_threads_left"] = None
            if isinstance(error, ProviderError):  # what was sent before a stream was cut is billed
                usage = {}
            return [*outcomes, (type(error), str(error), usage)]
        outcomes.append(shown(result))
        if result.status == "completed":
            return outcomes
        given = Resume({each.id: "this one" for each in result.interrupts})
    raise AssertionError("the conversation has no end")


@settings(max_examples=25, deadline=None)
@given(STEPS, ENDS, st.none() | st.integers(1, 4))
def test_every_field_is_equal(
    steps: list[tuple[str, list[str]]], kind: str, limit: int | None
) -> None:
    async def both() -> None:
        unary = await turns(agent_of(steps, kind, limit), streamed=False)
        assert await turns(agent_of(steps, kind, limit), streamed=True) == unary

    asyncio.run(both())
