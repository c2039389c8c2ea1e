"""The application decides which agent a session is of, and nothing is built before its caller may
go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from tests.support.providers import template

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    Forbidden,
    InputInvalid,
    Principal,
    Resume,
    SessionManager,
    SessionNotFound,
)
from agent_runtime.sessions.session import MAX_METADATA_BYTES, MAX_TITLE_CHARACTERS
from agent_runtime.template import AgentTemplate
from agent_runtime.testing import ScriptedChatModel, say

ME = Principal("ada", "a", frozenset({"*"}))


def asks(messages: list[BaseMessage]) -> Any:
    """Call the dangerous tool once for each message that says so."""
    is_question = messages[-1].type == "human" and "go" in str(messages[-1].content)
    return say("", ("danger", {"text": "x"})) if is_question else say("fine")


def deep(levels: int) -> list[Any]:
    """Return a list in a list in a list."""
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.fixture
async def factory() -> Any:
    async with AgentFactory(session_manager=SessionManager()) as made:
        made.ran = []  # type: ignore[attr-defined]

        def danger(text: str) -> str:
            """Do harm."""
            made.ran.append(text)  # type: ignore[attr-defined]
            return "done"

        made.register_tool("danger", danger)
        made.register_model("m", ScriptedChatModel(script=asks))
        yield made


def careful(factory: AgentFactory, name: str = "careful", **overrides: Any) -> AgentExecutor:
    """Return an agent that asks a person before it calls the tool."""
    spec = template(name, model="m", tools=["danger"], interrupt_on={"danger": True})
    factory.register_template(spec)
    return factory.create_from_template(name, **overrides)


async def test_a_caller_cannot_say_which_agent_a_session_is_of(factory: AgentFactory) -> None:
    manager = factory.session_manager
    assert manager is not None
    with pytest.raises(TypeError):
        await manager.create_session(session_id="s", principal=ME, agent={"template": "evil"})  # type: ignore[call-arg]
    await manager.create_session(
        session_id="s", principal=ME, metadata={"agent": {"template": "evil"}}
    )
    agent = careful(factory).with_caller(principal=ME)
    asked = await agent.execute(AgentContext("go", session_id="s"))
    assert asked.status == "interrupted"
    session = await manager.get_session("s", principal=ME)
    assert (session.agent["name"], session.agent["template"]) == ("careful", "careful")
    assert (await manager.resume_session("s", "approve", principal=ME)).output == "fine"
    assert factory.ran == ["x"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["execute", "resume_session", "continue"])
@pytest.mark.parametrize("other", ["another name", "other overrides", "other inputs"])
async def test_another_agent_does_not_go_on_with_a_session(
    factory: AgentFactory, way: str, other: str
) -> None:
    manager = factory.session_manager
    assert manager is not None
    own = careful(factory)
    await own.execute(AgentContext("go", session_id="s"))
    if other == "another name":
        rash = factory.create_agent(template("rash", model="m", tools=["danger"]))
    elif other == "other overrides":
        rash = careful(factory, interrupt_on={})
    else:
        plain = template("careful", model="m", tools=["danger"]).model_dump(
            by_alias=True, exclude_unset=True
        )
        spec = AgentTemplate.model_validate(
            {**plain, "inputs": {"properties": {"x": {"type": "string"}}}}
        )
        rash = factory.create_agent(spec, {"x": "2"})
    with pytest.raises(InputInvalid, match="its agent 'careful'"):
        if way == "execute":
            await rash.execute(AgentContext(Resume("approve"), session_id="s"))
        elif way == "continue":
            await rash.execute(AgentContext(None, session_id="s"))
        else:
            await manager.resume_session("s", "approve", agent=rash)
    assert factory.ran == []  # type: ignore[attr-defined]
    assert (await manager.get_session("s")).status == "interrupted"
    assert (await own.resume("s", "approve")).output == "fine"


async def test_a_new_version_of_the_template_goes_on(factory: AgentFactory) -> None:
    await careful(factory).execute(AgentContext("go", session_id="s"))
    newer = template(
        "careful",
        model="m",
        tools=["danger"],
        interrupt_on={"danger": True},
        system_prompt="Be brief.",
    )
    assert (await factory.create_agent(newer).resume("s", "approve")).output == "fine"


async def test_another_agent_may_take_a_new_message(factory: AgentFactory) -> None:
    await careful(factory).execute(AgentContext("go", session_id="s"))
    other = factory.create_agent(template("other", model="m"))
    assert (await other.execute(AgentContext("hello", session_id="s"))).output == "fine"
    assert factory.ran == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "guarded_by", ["authenticators", "require", "nothing waits", "another user"]
)
async def test_no_process_starts_before_the_caller_may(tmp_path: Path, guarded_by: str) -> None:
    """The template's MCP server leaves a file behind as soon as it is started."""
    started = tmp_path / "started"

    class Nobody:
        async def authenticate(self, credentials: Any) -> Principal:
            raise NotImplementedError

    manager = SessionManager()
    authenticators = [Nobody()] if guarded_by == "authenticators" else []
    async with AgentFactory(session_manager=manager, authenticators=authenticators) as factory:
        factory.register_model("m", ScriptedChatModel(script=asks))
        runtime = {"auth": {"require": ["app"]}} if guarded_by == "require" else {}
        server = {"mcp": {"command": "/bin/sh", "args": ["-c", f"touch {started}; sleep 60"]}}
        factory.register_template(template("t", model="m", tools=[server], runtime=runtime))
        scopes = {"run:*", "resume:*"} if guarded_by == "require" else {"run:*", "app"}
        caller = Principal("ada", "a", frozenset(scopes))
        record = {"name": "t", "template": "t", "inputs": {}, "overrides": {}}
        async with manager.turn("s", agent=record, principal=caller):
            pass
        if guarded_by != "nothing waits":
            session = await manager.get_session("s", principal=caller)
            await manager.end_turn(session, "interrupted")
        expected: Any = {"nothing waits": InputInvalid, "another user": SessionNotFound}.get(
            guarded_by, Forbidden
        )
        who = Principal("eve", "a", frozenset({"*"})) if guarded_by == "another user" else caller
        with pytest.raises(expected):
            await manager.resume_session("s", "approve", principal=who)
        assert not started.exists()


