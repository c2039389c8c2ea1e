"""A tool's result has a bound on every way.

The model reads that it was cut, and a session stays small.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.types import Command

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    RunLimits,
    SessionManager,
    SessionMiddleware,
    gated,
)
from agent_runtime.pool import AgentInstancePool
from agent_runtime.run.result_bound import _SizeBudget, approximate_size
from agent_runtime.template import AgentTemplate
from agent_runtime.testing import ScriptedChatModel, say

MIB = 1024 * 1024
MARK = "\n[cut here: the result has"


def tool_of(result: Any, *, is_async: bool = False, **settings: Any) -> BaseTool:
    def work() -> Any:
        """Work."""
        if isinstance(result, Exception):
            raise result
        return result() if callable(result) else result

    async def awork() -> Any:
        """Work."""
        return work()

    way: Any = {"coroutine": awork} if is_async else {"func": work}
    return StructuredTool.from_function(**way, name="work", handle_tool_error=True, **settings)


def script(messages: list[Any]) -> Any:
    return say("fine") if isinstance(messages[-1], ToolMessage) else say("", ("work", {}))


async def message_of(tool: BaseTool, *, streamed: bool = False, **limits: int) -> ToolMessage:
    """Run an agent that calls the tool once; return what its model read."""
    model = ScriptedChatModel(script=script)
    agent = AgentExecutor(
        create_agent(gated(model), [tool]),
        gated=True,
        limits=RunLimits(**limits) if limits else None,
    )
    if streamed:
        async with agent.execute_stream("go") as stream:
            async for _ in stream:
                pass
    else:
        await agent.execute("go")
    message = model.received_messages[-1][-1]
    assert isinstance(message, ToolMessage)
    return message


@pytest.mark.parametrize("streamed", [False, True])
async def test_fifty_megabytes_are_a_mebibyte_for_the_model_and_the_session(streamed: bool) -> None:
    message = await message_of(tool_of("x" * 50_000_000), streamed=streamed)
    assert len(message.content) <= MIB
    assert str(message.content).endswith(
        "[cut here: the result has 50,000,000 bytes; ask for less]"
    )
    assert message.status == "success"


LARGE = "ä" * 3000


def blocks(*texts: str) -> list[Any]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    "result",
    [
        LARGE,
        blocks(LARGE),
        blocks("a", LARGE, "b"),
        [LARGE, "x"],
        {"rows": [LARGE]},
        [{"n": LARGE}],
        ("a", LARGE),
        ToolException(LARGE),
        lambda: ToolMessage(LARGE, tool_call_id="call_0_0"),
        lambda: Command(update={"messages": [ToolMessage(LARGE, tool_call_id="call_0_0")]}),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_every_form_of_a_result_is_cut(result: Any, is_async: bool) -> None:
    message = await message_of(tool_of(result, is_async=is_async), tool_result_bytes=2048)
    assert len(message.text.encode()) <= 2048 + 80
    assert MARK.strip() in message.text


@pytest.mark.parametrize(
    "result", ["x" * 2048, blocks("x" * 900, "y" * 900), {"a": 1}, 7, None, ["a", "b"], []]
)
async def test_what_fits_is_left_as_it_is(result: Any) -> None:
    bounded = await message_of(tool_of(result), tool_result_bytes=2048)
    assert bounded.content == (await message_of(tool_of(result))).content
    assert "cut here" not in bounded.text


@pytest.mark.parametrize("text", ["", "x"])
async def test_many_small_parts_have_the_bound_of_one_text(text: str) -> None:
    message = await message_of(tool_of(blocks(*[text] * 50_000)), tool_result_bytes=4096)
    assert len(json.dumps(message.content)) < 4096 + 100
    assert message.text.count("cut here") == 1


OTHERS: dict[str, Any] = {
    "a message as a map": lambda: Command(
        update={"messages": [{"role": "tool", "content": LARGE, "tool_call_id": "call_0_0"}]}
    ),
    "beside a text": [{"type": "text", "text": "x", "extras": {"a": LARGE}}],
    "beside a message": lambda: ToolMessage(
        "x", tool_call_id="call_0_0", additional_kwargs={"a": LARGE}
    ),
}


@pytest.mark.parametrize("result", OTHERS.values(), ids=list(OTHERS))
async def test_nothing_passes_beside_the_text(result: Any) -> None:
    message = await message_of(tool_of(result), tool_result_bytes=2048, tool_media_bytes=2048)
    assert len(message.model_dump_json().encode()) < 3000


async def test_images_and_artifacts_have_a_bound_of_their_own() -> None:
    image = {"type": "image", "base64": "A" * 5000, "mime_type": "image/png"}
    message = await message_of(tool_of([*blocks("see"), image]), tool_media_bytes=4096)
    assert message.text == "see[left out: the image is too large]"
    assert (await message_of(tool_of([image]), tool_media_bytes=8192)).content == [image]
    both = tool_of(("seen", {"rows": ["x" * 5000]}), response_format="content_and_artifact")
    message = await message_of(both, tool_media_bytes=4096)
    assert (message.artifact, "its artifact was left out" in message.text) == (None, True)
    assert (await message_of(both)).artifact == {"rows": ["x" * 5000]}


async def test_a_session_and_its_next_turn_hold_what_was_cut() -> None:
    manager = SessionManager()
    model = gated(ScriptedChatModel(script=script))
    tools = [tool_of("x" * 100_000)]
    graph = create_agent(model, tools, checkpointer=manager.checkpointer)
    limits = RunLimits(tool_result_bytes=1024)
    agent = AgentExecutor(graph, gated=True, limits=limits, pipeline=[SessionMiddleware(manager)])
    await agent.execute(AgentContext("go", session_id="s"))
    checkpoint = await manager.checkpoints.get("s")
    assert checkpoint is not None
    assert max(len(each.text) for each in checkpoint.messages) <= 1024


def large() -> str:
    """Return 100,000 bytes."""
    return "x" * 100_000


async def test_a_template_s_bound_holds_in_a_process_too() -> None:
    factory = AgentFactory()
    factory.register_tool("large", large)
    factory.register_model("m", ScriptedChatModel(script=echo))
    parts = {"apiVersion": "agent-runtime/v1", "kind": "AgentTemplate", "metadata": {"name": "t"}}
    limits = {"limits": {"tool_result_bytes": 1024}}
    spec = {"model": "m", "tools": ["large"], "runtime": limits}
    factory.register_template(AgentTemplate.model_validate({**parts, "spec": spec}))
    async with factory, AgentInstancePool(factory) as pool:
        for agent in (factory.create_from_template("t"), pool.agent("t")):
            assert (await agent.execute("go")).output == "1024 bytes, cut"


def echo(messages: list[Any]) -> Any:
    if not isinstance(messages[-1], ToolMessage):
        return say("", ("large", {}))
    return say(f"{len(messages[-1].text)} bytes, {'cut' if MARK in messages[-1].text else 'whole'}")


@given(st.text(max_size=400), st.integers(60, 300))
def test_a_text_is_whole_or_a_begin_with_a_mark(text: str, bound: int) -> None:
    text = text.encode(errors="ignore").decode()
    bounded = _SizeBudget(bound, bound).truncate(text)
    if len(text.encode()) <= bound:
        assert bounded == text
    else:
        begin, mark, _ = bounded.partition(MARK)
        assert (text.startswith(begin), mark, len(bounded.encode()) <= bound) == (True, MARK, True)


def test_an_artifact_is_measured_for_so_long_only() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert approximate_size(circle, 1000) == 1001
    assert approximate_size([memoryview(bytes(5000))], 1000) > 1000
    assert approximate_size(10**10_000, 1000) > 1000
    assert approximate_size([b"x" * 10, {"a": "bc"}], 1000) == 13
