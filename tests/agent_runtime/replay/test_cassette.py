"""A recorded run is played again without network, model and tools; what differs is found.

A step is a fork's start.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain.tools import InjectedState, InjectedToolCallId, ToolRuntime
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.types import Command

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
from agent_runtime.replay.cassette import first_difference
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
        self.bus = EventBus()
        self.log = SqliteBroker(str(path))
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


# -- what differs


@tool
def lookup(word: str) -> str:
    """Look a word up."""
    return f"meaning of {word}"


def use_scripted(
    recorder: Recorder, prompt: str = "Be nice", script: Any = None, more: str = ""
) -> None:
    recorder.factory.register_model(
        "m",
        ScriptedChatModel(script=script or [say("", ("lookup", {"word": "x"})), say("it is x")]),
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
    row = recorder.log._db.execute(
        "SELECT position, event FROM events WHERE type = 'tool.start'"
    ).fetchone()
    recorder.log._db.execute("DROP TRIGGER events_unchanged")
    changed = row[1].replace(b'"word":"x"', b'"word":"y"')
    recorder.log._db.execute("UPDATE events SET event = ? WHERE position = ?", [changed, row[0]])
    replay = await replayed(recorder, run_id)
    assert replay.difference is not None
    assert (replay.difference.step, replay.difference.what) == (2, "args.word")


async def test_a_replay_that_makes_fewer_calls_says_which_is_missing(recorder: Recorder) -> None:
    use_scripted(recorder)
    run_id = await recorder.run("t", "what is x?")
    use_scripted(
        recorder, more="  middleware: [{use: model_call_limit, run_limit: 1, exit_behavior: end}]\n"
    )
    replay = await replayed(recorder, run_id)
    assert replay.difference is not None
    assert (replay.difference.step, replay.difference.what) == (
        3,
        "the replay ended before this call",
    )


async def test_a_failed_run_replays_to_its_failure(recorder: Recorder) -> None:
    use_scripted(
        recorder, script=[say("", ("lookup", {"word": "x"})), say(fail=ValueError("broken"))]
    )
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
    recorder.factory.register_template(
        parse_template(HEAD % "t" + "  model: m\n  tools: [lookup, {agent: inner}]\n")
    )
    run_id = await recorder.run("t", "go")
    for name in ("m", "inner"):
        recorder.factory.register_model(
            name, ScriptedChatModel(script=[say(fail=AssertionError("asked"))])
        )
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


# -- forks


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


# -- what agents do every day


async def same(recorder: Recorder, run_id: str) -> Replay:
    replay = await replayed(recorder, run_id)
    assert replay.same, str(replay.difference)
    return replay


async def test_arguments_that_do_not_fit_and_are_corrected_are_played(recorder: Recorder) -> None:
    use_scripted(
        recorder,
        script=[say("", ("lookup", {"wrong": 1})), say("", ("lookup", {"word": "x"})), say("done")],
    )
    replay = await same(recorder, await recorder.run("t", "what is x?"))
    assert [step.error for step in replay.recording.steps] == [
        None,
        "ValidationError",
        None,
        None,
        None,
    ] or all(step.error is None for step in replay.recording.steps)


async def test_a_tool_that_failed_and_was_survived_is_played(recorder: Recorder) -> None:
    answers = iter(["broken", "fine"])

    @tool
    def lookup(word: str) -> str:
        """Look a word up."""
        if (answer := next(answers)) == "broken":
            raise ValueError("no such word")
        return answer

    again = ("lookup", {"word": "x"})
    use_scripted(
        recorder,
        script=[say("", again), say("", again), say("done")],
        more="  middleware: [{use: tool_error}]\n",
    )
    recorder.factory.register_tool("lookup", lookup)
    run_id = await recorder.run("t", "what is x?")
    replay = await same(recorder, run_id)
    assert [step.error for step in replay.recording.steps if step.kind == "tool"] == [
        "ValueError",
        None,
    ]


async def test_an_inner_agent_that_failed_is_played(recorder: Recorder) -> None:
    recorder.factory.register_model(
        "inner", ScriptedChatModel(script=[say(fail=ValueError("inner is broken"))])
    )
    recorder.factory.register_template(parse_template(HEAD % "inner" + "  model: inner\n"))
    recorder.factory.register_model(
        "m", ScriptedChatModel(script=[say("", ("inner", {"request": "x"})), say("done")])
    )
    recorder.factory.register_template(
        parse_template(HEAD % "t" + "  model: m\n  tools: [{agent: inner}]\n")
    )
    await same(recorder, await recorder.run("t", "go"))


async def test_tools_with_injected_arguments_and_commands_are_played(recorder: Recorder) -> None:
    @tool
    def lookup(
        word: str,
        call: Annotated[str, InjectedToolCallId],
        state: Annotated[dict[str, Any], InjectedState],
    ) -> Command[Any]:
        """Look a word up."""
        count = len(state["messages"])
        return Command(
            update={"messages": [ToolMessage(f"{word} after {count}", tool_call_id=call)]}
        )

    @tool
    def look(word: str, runtime: ToolRuntime) -> str:
        """Look."""
        return f"{word} {runtime.tool_call_id is not None}"

    calls = [("lookup", {"word": "x"}), ("look", {"word": "y"})]
    recorder.factory.register_model("m", ScriptedChatModel(script=[say("", *calls), say("done")]))
    for name, each in (("lookup", lookup), ("look", look)):
        recorder.factory.register_tool(name, each)
    recorder.factory.register_template(
        parse_template(HEAD % "t" + "  model: m\n  tools: [lookup, look]\n")
    )
    replay = await same(recorder, await recorder.run("t", "go"))
    assert [step.request for step in replay.recording.steps if step.kind == "tool"] == [
        {"word": "x"},
        {"word": "y"},
    ]


async def test_a_model_inside_a_tool_is_not_asked_and_a_fork_goes_on_behind_it(
    recorder: Recorder,
) -> None:
    inner = ScriptedChatModel(script=[say("of the inner model")])

    @tool
    async def lookup(word: str) -> str:
        """Look a word up."""
        return str((await inner.ainvoke(word)).text)

    use_scripted(recorder)
    recorder.factory.register_tool("lookup", lookup)
    run_id = await recorder.run("t", "what is x?")
    asked = inner.calls
    replay = await same(recorder, run_id)
    assert [step.kind for step in replay.recording.steps] == ["llm", "tool", "llm", "llm"]
    recorder.factory.register_model("m", ScriptedChatModel(script=[say("another end")]))
    fork = await replayed(recorder, run_id, from_step=4)
    assert fork.result is not None
    assert (fork.result.output, inner.calls) == ("another end", asked)


class Mailing(AgentMiddleware[Any, Any]):
    """Brings a tool of its own."""

    def __init__(self, sent: list[str]) -> None:
        super().__init__()

        @tool
        def send_mail(to: str) -> str:
            """Send a mail."""
            sent.append(to)
            return "sent"

        self.tools = [send_mail]


async def test_tools_of_middleware_are_recorded_and_not_run(recorder: Recorder) -> None:
    sent: list[str] = []
    recorder.factory.register_middleware("mailing", Mailing(sent))
    use_scripted(
        recorder,
        script=[say("", ("send_mail", {"to": "bob"})), say("done")],
        more="  middleware: [{use: mailing}]\n",
    )
    run_id = await recorder.run("t", "write to bob")
    assert sent == ["bob"]
    replay = await same(recorder, run_id)
    assert sent == ["bob"]
    assert [step.name for step in replay.recording.steps if step.kind == "tool"] == ["send_mail"]


class Asking(AgentMiddleware[Any, Any]):
    """Asks a model of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def before_model(self, state: Any, runtime: Any) -> None:
        self.model.invoke("hello")