async def test_a_saved_state_needs_the_scope_of_commands(factory: AgentFactory) -> None:
    manager = factory.session_manager
    assert manager is not None
    caller = Principal("ada", "a", frozenset({"run:*", "resume:*"}))
    await careful(factory).with_caller(principal=ME).execute(AgentContext("hello", session_id="s"))
    with pytest.raises(Forbidden) as refused:
        await manager.checkpoints.save("s", {"messages": []}, principal=caller)
    assert refused.value.scope == "command:careful"
    allowed = Principal("ada", "a", frozenset({"command:careful"}))
    assert await manager.checkpoints.save("s", {"messages": []}, principal=allowed)


@pytest.mark.parametrize(
    "given",
    [
        {"title": "x" * (MAX_TITLE_CHARACTERS + 1)},
        {"title": 5},
        {"metadata": {"x": "é" * (MAX_METADATA_BYTES // 2)}},
        {"metadata": {"x": deep(5000)}},
    ],
    ids=["title", "no text", "metadata", "deep metadata"],
)
async def test_a_session_has_a_title_and_metadata_of_a_bounded_size(given: dict[str, Any]) -> None:
    manager = SessionManager()
    with pytest.raises(InputInvalid):
        await manager.create_session(session_id="s", principal=ME, **given)
    await manager.create_session(session_id="s", principal=ME)
    with pytest.raises(InputInvalid):
        await manager.update_session("s", principal=ME, **given)
