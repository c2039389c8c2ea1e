"""An agent's conversation: it is remembered, waits for people, is repaired, and is nobody
else's."""

from __future__ import annotations

import asyncio
import operator
import uuid
from typing import Annotated, Any

import pytest
from langchain.agents import AgentState, create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.types import Command
from tests.support.calls import run_call
from tests.support.operations import operation_name
from tests.support.sessions import (
    EFFECTS,
    held_elsewhere,
    in_session,
    make,
    open_manager,
    pay,
    pays_first,
)

from agent_runtime import (
    AgentExecutor,
    CallDrained,
    CallTimeout,
    InputInvalid,
    Principal,
    ReservedKey,
    Resume,
    SessionBusy,
    SessionGone,
    SessionManager,
    SessionMiddleware,
    SessionNotFound,
    gated,
)
from agent_runtime.orchestration import local_agent as bare_agent
from agent_runtime.orchestration.turn_recovery import prepare_session_input
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.run.idempotency import SIDE_EFFECT_UNKNOWN
from agent_runtime.testing import ScriptedChatModel, say


@tool
async def hang() -> str:
    """Hang."""
    await asyncio.sleep(30)
    return "never"


def count_humans(messages: list[Any]) -> Any:
    return say(str(sum(m.type == "human" for m in messages)))


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_session_remembers_and_a_call_without_one_leaves_nothing(
    manager: SessionManager, streaming: bool
) -> None:
    agent = make(manager, count_humans)
    for expected in ("1", "2", "3"):
        assert (await run_call(agent, in_session("hi"), streaming=streaming)).output == expected
    assert (await run_call(agent, "hi", streaming=streaming)).output == "1"
    assert len((await manager.list_sessions()).sessions) == 1
    session = await manager.get_session("s1")
    assert (session.status, session.title, session.agent["template"]) == ("idle", "hi", "t")
    checkpoint = await manager.checkpoints.get("s1")
    assert checkpoint is not None
    assert [m.type for m in checkpoint.messages] == ["human", "ai"] * 3


async def test_a_conversation_survives_its_process(store_url: str) -> None:
    if store_url == "memory:":
        return
    for expected in ("1", "2"):
        async with open_manager(store_url) as manager:
            assert (await make(manager, count_humans).execute(in_session("hi"))).output == expected


async def test_what_an_application_does_to_a_result_does_not_reach_the_conversation(
    manager: SessionManager,
) -> None:
    agent = make(manager, [say("one"), say("two"), say("three")])
    result = await agent.execute(in_session("a"))
    result.messages[1].content = "changed"
    result.messages[0].additional_kwargs["x"] = "changed"
    result = await agent.execute(in_session("b"))
    assert [m.text for m in result.messages] == ["a", "one", "b", "two"]
    assert result.messages[0].additional_kwargs == {}
    result.messages[0].content = "changed again"
    result = await agent.execute(in_session("c"))
    assert [m.text for m in result.messages] == ["a", "one", "b", "two", "c", "three"]


async def test_a_person_decides_in_another_process(store_url: str) -> None:
    interrupt_on = {"pay": {"allowed_decisions": ["approve", "edit", "reject"]}}
    decisions: list[tuple[Any, list[str], str]] = [
        ("approve", ["pay 10"], "done: paid 10"),
        ({"type": "reject", "message": "too much"}, [], "too much"),
        (
            {"type": "edit", "edited_action": {"name": "pay", "args": {"amount": 3}}},
            ["pay 3"],
            "paid 3",
        ),
    ]
    for number, (decision, effects, answer) in enumerate(decisions):
        name = f"s{number}"
        async with open_manager(store_url) as manager:
            agent = make(manager, pays_first, pay, interrupt_on=interrupt_on)
            result = await agent.execute(in_session("go", name))
            assert (result.status, result.output, EFFECTS) == ("interrupted", "", [])
            assert result.interrupts[0].value["action_requests"][0]["args"] == {"amount": 10}
            assert (await manager.get_session(name)).status == "interrupted"
            if store_url == "memory:":
                await _decided(manager, name, decision, effects, answer)
        if store_url != "memory:":
            async with open_manager(store_url) as later:
                make(later, pays_first, pay, interrupt_on=interrupt_on)
                await _decided(later, name, decision, effects, answer)


