"""Threads that LangGraph's own savers began go on as sessions."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import interrupt

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    InputInvalid,
    Resume,
    SessionManager,
    SessionMiddleware,
    gated,
)
from agent_runtime.cli.main import cli
from agent_runtime.errors import SessionGone, StateNotSerializable
from agent_runtime.sessions.thread_import import import_threads, open_langgraph_file
from agent_runtime.testing import ScriptedChatModel, say

KEY = b"dummy-key-of-sessions-with-48-bytes-qzjxvkwpfhgm"


@dataclasses.dataclass
class Own:
    """A class that no allow-list names."""

    value: int = 1


def ask() -> str:
    """Ask a person."""
    return f"said {interrupt('which?')}"


def graph(saver: Any) -> Any:
    def script(messages: list[Any]) -> Any:
        if messages[-1].type == "tool":
            return say(f"done: {messages[-1].text}")
        return (
            say("", ("ask", {}))
            if "ask" in str(messages[-1].text)
            else say(f"answer {len(messages)}")
        )

    return create_agent(gated(ScriptedChatModel(script=script)), [ask], checkpointer=saver)


def config(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


async def begin(saver: Any) -> None:
    """A thread of two turns, and one that waits for an answer."""
    agent = graph(saver)
    await agent.ainvoke({"messages": "one"}, config("first/thread"))
    await agent.ainvoke({"messages": "two"}, config("first/thread"))
    await agent.ainvoke({"messages": "ask"}, config("waits"))


def executor(manager: SessionManager) -> AgentExecutor:
    return AgentExecutor(
        graph(manager.checkpointer), gated=True, pipeline=[SessionMiddleware(manager)]
    )


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_they_go_on_where_they_stood(kind: str, tmp_path: Path) -> None:
    async with SessionManager.from_url(f"sqlite:{tmp_path}/ours.db", mac_key=KEY) as manager:
        if kind == "memory":
            saver = InMemorySaver()
            await begin(saver)
            made = await import_threads(manager, saver)
        else:
            async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "theirs.db")) as theirs:
                await begin(theirs)
            async with open_langgraph_file(tmp_path / "theirs.db") as source:
                made = await import_threads(manager, source)
        assert {thread: session.id for thread, session in made.items()} == {
            "first/thread": "first-thread", "waits": "waits"
        }  # fmt: skip
        agent = executor(manager)
        third = await agent.execute(AgentContext("three", session_id="first-thread"))
        assert [m.text for m in third.messages] == [
            "one",
            "answer 1",
            "two",
            "answer 3",
            "three",
            "answer 5",
        ]
        answered = await agent.execute(AgentContext(Resume("this"), session_id="waits"))
        assert answered.output == "done: said this"
        assert len(await manager.checkpoints.history("first-thread")) > 6


async def test_a_thread_is_whole_or_not_there(tmp_path: Path) -> None:
    saver = InMemorySaver()
    await begin(saver)
    bad = await saver.aget_tuple(config("waits"))
    assert bad is not None
    await saver.aput_writes(bad.config, [("messages", Own())], "task")
    async with SessionManager() as manager:
        with pytest.raises(StateNotSerializable):
            await import_threads(manager, saver, thread_ids=["waits"])
        with pytest.raises(SessionGone):
            await manager.get_session("waits")
        with pytest.raises(InputInvalid, match="no thread 'nobody'"):
            await import_threads(manager, saver, thread_ids=["nobody"])
        await import_threads(manager, saver, thread_ids=["first/thread"])
        with pytest.raises(InputInvalid):  # it is there already
            await import_threads(manager, saver, thread_ids=["first/thread"])


def test_the_command_line(tmp_path: Path) -> None:
    async def write() -> None:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "theirs.db")) as theirs:
            await begin(theirs)

    asyncio.run(write())
    store = f"sqlite:{tmp_path / 'ours.db'}"
    runner = CliRunner()
    done = runner.invoke(cli, ["sessions", "--store", store, "import", str(tmp_path / "theirs.db")])
    assert done.exit_code == 0, done.output
    assert "first-thread  from thread first/thread" in done.output
    assert (
        "answer 3"
        in runner.invoke(cli, ["sessions", "--store", store, "show", "first-thread"]).output
    )
    missing = runner.invoke(
        cli, ["sessions", "--store", store, "import", str(tmp_path / "none.db")]
    )
    assert missing.exit_code != 0
