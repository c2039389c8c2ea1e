"""What a caller may give a call.

Every unusable input is refused before anything is written, on every way in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langchain_core.tools import tool
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Overwrite
from tests.support.providers import template

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    InputInvalid,
    Resume,
    SessionManager,
    SessionMiddleware,
)
from agent_runtime.errors import SessionNotFound
from agent_runtime.testing import ScriptedChatModel, say

HALF = "half \ud83d of a pair"


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def call(call_id: str | None = "1", **args: Any) -> dict[str, Any]:
    return {"name": "t", "args": args, "id": call_id, "type": "tool_call"}


def messages(*each: Any) -> dict[str, Any]:
    return {"messages": list(each)}


HI = HumanMessage("hi")
UNUSABLE: dict[str, Callable[[], Any]] = {
    "number": lambda: 5,
    "bytes": lambda: b"hi",
    "set": lambda: {"hi"},
    "true": lambda: True,
    "object": object,
    "blank": lambda: " \n",
    "half a pair": lambda: HALF,
    "no messages": messages,
    "empty list": list,
    "messages None": lambda: {"messages": None},
    "messages a number": lambda: {"messages": 3},
    "messages bytes": lambda: {"messages": b"hi"},
    "messages blank": lambda: {"messages": " "},
    "a list with None": lambda: [None],
    "a list with a number": lambda: messages(HI, 7),
    "unknown keys": lambda: {"question": "hi"},
    "unknown role": lambda: [("nobody", "hi")],
    "a dict without content": lambda: [{"role": "user"}],
    "a dict with content None": lambda: [{"role": "user", "content": None}],
    "content a number": lambda: [{"role": "user", "content": 5}],
    "blank human": lambda: HumanMessage(" "),
    "blank dict": lambda: [{"role": "user", "content": ""}],
    "blank pair": lambda: [("user", "\t")],
    "blank system": lambda: [SystemMessage(""), HI],
    "no blocks": lambda: HumanMessage([]),
    "a blank block": lambda: HumanMessage([{"type": "text", "text": " "}]),
    "a block without a type": lambda: HumanMessage([{"text": "hi"}]),
    "a block with a type that is none": lambda: messages(
        {"role": "user", "content": [{"type": 5}]}
    ),
    "a text block without a text": lambda: HumanMessage([{"type": "text"}]),
    "an image without a source": lambda: HumanMessage([{"type": "image"}]),
    "a file with a source that is none": lambda: HumanMessage(
        [{"type": "file", "source_type": "disk", "data": "x"}]
    ),
    "a sound without its data": lambda: HumanMessage([{"type": "audio", "source_type": "base64"}]),
    "deep blocks": lambda: HumanMessage([{"type": "x", "x": nested(100)}]),
    "deep dicts": lambda: [{"role": "user", "content": nested(5000)}],
    "a cycle": lambda: HumanMessage([{"type": "x", "x": cycle()}]),
    "half in a message": lambda: HumanMessage(HALF),
    "half in a block": lambda: HumanMessage([{"type": "text", "text": HALF}]),
    "half in arguments": lambda: [
        HI,
        AIMessage("", tool_calls=[call(x=HALF)]),
        ToolMessage("a", tool_call_id="1"),
    ],
    "half in an id": lambda: HumanMessage("hi", id=HALF),
    "a large number": lambda: [
        HI,
        AIMessage("", tool_calls=[call(x=10**5000)]),
        ToolMessage("a", tool_call_id="1"),
    ],
    "two calls of one id": lambda: [HI, AIMessage("", tool_calls=[call("1"), call("1")])],
    "a call without an answer": lambda: [HI, AIMessage("", tool_calls=[call("1")]), HI],
    "an answer without a call": lambda: [HI, ToolMessage("a", tool_call_id="9")],
    "an answer alone": lambda: ToolMessage("a", tool_call_id="9"),
    "an answer in a dict": lambda: messages({"role": "tool", "content": "a", "tool_call_id": "9"}),
    "a blank prompt": lambda: StringPromptValue(text=" "),
    "half in a prompt": lambda: ChatPromptValue(messages=[HumanMessage(HALF)]),
    "half in a resume": lambda: Command(resume=HALF),
    "deep resume": lambda: Command(resume=nested(100)),
    "messages None in a command": lambda: Command(update={"messages": None}),
    "unknown keys in a command": lambda: Command(update={"question": 1}),
    "half in a decision": lambda: Resume({"type": "respond", "message": HALF}),
}
USABLE: dict[str, Callable[[], Any]] = {
    "text": lambda: "hi",
    "an emoji": lambda: "😀",
    "a pair": lambda: [("user", "hi")],
    "a dict": lambda: [{"role": "user", "content": "hi"}],
    "messages text": lambda: {"messages": "hi"},
    "messages a pair": lambda: {"messages": ("user", "hi")},
    "one message": lambda: {"messages": HI},
    "blocks": lambda: HumanMessage([{"type": "text", "text": "hi"}, "there"]),
    "an image alone": lambda: HumanMessage([{"type": "image", "url": "https://example.com/a.png"}]),
    "a prompt": lambda: StringPromptValue(text="hi"),
    "calls with answers": lambda: [
        HI,
        AIMessage("", tool_calls=[call("1"), call("2")]),
        ToolMessage("", tool_call_id="2"),
        ToolMessage("b", tool_call_id="1"),
        HI,
    ],
    "an answer of a model that said nothing": lambda: [HI, AIMessage(""), HI],
    "a call with the id of one that is answered": lambda: [
        HI,
        AIMessage("", tool_calls=[call("call_0")]),
        ToolMessage("a", tool_call_id="call_0"),
        AIMessage("", tool_calls=[call("call_0")]),
        ToolMessage("b", tool_call_id="call_0"),
    ],
    "calls without ids": lambda: [HI, AIMessage("", tool_calls=[call(None), call(None)])],
    "an overwritten channel": lambda: {"messages": Overwrite([HI])},
    "a block of Amazon's": lambda: HumanMessage(
        [{"type": "text", "text": "hi"}, {"cachePoint": {"type": "default"}}]
    ),
    "an image of Amazon's": lambda: HumanMessage(
        [{"type": "image", "image": {"format": "png", "source": {}}}]
    ),
}


def workflow(manager: SessionManager, model: ScriptedChatModel) -> AgentExecutor:
    """A graph of one's own, whose model is not the runtime's."""

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    pipeline = [SessionMiddleware(manager)]
    return AgentExecutor(graph.compile(checkpointer=manager.checkpointer), pipeline=pipeline)


async def unary(agent: AgentExecutor, value: Any) -> None:
    await agent.execute(AgentContext(value, session_id="s"))


async def streamed(agent: AgentExecutor, value: Any) -> None:
    async with agent.execute_stream(AgentContext(value, session_id="s")) as stream:
        async for _ in stream:
            pass


async def as_runnable(agent: AgentExecutor, value: Any) -> None:
    await agent.ainvoke(value, {"configurable": {"thread_id": "s"}})


async def in_a_thread(agent: AgentExecutor, value: Any) -> None:
    await asyncio.to_thread(agent.execute_sync, AgentContext(value, session_id="s"))


WAYS = [unary, streamed, as_runnable, in_a_thread]


@pytest.mark.parametrize("kind", ["template", "workflow"])
async def test_an_unusable_input_is_refused_and_the_session_goes_on(kind: str) -> None:
    manager = SessionManager()
    asked: list[int] = []

    def script(given: list[BaseMessage]) -> Any:
        asked.append(len(given))
        return say("hi")

    model = ScriptedChatModel(script=script)
    async with AgentFactory(session_manager=manager) as factory:
        factory.register_model("m", model)
        agent = (
            factory.create_agent(template(model="m"))
            if kind == "template"
            else workflow(manager, model)
        )
        await agent.execute(AgentContext("first", session_id="s"))
        for name, value in UNUSABLE.items():
            for way in WAYS:
                with pytest.raises(InputInvalid) as raised:
                    await way(agent, value())
                assert raised.value.code == "input_invalid", (name, way)
        assert asked == [1]  # nothing was paid
        after = await agent.execute(AgentContext("second", session_id="s"))
        assert [message.type for message in after.messages] == ["human", "ai", "human", "ai"]


@pytest.mark.parametrize("name", list(UNUSABLE))
async def test_a_first_call_that_is_refused_opens_no_session(name: str) -> None:
    manager = SessionManager()
    async with AgentFactory(session_manager=manager) as factory:
        factory.register_model("m", ScriptedChatModel(script=lambda _: say("hi")))
        agent = factory.create_agent(template(model="m"))
        with pytest.raises(InputInvalid):
            await agent.execute(AgentContext(UNUSABLE[name](), session_id="s"))
        result = await agent.execute(AgentContext("hi", session_id="s"))
        assert [message.type for message in result.messages] == ["human", "ai"]


@pytest.mark.parametrize("name", list(USABLE))
async def test_a_usable_input_is_taken(name: str) -> None:
    async with AgentFactory() as factory:
        factory.register_model("m", ScriptedChatModel(script=lambda _: say("hi")))
        agent = factory.create_agent(template(model="m"))
        assert (await agent.execute(USABLE[name]())).output == "hi"


async def test_a_pair_is_one_message() -> None:
    async with AgentFactory() as factory:
        factory.register_model("m", model := ScriptedChatModel(script=lambda _: say("hi")))
        await factory.create_agent(template(model="m")).execute(("user", "hello"))
    assert [(message.type, message.text) for message in model.received_messages[0]] == [
        ("human", "hello")
    ]


@pytest.mark.parametrize("value", [{"question": 1}, 5])
async def test_a_function_of_langgraph_takes_any_value(value: Any) -> None:
    @entrypoint()
    async def function(given: Any) -> Any:
        return {"given": given}

    assert (await AgentExecutor(function).execute(value)).value == {"given": value}


async def test_a_tool_call_of_the_conversation_may_be_answered() -> None:
    manager = SessionManager()
    agent = workflow(manager, ScriptedChatModel(script=[say("", ("ask", {})), say("thanks")]))
    first = await agent.execute(AgentContext("hi", session_id="s"))
    call_id = first.messages[-1].tool_calls[0]["id"]  # type: ignore[attr-defined]
    with pytest.raises(InputInvalid, match="which no message makes"):
        await agent.execute(AgentContext(ToolMessage("x", tool_call_id="other"), session_id="s"))
    second = await agent.execute(
        AgentContext(ToolMessage("x", tool_call_id=call_id), session_id="s")
    )
    assert second.output == "thanks"


IDS: list[Any] = [["a"], 5, b"s", {"a": 1}, "", HALF, "x" * 2000, object()]


@pytest.mark.parametrize("name", ["session_id", "run_id", "idempotency_key"])
async def test_an_id_is_text(name: str) -> None:
    async with AgentFactory(session_manager=SessionManager()) as factory:
        factory.register_model("m", ScriptedChatModel(script=lambda _: say("hi")))
        agent = factory.create_agent(template(model="m"))
        for value in IDS:
            arguments: dict[str, Any] = {name: value}
            with pytest.raises(InputInvalid):
                await agent.execute(AgentContext("hi", **arguments))
            with pytest.raises(InputInvalid):
                async with agent.execute_stream(AgentContext("hi", **arguments)) as stream:
                    async for _ in stream:
                        pass
        assert (await agent.execute("hi")).output == "hi"


@pytest.mark.parametrize("way", WAYS)
async def test_a_session_that_nothing_keeps_is_refused(way: Any) -> None:
    async with AgentFactory() as factory:
        factory.register_model("m", ScriptedChatModel(script=lambda _: say("hi")))
        agent = factory.create_agent(template(model="m"))
        with pytest.raises(
            InputInvalid, match="keeps no sessions: give its factory a session_manager"
        ):
            await way(agent, "hi")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
BLOCKS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image", ""]), "text": JSON}),
    max_size=2,
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool", "x"]),
        "content": st.text() | BLOCKS | JSON,
    },
    optional={"tool_call_id": st.text(max_size=3), "id": JSON},
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    value=JSON
    | st.lists(MESSAGES, max_size=4)
    | st.fixed_dictionaries({"messages": JSON | st.lists(MESSAGES)})
)
async def test_any_input_is_taken_or_refused_and_the_session_goes_on(value: Any) -> None:
    manager = SessionManager()
    agent = workflow(manager, ScriptedChatModel(script=lambda _: say("hi")))
    try:
        await agent.execute(AgentContext(value, session_id="s"))
    except (
        InputInvalid,
        SessionNotFound,
    ) as error:  # None goes on with a session, and there is none
        assert str(error)
    assert (await agent.execute(AgentContext("still here", session_id="s"))).output == "hi"


class Odd:
    """An object that cannot be written."""

    def __str__(self) -> str:
        raise ValueError("odd")

    __repr__ = __str__


RESULTS: dict[str, Callable[[], Any]] = {
    "a number of 5,000 digits": lambda: 10**5000,
    "an odd object": Odd,
    "a list with an odd object": lambda: [Odd()],
    "half a pair": lambda: HALF,
    "half a pair in a map": lambda: {"text": HALF},
    "deep": lambda: nested(5000),
}


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("name", list(RESULTS))
async def test_a_result_that_cannot_be_used_is_an_error_message(name: str, is_async: bool) -> None:
    runs: list[int] = []

    async def later() -> Any:
        """Answer."""
        runs.append(1)
        return RESULTS[name]()

    def now() -> Any:
        """Answer."""
        runs.append(1)
        return RESULTS[name]()

    def script(given: list[BaseMessage]) -> Any:
        return (
            say("done")
            if given[-1].type == "tool" or given[-1].text != "go"
            else say("", ("answer", {}))
        )

    async with AgentFactory(session_manager=SessionManager()) as factory:
        factory.register_model("m", ScriptedChatModel(script=script))
        factory.register_tool("answer", tool("answer")(later if is_async else now))
        agent = factory.create_agent(template(model="m", tools=["answer"]))
        result = await agent.execute(AgentContext("go", session_id="s"))
        message = next(each for each in result.messages if isinstance(each, ToolMessage))
        assert message.status == "error"
        assert "has run, but its result cannot be used" in message.text
        assert (await agent.execute(AgentContext("again", session_id="s"))).output == "done"
        assert runs == [1]


async def test_a_tool_that_may_have_run_is_not_said_not_to_have_run() -> None:
    """The graph runs its tools by itself, so nothing records them."""
    manager = SessionManager()
    entered = asyncio.Event()
    model = ScriptedChatModel(
        script=lambda given: say("", ("pay", {})) if given[-1].text == "pay" else say("ok")
    )

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def pay(state: MessagesState) -> dict[str, Any]:
        entered.set()
        await asyncio.Event().wait()
        return {}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_node("pay", pay)
    graph.add_edge(START, "answer")
    graph.add_conditional_edges(
        "answer", lambda state: "pay" if state["messages"][-1].tool_calls else END
    )
    agent = AgentExecutor(
        graph.compile(checkpointer=manager.checkpointer), pipeline=[SessionMiddleware(manager)]
    )
    task = asyncio.create_task(agent.execute(AgentContext("pay", session_id="s")))
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    after = await agent.execute(AgentContext("hello", session_id="s"))
    message = next(each for each in after.messages if isinstance(each, ToolMessage))
    assert "whether it ran and took effect is not known" in message.text