async def _decided(
    manager: SessionManager, name: str, decision: Any, effects: list[str], answer: str
) -> None:
    result = await manager.resume_session(name, decision)
    assert (result.status, EFFECTS) == ("completed", effects)
    assert answer in result.output
    with pytest.raises(InputInvalid, match="no pending decision"):
        await manager.resume_session(name, "approve")


async def test_a_decision_can_be_streamed_and_must_fit(manager: SessionManager) -> None:
    agent = make(manager, pays_first, pay, interrupt_on={"pay": True})
    await agent.execute(in_session("go"))
    decisions: list[Any] = ["perhaps", {"type": "later"}, []]
    for wrong in decisions:
        with pytest.raises(InputInvalid):
            await agent.resume("s1", wrong)
    async with agent.execute_stream(in_session(Resume("approve"))) as stream:
        texts = [t async for t in stream]
    assert "".join(texts) == "done: paid 10"
    with pytest.raises(InputInvalid, match="session_id"):
        await agent.execute("go")  # it may have to ask, so it needs a session


async def test_a_new_message_instead_of_a_decision_drops_the_pending_action(
    manager: SessionManager,
) -> None:
    agent = make(manager, pays_first, pay, interrupt_on={"pay": True})
    await agent.execute(in_session("go"))
    result = await agent.execute(in_session("never mind"))
    assert result.status == "interrupted"  # the next payment waits, the first was dropped
    assert [m.type for m in result.messages] == ["human", "ai", "tool", "human", "ai"]
    assert EFFECTS == []


async def test_a_cancelled_tool_leaves_no_open_call(manager: SessionManager) -> None:
    script = lambda m: (  # noqa: E731
        say(f"{len(m)}") if m[-1].text != "go" else say("", ("pay", {"amount": 1}), ("hang", {}))
    )
    agent = make(manager, script, pay, hang)
    call = asyncio.create_task(agent.execute(in_session("go")))
    while not any((await manager.checkpointer.backend.tool_results("default:s1")).values()):
        await asyncio.sleep(0.01)  # until the payment's result is recorded
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await manager.get_session("s1")).status == "failed"
    result = await agent.execute(in_session("and now?"))
    assert [m.type for m in result.messages] == ["human", "ai", "tool", "tool", "human", "ai"]
    paid, hung = result.messages[2:4]
    assert paid.text == "paid 1"  # what was done is told as done
    assert "not known" in hung.text
    assert EFFECTS == ["pay 1"]


class Notes(AgentState[Any]):
    """A state in which tools keep notes, and one thing of which there is one."""

    notes: Annotated[list[str], operator.add]
    place: str


@tool
async def note(
    text: str, tool_call_id: Annotated[str, InjectedToolCallId], place: str = ""
) -> Command[Any]:
    """Keep a note."""
    placed = {"place": place} if place else {}
    return Command(
        update={
            "notes": [text],
            **placed,
            "messages": [ToolMessage("noted", tool_call_id=tool_call_id)],
        }
    )


@pytest.mark.parametrize("places", [("", ""), ("here", "there")])
async def test_what_finished_tools_wrote_is_kept_when_another_was_stopped(
    manager: SessionManager, places: tuple[str, str]
) -> None:
    calls = [("note", {"text": str(number), "place": place}) for number, place in enumerate(places)]
    script = lambda m: say("", *calls, ("hang", {})) if m[-1].text == "go" else say("ok")  # noqa: E731
    tools = [gated_tool(note), gated_tool(hang)]
    model = gated(ScriptedChatModel(script=script))
    graph = create_agent(model, tools, state_schema=Notes, checkpointer=manager.checkpointer)
    agent = AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])
    call = asyncio.create_task(agent.execute(in_session("go")))
    while (
        sum(map(bool, (await manager.checkpointer.backend.tool_results("default:s1")).values())) < 2
    ):
        await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait([call])
    result = await agent.execute(in_session("and now?"))
    assert [m.type for m in result.messages] == [
        "human",
        "ai",
        "tool",
        "tool",
        "tool",
        "human",
        "ai",
    ]
    assert [m.text for m in result.messages[2:4]] == ["noted", "noted"]
    state = (await graph.aget_state({"configurable": {"thread_id": "default:s1"}})).values
    # Two tools cannot both say what there is one of: LangGraph refuses that, and the conversation
    # goes on without.
    assert sorted(state.get("notes", [])) == ([] if all(places) else ["0", "1"])