async def test_a_model_that_no_recording_stands_in_for_is_not_asked(recorder: Recorder) -> None:
    model = ScriptedChatModel(script=[say("hi")])
    recorder.factory.register_middleware("asking", Asking(model))
    use_scripted(recorder, script=[say("done")], more="  middleware: [{use: asking}]\n")
    run_id = await recorder.run("t", "go")
    asked = model.calls
    replay = await replayed(recorder, run_id)
    assert model.calls == asked
    assert replay.difference is not None
    assert "no recording stands in for" in replay.difference.what


async def test_workflows_inside_are_refused(recorder: Recorder) -> None:
    recorder.factory.register_workflow("flow", ScriptedChatModel(script=[say("x")]))
    recorder.factory.register_template(parse_template(HEAD % "flow" + "  workflow: flow\n"))
    recorder.factory.register_model("m", ScriptedChatModel(script=[say("done")]))
    recorder.factory.register_template(
        parse_template(HEAD % "t" + "  model: m\n  tools: [{agent: flow}]\n")
    )
    run_id = await recorder.run("t", "go")
    with pytest.raises(ConfigurationError, match="workflow"):
        await replayed(recorder, run_id)


async def test_native_structured_output_is_played(recorder: Recorder) -> None:
    model = ScriptedChatModel(script=[say('{"answer": 4}')], profile={"structured_output": True})
    recorder.factory.register_model("m", model)
    schema = (
        "{schema: {title: out, type: object, properties: {answer: {type: integer}}, "
        "required: [answer]}}"
    )
    recorder.factory.register_template(
        parse_template(HEAD % "t" + f"  model: m\n  response_format: {schema}\n")
    )
    await same(recorder, await recorder.run("t", "2 + 2"))


async def test_overrides_and_missing_keys_are_no_difference(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.factory.register_model("other", ScriptedChatModel(script=[say("of the other")]))
    use_scripted(recorder, script=[say("done")])
    run_id = await recorder.run("t", "go", model="other")
    assert not (await same(recorder, run_id)).template_changed
    monkeypatch.setenv("DUMMY_KEY", "a-dummy-key-for-nobody")
    spec = "  model: {id: m, api_key: {from_env: DUMMY_KEY}}\n"
    recorder.factory.register_template(parse_template(HEAD % "k" + spec))
    run_id = await recorder.run("k", "go")
    monkeypatch.delenv("DUMMY_KEY")
    await same(recorder, run_id)


async def test_a_step_without_an_end_says_so(recorder: Recorder) -> None:
    use_scripted(recorder)
    run_id = await recorder.run("t", "what is x?")
    recorder.log._db.execute("DROP TRIGGER events_kept")
    recorder.log._db.execute("DELETE FROM events WHERE type = 'tool.end'")
    with pytest.raises(NotRecorded, match=r"step 2 .*has no end"):
        await replayed(recorder, run_id)
