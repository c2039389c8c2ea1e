"""Ways in which conversations were once damaged; each stays here."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from tests.support.checkpoints import METADATA, checkpoint, config_of
from tests.support.operations import operation_name
from tests.support.sessions import (
    EFFECTS,
    in_session,
    make,
    open_manager,
    pay,
    pays_first,
)

from agent_runtime import (
    CheckpointCorrupt,
    ConfigurationError,
    InputInvalid,
    SessionBusy,
    SessionGone,
    SessionManager,
    SessionNotFound,
    StaleWriter,
    StoreTimeout,
    StoreUnavailable,
)
from agent_runtime.sessions import MemoryCheckpointer, SqliteCheckpointer
from agent_runtime.testing import say


def open_calls(messages: list[Any]) -> int:
    calls = {c["id"] for m in messages if isinstance(m, AIMessage) for c in m.tool_calls}
    return len(calls - {m.tool_call_id for m in messages if isinstance(m, ToolMessage)})


async def test_a_result_of_another_turn_is_not_taken_for_the_answer(
    manager: SessionManager,
) -> None:
    def script(messages: list[Any]) -> Any:
        if messages[-1].type == "tool":
            return say(fail=ValueError("broke"))
        amounts = {"first": 10, "second": 20}
        text = messages[-1].text
        return say("", ("pay", {"amount": amounts[text]})) if text in amounts else say("ok")

    with pytest.raises(Exception, match="broke"):
        await make(manager, script, pay).execute(in_session("first"))
    agent = make(manager, script, pay)  # a new model, which gives its calls the same ids again
    await agent.execute(in_session("second", options={"interrupt_before": ["tools"]}))
    result = await agent.execute(in_session("third"))
    answers = [m.text for m in result.messages if m.type == "tool"]
    assert answers[0] == "paid 10"
    assert "did not run" in answers[1]


async def test_a_store_that_fails_in_mid_turn_leaves_nothing_open(manager: SessionManager) -> None:
    records: Any = manager.checkpointer.backend
    arun_body = records.arun_body
    agent = make(manager, pays_first, pay)

    async def failing(body: Any, args: Any) -> Any:
        if operation_name(body) == "start_tool_call":
            raise StoreTimeout("now")
        return await arun_body(body, args)

    records.arun_body = failing
    with pytest.raises(StoreTimeout):
        await agent.execute(in_session("go"))
    records.arun_body = arun_body
    result = await agent.execute(in_session("again"))
    assert open_calls(result.messages) == 0


async def test_a_run_that_was_told_to_stop_before_a_node_is_not_taken_for_ended(
    manager: SessionManager,
) -> None:
    agent = make(manager, pays_first, pay)
    await agent.execute(in_session("go", options={"interrupt_before": ["tools"]}))
    assert open_calls((await agent.execute(in_session("again"))).messages) == 0
    config: Any = {"configurable": {"thread_id": "s2"}}
    asking = make(manager, pays_first, pay, interrupt_on={"pay": True})
    await asking.ainvoke({"messages": "go"}, config, stream_mode="updates")
    assert open_calls((await asking.execute(in_session("again", "s2"))).messages[:-1]) == 0


async def test_saving_by_hand_does_not_hide_a_crash(manager: SessionManager) -> None:
    agent = make(manager, pays_first, pay)
    await agent.execute(in_session("go", options={"interrupt_before": ["tools"]}))
    await manager.checkpoints.save("s1", {"note": "x"})
    assert open_calls((await agent.execute(in_session("again"))).messages) == 0


async def test_old_messages_that_are_edited_in_place_are_stored(tmp_path: Path) -> None:
    for saver in (MemoryCheckpointer(), None):
        async with SqliteCheckpointer.from_conn_string(str(tmp_path / "x.db")) as sqlite:
            used = saver or sqlite
            messages = [HumanMessage(f"secret {i}", id=str(i)) for i in range(8)]
            config = await used.aput(config_of("t"), checkpoint(messages), METADATA, {})
            found: Any = await used.aget_tuple(config_of("t"))
            edited = found.checkpoint["channel_values"]["messages"]
            edited[0].content = "REDACTED"
            edited[1].additional_kwargs["seen"] = True
            todos = [{"done": False} for _ in range(5)]
            config = await used.aput(config, checkpoint(edited, 2, todos=todos), METADATA, {})
            todos[0]["done"] = True
            await used.aput(config, checkpoint(edited, 3, todos=todos), METADATA, {})
            used.operations.forget("t")
            again: Any = await used.aget_tuple(config_of("t"))
            values = again.checkpoint["channel_values"]
            assert values["messages"][0].text == "REDACTED"
            assert values["messages"][1].additional_kwargs == {"seen": True}
            assert values["todos"][0] == {"done": True}


def test_threads_that_read_at_once_read_the_same() -> None:
    saver = MemoryCheckpointer()
    messages = [HumanMessage("x", id=str(i)) for i in range(3000)]
    saver.put(config_of("t"), checkpoint(messages), METADATA, {})
    lengths: list[int] = []

    def read() -> None:
        found: Any = saver.get_tuple(config_of("t"))
        lengths.append(len(found.checkpoint["channel_values"]["messages"]))

    for _ in range(3):
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(lengths) == {3000}


async def test_another_key_or_an_unknown_type_does_not_lock_a_session() -> None:
    keyed = MemoryCheckpointer(mac_key=b"a key of the tests with 32 bytes")
    config = await keyed.aput(config_of("t"), checkpoint([HumanMessage("a", id="1")]), METADATA, {})
    records: Any = keyed.backend
    another = MemoryCheckpointer(records, mac_key=b"another key of the tests, 32 too")
    for other in (MemoryCheckpointer(records), another):
        with pytest.raises(CheckpointCorrupt, match="another key") as refused:
            await other.aget_tuple(config_of("t"))
        assert not refused.value.damaged
    await keyed.aput(config, checkpoint([HumanMessage("b", id="2")], 2), METADATA, {})


async def test_deleting_a_session_ends_its_running_turn(manager: SessionManager) -> None:
    begun = asyncio.Event()

    @tool
    async def work() -> str:
        """Work for a moment."""
        begun.set()
        await asyncio.sleep(0.2)
        return "done"

    script = lambda m: say("end") if m[-1].type == "tool" else say("", ("work", {}))  # noqa: E731
    agent = make(manager, script, work)
    call = asyncio.create_task(agent.execute(in_session("go")))
    await begun.wait()
    await manager.delete_session("s1")
    with pytest.raises((StaleWriter, SessionGone)):
        await call
    with pytest.raises(SessionGone):
        await manager.get_session("s1")
    assert (
        await manager.checkpointer.aget_tuple({"configurable": {"thread_id": "default:s1"}}) is None
    )


async def test_a_thread_that_another_process_made_anew_is_not_mixed_with_the_old(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "x.db")
    async with (
        SqliteCheckpointer.from_conn_string(path) as a,
        SqliteCheckpointer.from_conn_string(path) as b,
    ):
        old = [HumanMessage(t, id=t) for t in "ab"]
        config = await a.aput(config_of("t"), checkpoint(old), METADATA, {})
        await b.adelete_thread("t")
        await b.aput(
            config_of("t"), checkpoint([HumanMessage(t, id=t) for t in "xy"]), METADATA, {}
        )
        await a.aput(config, checkpoint([*old, HumanMessage("c", id="c")], 2), METADATA, {})
        b.operations.forget("t")
        found: Any = await b.aget_tuple(config_of("t"))
        assert [m.text for m in found.checkpoint["channel_values"]["messages"]] == ["a", "b", "c"]


def test_a_drain_does_not_wait_for_ever_for_a_blocking_caller(manager: SessionManager) -> None:
    @tool
    async def hang() -> str:
        """Hang."""
        await asyncio.sleep(30)
        return ""

    agent = make(manager, [say("", ("hang", {}))], hang)
    failed: list[BaseException] = []

    def call() -> None:
        try:
            agent.execute_sync("go")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the call has ended
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not agent._core.call_tracker._tasks:
        pass
    assert asyncio.run(asyncio.wait_for(agent.drain(0.1), 5)) == 1
    thread.join(5)
    assert len(failed) == 1


async def test_a_tenant_of_the_applications_own_code_is_resumed_there(
    manager: SessionManager,
) -> None:
    from agent_runtime import Principal

    agent = make(manager, pays_first, pay, interrupt_on={"pay": True})
    ada = Principal("ada", "acme")
    await agent.with_caller(principal=ada).execute(in_session("go"))
    result = await manager.resume_session("s1", "approve", tenant="acme")
    assert (result.status, EFFECTS) == ("completed", ["pay 10"])
    with pytest.raises(SessionNotFound):
        await agent.resume("no-such-session", "approve")
    assert (await manager.list_sessions()).sessions == []


async def test_a_turn_does_not_wait_for_itself(manager: SessionManager) -> None:
    @tool
    async def again() -> str:
        """Call the session that this turn is of."""
        with pytest.raises(SessionBusy, match="this turn already holds"):
            await manager.checkpoints.save("s1", {"x": 1})
        return "refused"

    script = lambda m: say("end") if m[-1].type == "tool" else say("", ("again", {}))  # noqa: E731
    assert (await make(manager, script, again).execute(in_session("go"))).output == "end"


async def test_an_invalid_call_changes_nothing(manager: SessionManager) -> None:
    agent = make(manager, pays_first, pay, interrupt_on={"pay": True})
    await agent.execute(in_session("go"))
    for wrong in (agent.resume("s1", "aprove"), agent.execute(in_session("  "))):
        with pytest.raises(InputInvalid):
            await wrong
        assert (await manager.get_session("s1")).status == "interrupted"
    assert (await agent.resume("s1", "approve")).status == "completed"


async def test_what_is_changed_during_a_turn_stays_changed(manager: SessionManager) -> None:
    @tool
    async def rename() -> str:
        """Rename the session."""
        await manager.update_session("s1", title="mine", metadata={"k": 1})
        return "renamed"

    script = lambda m: say("end") if m[-1].type == "tool" else say("", ("rename", {}))  # noqa: E731
    await make(manager, script, rename).execute(in_session("go"))
    session = await manager.get_session("s1")
    assert (session.title, session.metadata) == ("mine", {"k": 1})


async def test_a_fork_that_fails_leaves_nothing_and_one_of_an_open_turn_is_repaired(
    manager: SessionManager,
) -> None:
    agent = make(manager, pays_first, pay)
    await agent.execute(in_session("go", options={"interrupt_before": ["tools"]}))
    with pytest.raises(InputInvalid, match="no checkpoint"):
        await manager.checkpoints.fork("s1", "nope")
    assert len((await manager.list_sessions()).sessions) == 1
    fork = await manager.checkpoints.fork("s1")
    assert open_calls((await agent.execute(in_session("again", fork.id))).messages) == 0


async def test_addresses_that_mean_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'valkey' is not known"):
        open_manager("valkey://localhost")
    with pytest.raises(ConfigurationError, match="durable is yes or no"):
        open_manager("redis://localhost?durable=maybe")
    manager = open_manager(f"sqlite:{tmp_path / 'x.db'}")
    await manager.aclose()
    with pytest.raises(StoreUnavailable):
        await manager.list_sessions()
