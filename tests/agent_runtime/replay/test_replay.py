"""A recorded run is played again without network, model and tools; what differs is found; a step is a fork's start."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agent_runtime import (
    AgentCallbackHandler,
    AgentContext,
    AgentFactory,
    CallError,
    EventBus,
    SessionManager,
    parse_template,
)
from agent_runtime.errors import ConfigurationError, NotRecorded
from agent_runtime.event_bus.brokers import SqliteBroker
from agent_runtime.event_bus.relay import Relay
from agent_runtime.models.offline import OfflineChatModel
from agent_runtime.replay import Replay, read_recording, replay_run
from agent_runtime.replay.tape import first_difference
from agent_runtime.testing import ScriptedChatModel, say

HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: %s}\nspec:\n"
QUESTIONS = {
    "analyst": "What is the total amount in the North?",
    "searcher": "How long is the warranty of lamps?",
    "writer": "Write about a lighthouse.",
}


class Recorder:
    """A factory whose runs are written to an event log, with their contents."""

    def __init__(self, path: Path, *, content: bool = True, **seats: Any) -> None:
        self.bus, self.log = EventBus(), SqliteBroker(str(path))
        handler = AgentCallbackHandler(bus=self.bus, content=content)
        self.factory = AgentFactory(event_bus=self.bus, callback_handler=handler, **seats)
        self.relay = Relay(self.bus, self.log)

    async def run(self, name: Any, call: Any, **overrides: Any) -> str:
        context = call if isinstance(call, AgentContext) else AgentContext(call)
        with contextlib.suppress(CallError):
            await self.factory.create_from_template(name, **overrides).execute(context)
        await self.relay.flush()
        return context.run_id


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    made = Recorder(tmp_path / "events.db")
    async with made.factory, made.relay:
        yield made
    await made.log.aclose()


def remove_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and no model that could answer."""

    def gone(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the replay asked the world")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, gone, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", gone)
    for name in ("_generate", "_agenerate", "_stream", "_astream", "answer"):
        monkeypatch.setattr(OfflineChatModel, name, gone)


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_every_shipped_template_replays_without_network_and_model(
    name: str, streamed: bool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = recorder.factory.create_from_template(name)
    if streamed:
        async with agent.execute_stream(QUESTIONS[name]) as stream:
            _ = [text async for text in stream]
        result = stream.result
    else:
        result = await agent.execute(QUESTIONS[name])
    await recorder.relay.flush()
    remove_the_world(monkeypatch)
    monkeypatch.setattr("agent_runtime.registry.as_tool", _without_running())
    replay = await replay_run(recorder.log, result.run_id)
    assert replay.same, str(replay.difference)
    assert replay.result is not None
    assert replay.result.output == result.output
    assert replay.result.usage.output_tokens == result.usage.output_tokens
    assert (replay.live_calls, replay.template_changed) == (0, False)
    assert len(replay.recording.steps) >= 3


def _without_running() -> Any:
    from agent_runtime import registry

    real = registry.as_tool

    def as_tool(found: Any, name: str, args: Any) -> Any:
        made = real(found, name, args)

        def gone(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the replay ran a tool")

        return made.model_copy(update={"func": gone, "coroutine": None})

    return as_tool


# -- what differs ------------------------------------------------------------------------------------------


@tool
def lookup(word: str) -> str:
    """Look a word up."""
    return f"meaning of {word}"


def use_scripted(recorder: Recorder, prompt: str = "Be nice", script: Any = None, more: str = "") -> None:
    recorder.factory.register_model(
        "m", ScriptedChatModel(script=script or [say("", ("lookup", {"word": "x"})), say("it is x")])
    )
    recorder.factory.register_tool("lookup", lookup)
    text = HEAD % "t" + f"  model: m\n  tools: [lookup]\n  system_prompt: {prompt}\n" + more
    recorder.factory.register_template(parse_template(text))


async def replayed(recorder: Recorder, run_id: str, **how: Any) -> Replay:
    return await replay_run(recorder.log, run_id, factory=recorder.factory, **how)


async def test_another_prompt_is_the_first_difference(recorder: Recorder) -> None:
    use_scripted(recorder)
    run_id = await recorder.run("t", "what is x?")
    assert (await replayed(recorder, run_id)).same
    use_scripted(recorder, "Be terse")
    replay = await replayed(recorder, run_id)
    assert replay.difference is not None
    found = replay.difference
    assert (found.step, found.what) == (1, "messages.0.content")
    assert (found.recorded, found.replayed) == ("Be nice", "Be terse")
    assert replay.template_changed


async def test_a_tool_that_is_no_longer_asked_the_same_is_a_difference(recorder: Recorder) -> None:
    use_scripted(recorder)
    run_id = await recorder.run("t", "what is x?")
    recording = await read_recording(recorder.log, run_id)
    assert [(s.number, s.kind, s.name) for s in recording.steps] == [
        (1, "llm", "scripted"),
        (2, "tool", "lookup"),
        (3, "llm", "scripted"),
    ]
    row = recorder.log._db.execute("SELECT position, event FROM events WHERE type = 'tool.start'").fetchone()
    recorder.log._db.execute("DROP TRIGGER events_unchanged")
    changed = row[1].replace(b'"word":"x"', b'"word":"y"')
    recorder.log._db.execute("UPDATE events SET event = ? WHERE position = ?", [changed, row[0]])
    replay = await replayed(recorder, run_id)
    assert replay.difference is not None
    assert (replay.difference.step, replay.difference.what) == (2, "args.word")


async def test_a_replay_that_makes_fewer_calls_says_which_is_missing(recorder: Recorder) -> None:
    use_scripted(recorder)
    run_id = await recorder.run("t", "what is x?")
    use_scripted(recorder, more="  middleware: [{use: model_call_limit, run_limit: 1, exit_behavior: end}]\n")
    replay = await replayed(recorder, run_id)
    assert replay.difference is not None
    assert (replay.difference.step, replay.difference.what) == (3, "the replay ended before this call")


async def test_a_failed_run_replays_to_its_failure(recorder: Recorder) -> None:
    use_scripted(recorder, script=[say("", ("lookup", {"word": "x"})), say(fail=ValueError("broken"))])
    run_id = await recorder.run("t", "what is x?")
    replay = await replayed(recorder, run_id)
    assert replay.recording.status == "failed"
    assert replay.result is None
    assert replay.same, str(replay.difference)


async def test_a_call_that_was_tried_again_is_played_once(recorder: Recorder) -> None:
    use_scripted(
        recorder,
        script=[say(fail=ConnectionError("lost")), say("fine")],
        more="  runtime: {retry: {attempts: 2, initial_delay: 1ms}}\n",
    )
    run_id = await recorder.run("t", "hello")
    replay = await replayed(recorder, run_id)
    assert [step.error for step in replay.recording.steps] == ["ConnectionError", None]
    assert replay.same, str(replay.difference)
    assert replay.result is not None
    assert replay.result.output == "fine"


async def test_parallel_tools_and_an_agent_inside_an_agent_are_played(recorder: Recorder) -> None:
    recorder.factory.register_model("inner", ScriptedChatModel(script=[say("inner answer")]))
    recorder.factory.register_template(parse_template(HEAD % "inner" + "  model: inner\n"))
    calls = [("lookup", {"word": "a"}), ("lookup", {"word": "b"}), ("inner", {"request": "help"})]
    recorder.factory.register_model("m", ScriptedChatModel(script=[say("", *calls), say("done")]))
    recorder.factory.register_tool("lookup", lookup)
    recorder.factory.register_template(parse_template(HEAD % "t" + "  model: m\n  tools: [lookup, {agent: inner}]\n"))
    run_id = await recorder.run("t", "go")
    for name in ("m", "inner"):
        recorder.factory.register_model(name, ScriptedChatModel(script=[say(fail=AssertionError("asked"))]))
    replay = await replayed(recorder, run_id)
    assert replay.same, str(replay.difference)
    assert sorted(s.name for s in replay.recording.steps) == [
        "inner",
        "lookup",
        "lookup",
        "scripted",
        "scripted",
        "scripted",
    ]


async def test_a_turn_of_a_session_is_played_with_what_was_said_before(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "events.db", session_manager=SessionManager())
    async with recorder.factory, recorder.relay:
        use_scripted(recorder, script=[say("first"), say("second")])
        await recorder.run("t", AgentContext("one", session_id="s"))
        run_id = await recorder.run("t", AgentContext("two", session_id="s"))
        replay = await replayed(recorder, run_id)
        assert replay.same, str(replay.difference)
        assert [m["content"] for m in replay.recording.input] == ["one", "first", "two"]
    await recorder.log.aclose()


async def test_an_agent_that_asks_a_person_is_played_to_its_question(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "events.db", session_manager=SessionManager())
    async with recorder.factory, recorder.relay:
        use_scripted(recorder, more="  interrupt_on: {lookup: true}\n")
        run_id = await recorder.run("t", AgentContext("what is x?", session_id="s"))
        replay = await replayed(recorder, run_id)
        assert replay.recording.status == "interrupted"
        assert replay.same, str(replay.difference)
    await recorder.log.aclose()


# -- forks -------------------------------------------------------------------------------------------------


async def test_a_fork_plays_up_to_its_step_and_lives_from_there(recorder: Recorder) -> None:
    ran: list[str] = []

    @tool
    def lookup(word: str) -> str:
        """Look a word up."""
        ran.append(word)
        return f"meaning of {word}"

    use_scripted(recorder)
    recorder.factory.register_tool("lookup", lookup)
    run_id = await recorder.run("t", "what is x?")
    assert ran == ["x"]
    live = ScriptedChatModel(script=[say("another answer")])
    recorder.factory.register_model("m", live)
    fork = await replayed(recorder, run_id, from_step=3)
    assert fork.result is not None
    assert (fork.result.output, ran, fork.live_calls) == ("another answer", ["x"], 1)
    fork = await replayed(recorder, run_id, from_step=2)
    assert (ran, fork.live_calls) == (["x", "x"], 2)
    recorder.factory.register_model("other", ScriptedChatModel(script=[say("of the other")]))
    fork = await replayed(recorder, run_id, from_step=1, model="other")
    assert fork.result is not None
    assert fork.result.output == "of the other"


@pytest.mark.parametrize("how", [{"from_step": 0}, {"from_step": 9}, {"model": "m"}])
async def test_a_fork_that_cannot_be_is_refused(how: Any, recorder: Recorder) -> None:
    use_scripted(recorder)
    run_id = await recorder.run("t", "what is x?")
    with pytest.raises(ConfigurationError):
        await replayed(recorder, run_id, **how)


async def test_what_was_not_recorded_whole_says_so(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "events.db", content=False)
    async with recorder.factory, recorder.relay:
        use_scripted(recorder)
        run_id = await recorder.run("t", "what is x?")
        with pytest.raises(NotRecorded, match="--record"):
            await replayed(recorder, run_id)
        with pytest.raises(NotRecorded, match="no start"):
            await replayed(recorder, "unknown")
    await recorder.log.aclose()


def test_the_first_difference_has_its_path() -> None:
    assert first_difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ("a.1.b", 2, 3)
    assert first_difference([1], [1, 2]) == ("1", None, 2)
    assert first_difference({"a": 1}, {"a": 1, "c": None})[0] == "c"
    assert first_difference(1, "1") == ("", 1, "1")


async def test_secrets_are_not_recorded_and_do_not_make_a_difference(recorder: Recorder) -> None:
    use_scripted(recorder, script=[say("password=correct-horse-battery")])
    run_id = await recorder.run("t", "my password: correct-horse-battery-staple")
    stored = b"".join(row[0] for row in recorder.log._db.execute("SELECT event FROM events"))
    assert b"correct-horse" not in stored
    assert (await replayed(recorder, run_id)).same
    await asyncio.sleep(0)