async def test_a_failed_turn_is_continued_without_repeating_an_effect(
    manager: SessionManager,
) -> None:
    calls = iter(
        [say("", ("pay", {"amount": 1})), say(fail=ValueError("the model broke")), say("ok")]
    )
    agent = make(manager, lambda _: next(calls), pay)
    with pytest.raises(Exception, match="the model broke"):
        await agent.execute(in_session("go"))
    result = await agent.execute(in_session(None))
    assert (result.output, EFFECTS) == ("ok", ["pay 1"])


async def test_turns_wait_for_each_other_or_are_refused(manager: SessionManager) -> None:
    agent = make(manager, count_humans)
    results = await asyncio.gather(*(agent.execute(in_session("hi")) for _ in range(20)))
    assert sorted(int(r.output) for r in results) == list(range(1, 21))
    slow = make(manager, [say("x")], sessions={"multitask_strategy": "reject"})
    async with held_elsewhere(manager, "s1"):
        with pytest.raises(SessionBusy):
            await slow.execute(in_session("hi"))
    assert (await slow.execute(in_session("hi"))).output == "x"


async def test_a_wait_is_bounded_and_ends_with_its_deadline(store_url: str) -> None:
    async with open_manager(store_url, max_waiting=1) as manager:
        agent = make(manager, count_humans, runtime={"timeout": {"run": "200ms"}})
        async with held_elsewhere(manager, "s1"):
            waiting = asyncio.create_task(agent.execute(in_session("hi")))
            await asyncio.sleep(0.05)
            with pytest.raises(SessionBusy, match="wait"):
                await agent.execute(in_session("hi"))
            with pytest.raises(CallTimeout):
                await waiting
        assert (await agent.execute(in_session("hi"))).output == "1"


async def test_a_deploy_stops_at_a_checkpoint_and_the_next_process_goes_on(store_url: str) -> None:
    async with open_manager(store_url) as manager:
        started = asyncio.Event()

        @tool
        async def work() -> str:
            """Work for a moment."""
            started.set()
            await asyncio.sleep(0.1)
            EFFECTS.append("worked")
            return "worked"

        script = lambda m: say("all done") if m[-1].type == "tool" else say("", ("work", {}))  # noqa: E731
        agent = make(manager, script, work)
        call = asyncio.create_task(agent.execute(in_session("go")))
        await started.wait()
        assert await agent.drain(grace_s=5) == 0
        with pytest.raises(CallDrained) as drained:
            await call
        assert drained.value.usage.model_calls == 1
        with pytest.raises(CallDrained, match="no new calls"):
            await agent.execute("hi")
        assert (await manager.get_session("s1")).status == "drained"
        again = make(manager, script, work)
        EFFECTS.append("worked")
        result = await again.execute(in_session(None))
        assert (result.output, EFFECTS) == ("all done", ["worked"])


