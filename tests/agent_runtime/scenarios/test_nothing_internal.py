"""Nothing of the runtime's own leaves it.

No fencing token, no `tenant:session`, no Python repr, no key in a URL.
"""

from __future__ import annotations

import io
import json
import logging
from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    Principal,
    SessionManager,
    SessionMiddleware,
    gated,
)
from agent_runtime.errors import CheckpointCorrupt
from agent_runtime.monitoring.logs import JsonFormatter
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.testing import ScriptedChatModel, say

MODES = ["values", "updates", "messages", "custom", "checkpoints", "tasks", "debug"]
CALLER = Principal("ada", "acme", frozenset({"*"}))


@tool
def look(config: RunnableConfig) -> str:
    """Look."""
    return "seen"


def script(messages: list[Any]) -> Any:
    return say("done") if messages[-1].type == "tool" else say("", ("look", {}))


def agents(manager: SessionManager) -> dict[str, AgentExecutor]:
    graph = create_agent(
        gated(ScriptedChatModel(script=script)), [look], checkpointer=manager.checkpointer
    )
    outer = StateGraph(MessagesState)
    outer.add_node("inner", create_agent(gated(ScriptedChatModel(script=script)), [look]))
    outer.add_edge(START, "inner")
    nested = outer.compile(checkpointer=manager.checkpointer)
    layers = [SessionMiddleware(manager)]
    return {
        "one": AgentExecutor(graph, pipeline=layers),
        "nested": AgentExecutor(nested, pipeline=layers),
    }


def check(what: Any) -> None:
    text = repr(what)
    assert "__agent_runtime" not in text
    assert "FencingToken" not in text
    assert "FencingToken(" not in text
    assert "acme:" not in text


@pytest.mark.parametrize("name", ["one", "nested"])
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_no_stream_mode_shows_them(name: str, version: str) -> None:
    agent = agents(SessionManager())[name].with_caller(principal=CALLER)
    config: RunnableConfig = {"configurable": {"thread_id": "s"}}
    modes: list[Any] = [*MODES, MODES]
    for number, mode in enumerate(modes):
        message = {"messages": f"question {number}"}
        stream = agent.astream(message, config, stream_mode=mode, version=version, subgraphs=True)
        seen = [part async for part in stream]
        check(seen)
        if mode in ("checkpoints", "debug"):
            assert "'thread_id': 's'" in repr(seen)  # the session's own id is there


@pytest.mark.parametrize("name", ["one", "nested"])
async def test_no_event_and_no_handler_of_the_caller_sees_them(name: str) -> None:
    seen: list[Any] = []

    class Handler(AsyncCallbackHandler):
        async def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            seen.append(kwargs.get("metadata"))

        async def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            seen.append(kwargs.get("metadata"))

        async def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
            seen.append(kwargs.get("metadata"))

    agent = agents(SessionManager())[name].with_caller(principal=CALLER)
    config: RunnableConfig = {"configurable": {"thread_id": "s"}, "callbacks": [Handler()]}
    events = [event async for event in agent.astream_events({"messages": "go"}, config)]
    assert events
    check([event.get("metadata") for event in events])
    check(seen)


async def test_results_events_and_errors_do_not_show_them() -> None:
    manager = SessionManager()
    agent = agents(manager)["one"].with_caller(principal=CALLER)
    result = await agent.execute(AgentContext("go", session_id="s"))
    check(result.to_dict())
    check([event.to_dict() for event in agent.callback_handler.events("*")])
    assert "acme" not in str(CheckpointCorrupt("row\x1facme:s\x1f\x1fid\x1f", "damaged"))


def test_a_log_line_is_json_that_a_program_reads() -> None:
    formatter = JsonFormatter()
    record = logging.makeLogRecord(
        {"msg": "call", "cost_usd": Decimal("0.00010"), "deep": {"usd": [Decimal(0)]}}
    )
    line = json.loads(formatter.format(record))
    assert (line["cost_usd"], line["deep"]) == ("0.00010", {"usd": ["0"]})


KEY = "q7Zk-dummy-dummy-5f2d9a71c0"
ADDRESSES = [
    "https://api.example/v1?key={}&x=1",
    "https://api.example/v1?x=1&key={}",
    "https://api.example/v1?x=1&KEY={}#top",
    "https://api.example/v1?api_key={}",
    "https://api.example/v1?subscription-key={}",
    "https://store.example/blob?sv=2026&sig={}",
    "https://s3.example/x?X-Amz-Signature={}&y=1",
    "GET /v1?a=b;auth={} HTTP/1.1",
    '{{"url": "https://api.example/v1?key={}"}}',
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_credential_in_a_url_is_masked_by_its_name(address: str) -> None:
    text = address.format(KEY)
    for masked in (
        SECRETS.text(text),
        SECRETS.redact_json({"a": [text]})["a"][0],
        SECRETS.value([text])[0],
    ):
        assert KEY not in masked
        assert masked.startswith(text[:6])
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    handler.handle(logging.makeLogRecord({"msg": "failed for %s", "args": (text,)}))
    assert KEY not in out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "which key=value pairs are there?",
        "https://x.example/?q=keyboard&page=2",
        "a ? b : c",
        "x&y=1234567890",
    ],
)
def test_other_queries_stay_readable(text: str) -> None:
    assert SECRETS.text(text) == text