async def test_a_run_that_gets_ready_during_a_deploy_stops_at_once(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_manager(store_url) as manager:

        @tool
        async def work() -> str:
            """Work."""
            EFFECTS.append("worked")
            return "worked"

        agent = make(
            manager,
            lambda m: say("all done") if m[-1].type == "tool" else say("", ("work", {})),
            work,
        )
        ready = asyncio.Event()

        async def read(*args: Any, **given: Any) -> Any:
            found = await prepare_session_input(*args, **given)
            ready.set()
            await asyncio.sleep(0.05)
            return found

        monkeypatch.setattr(bare_agent, "prepare_session_input", read)
        call = asyncio.create_task(agent.execute(in_session("go")))
        await ready.wait()
        assert await agent.drain(grace_s=5) == 0
        with pytest.raises(CallDrained, match="at a checkpoint") as drained:
            await call
        assert (drained.value.usage.model_calls, EFFECTS) == (0, [])
        again = make(manager, lambda m: say(f"{m[-1].text}ne"), work)
        assert (await again.execute(in_session(None))).output == "gone"  # what was said is not lost


async def test_a_tool_whose_end_is_not_known_asks_before_it_runs_again(
    manager: SessionManager,
) -> None:
    agent = make(manager, pays_first, pay)
    for decision, effects in (("approve", ["pay 10"]), ("reject", [])):
        name = f"s-{decision}"
        EFFECTS.clear()
        # A process that died inside the tool: its start is recorded, its end is not.
        await _die_in_the_tool(manager, agent, name)
        EFFECTS.clear()
        result = await agent.execute(in_session(None, name))
        assert result.status == "interrupted"
        assert result.interrupts[0].value["code"] == SIDE_EFFECT_UNKNOWN
        assert EFFECTS == []
        result = await agent.resume(name, decision)
        assert (result.status, EFFECTS) == ("completed", effects)


async def _die_in_the_tool(manager: SessionManager, agent: Any, name: str) -> None:
    """Leave the session as a process leaves it that is killed while the tool runs."""
    gone = asyncio.Event()
    records: Any = manager.checkpointer.backend
    arun_body = records.arun_body

    async def dying(body: Any, args: Any) -> Any:
        if operation_name(body) == "record_tool_result":
            gone.set()
            await asyncio.sleep(30)
        return await arun_body(body, args)

    records.arun_body = dying
    call = asyncio.create_task(agent.execute(in_session("go", name)))
    await gone.wait()
    records.arun_body = arun_body
    call.cancel()
    await asyncio.wait([call])


async def test_an_idempotent_tool_is_simply_run_again(manager: SessionManager) -> None:
    agent = make(manager, pays_first, pay)
    agent = make(manager, pays_first, pay, tools=[{"use": "pay", "idempotent": True}])
    result = await agent.execute(in_session("go"))
    assert (result.output, EFFECTS) == ("done: paid 10", ["pay 10"])


async def test_sessions_are_listed_forked_deleted_and_expire(manager: SessionManager) -> None:
    agent = make(manager, count_humans)
    for number in range(5):
        await agent.execute(in_session("hi", f"s{number}"))
    page = await manager.list_sessions(limit=2)
    assert [s.id for s in page.sessions] == ["s4", "s3"]
    rest = await manager.list_sessions(limit=10, cursor=page.cursor)
    assert ([s.id for s in rest.sessions], rest.cursor) == (["s2", "s1", "s0"], None)
    fork = await manager.checkpoints.fork("s0", title="another way")
    assert (await agent.execute(in_session("hi", fork.id))).output == "2"
    assert (await agent.execute(in_session("hi", "s0"))).output == "2"
    first = (await manager.checkpoints.history("s0"))[-1]
    assert (first.step, first.source) == (-1, "input")
    early = next(c for c in await manager.checkpoints.history("s0") if len(c.messages) == 2)
    branch = await manager.checkpoints.fork("s0", early.id)
    assert (await agent.execute(in_session("hi", branch.id))).output == "2"
    await manager.delete_session("s0")
    for method in (
        manager.get_session,
        manager.checkpoints.history,
        manager.delete_session,
        manager.checkpoints.fork,
    ):
        with pytest.raises(SessionGone, match="deleted"):
            await method("s0")
    with pytest.raises(SessionGone):
        await agent.execute(in_session("hi", "s0"))
    with pytest.raises(InputInvalid, match="taken"):
        await manager.create_session("ada", session_id="s0")
    short = await manager.create_session("ada", ttl_s=0.05)
    await asyncio.sleep(0.1)
    with pytest.raises(SessionGone, match="expired"):
        await manager.get_session(short.id)
    assert await manager.cleanup_expired() == 1
    assert short.id not in [s.id for s in (await manager.list_sessions()).sessions]


async def test_states_can_be_saved_by_hand(manager: SessionManager) -> None:
    session = await manager.create_session("ada", title="imported")
    messages = [
        HumanMessage("one", id="1"),
        AIMessage("two", id="2"),
        HumanMessage("three", id="3"),
    ]
    checkpoint_id = await manager.checkpoints.save(session.id, {"messages": messages})
    checkpoint = await manager.checkpoints.get(session.id)
    assert checkpoint is not None
    assert (checkpoint.id, checkpoint.messages) == (checkpoint_id, messages)
    assert await manager.checkpoints.get(session.id, "1f000000-0000-6000-8000-000000000000") is None
    result = await make(manager, count_humans).execute(in_session("four", session.id))
    assert result.output == "3"


async def test_another_tenants_or_users_session_is_as_good_as_none(manager: SessionManager) -> None:
    ada = Principal("ada", "acme")
    eve = Principal("eve", "evil")
    bob = Principal("bob", "acme")
    admin = Principal("root", "acme", frozenset({"sessions:all"}))
    agent = make(manager, count_humans)
    await agent.with_caller(principal=ada).execute(in_session("secret", "shared"))
    for stranger in (eve, bob):
        errors = set()
        for name in ("shared", "unknown"):
            with pytest.raises(SessionNotFound) as missing:
                await manager.get_session(name, principal=stranger)
            errors.add(str(missing.value).replace(name, "X"))
        assert len(errors) == 1
        assert (await manager.list_sessions(principal=stranger)).sessions == []
        assert (await manager.list_sessions(principal=stranger, user_id="ada")).sessions == []
    assert (
        await agent.with_caller(principal=eve).execute(in_session("hi", "shared"))
    ).output == "1"
    with pytest.raises(SessionNotFound):
        await agent.with_caller(principal=bob).execute(in_session("hi", "shared"))
    assert (await manager.get_session("shared", principal=admin)).user_id == "ada"
    with pytest.raises(InputInvalid):
        await manager.create_session("ada", principal=bob)


@pytest.mark.parametrize(
    "name",
    [
        "",
        None,
        0,
        "x" * 1_000_000,
        "a:b",
        "a*",
        "[",
        "?",
        "../x",
        "%2e%2e",
        "é",
        "a\n",
        str(uuid.UUID(int=0)),
    ],
)
async def test_what_cannot_name_a_session_is_refused(name: Any) -> None:
    manager = SessionManager.from_url("memory:")
    with pytest.raises(InputInvalid, match="not a usable name") as refused:
        await manager.get_session(name)
    assert refused.value.code == "session_id_invalid"
    assert len(str(refused.value)) < 300
    if name is not None:
        with pytest.raises(InputInvalid):
            await make(manager, count_humans).execute(in_session("x", name))


@pytest.mark.parametrize(
    "key", ["checkpoint_id", "checkpoint_ns", "tenant", "user", "run_id", "__agent_runtime_guard"]
)
async def test_keys_that_callers_may_not_set_are_refused(manager: SessionManager, key: str) -> None:
    agent = make(manager, count_humans)
    config: Any = {"configurable": {"thread_id": "s1", key: "x"}}
    with pytest.raises(ReservedKey) as refused:
        await agent.ainvoke({"messages": "hi"}, config)
    assert (refused.value.path, refused.value.code) == (f"configurable.{key}", "reserved_key")
    with pytest.raises(ReservedKey):
        await agent.execute(in_session("hi", config=config))


async def test_the_runnable_face_goes_through_the_same_turns(manager: SessionManager) -> None:
    agent = make(manager, count_humans)
    config: Any = {"configurable": {"thread_id": "s1"}}
    states = await asyncio.gather(*(agent.ainvoke({"messages": "hi"}, config) for _ in range(5)))
    assert sorted(s["messages"][-1].text for s in states) == ["1", "2", "3", "4", "5"]
    assert (await agent.execute(in_session("hi"))).output == "6"


async def test_credentials_and_principals_are_not_kept(manager: SessionManager) -> None:
    agent = make(manager, count_humans)
    call = in_session(
        "hi",
        principal=Principal("ada"),
        credentials="dummy-credential",
        config={
            "configurable": {"api_key": "dummy-credential"},
            "metadata": {"auth_token": "dummy-credential"},
        },
    )
    await agent.execute(call)
    found = await manager.checkpointer.aget_tuple({"configurable": {"thread_id": "default:s1"}})
    assert found is not None
    assert "dummy-credential" not in repr(found)
    assert "api_key" not in found.metadata
