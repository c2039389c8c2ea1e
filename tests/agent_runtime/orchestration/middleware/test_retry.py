"""Retry: never after a chunk or a tool start.

Then a resume from the checkpoint, or the failure stands.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from tests.support.calls import run_call

from agent_runtime import (
    AgentContext,
    AgentFailed,
    CallTimeout,
    ConfigurationError,
    ProviderError,
    RetryMiddleware,
    Timeouts,
)
from agent_runtime.orchestration.failures import failure_class
from agent_runtime.providers.errors import retry_after_s, status_of
from agent_runtime.testing import RecordingSink, Say, say

EFFECTS: list[int] = []


@pytest.fixture(autouse=True)
def _clear() -> None:
    EFFECTS.clear()


@tool
def act(n: int) -> str:
    """Do something that must not happen twice."""
    EFFECTS.append(n)
    return f"done {n}"


def flaky(**settings: Any) -> Say:
    return say("partial text here", fail=ConnectionError("cut"), **settings)


def fast(**settings: Any) -> RetryMiddleware:
    return RetryMiddleware(backoff_s=0.001, **settings)


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_failure_before_anything_is_tried_again(make_agent: Any, streaming: bool) -> None:
    agent, model = make_agent([flaky(), say("ok")], pipeline=[fast()])
    result = await run_call(agent, "x", streaming=streaming)
    assert result.output == "ok"
    assert model.calls == 2
    assert result.usage.model_calls == 2
    assert result.usage.total_tokens == 15  # the failed attempt was not billed


async def test_no_retry_after_the_first_chunk_has_reached_a_reader(make_agent: Any) -> None:
    agent, model = make_agent([flaky(fail_after=1), say("ok")], pipeline=[fast(attempts=3)])
    with pytest.raises(ProviderError):
        async with agent.execute_stream("x") as stream:
            texts = [t async for t in stream]
            raise AssertionError(texts)
    assert model.calls == 1


async def test_a_unary_call_may_retry_after_a_partial_answer_that_nobody_read(
    make_agent: Any,
) -> None:
    agent, model = make_agent([flaky(fail_after=1), say("ok")], pipeline=[fast()])
    assert (await agent.execute("x")).output == "ok"
    assert model.calls == 2


@pytest.mark.parametrize("streaming", [False, True])
async def test_no_retry_after_the_first_tool_start_without_a_checkpoint(
    make_agent: Any, streaming: bool
) -> None:
    script = [say("", ("act", {"n": 1})), flaky(), say("ok")]
    agent, model = make_agent(script, [act], pipeline=[fast(attempts=3)])
    with pytest.raises(ProviderError):
        await run_call(agent, "x", streaming=streaming)
    assert EFFECTS == [1]
    assert model.calls == 2


@pytest.mark.parametrize("streaming", [False, True])
async def test_with_a_session_the_run_is_resumed_and_no_finished_tool_runs_twice(
    make_agent: Any, streaming: bool
) -> None:
    script = [say("first", ("act", {"n": 1})), flaky(), say("ok")]
    agent, model = make_agent(
        script, [act], pipeline=[fast(attempts=3)], graph={"checkpointer": InMemorySaver()}
    )
    context = AgentContext("x", session_id="s1")
    if streaming:
        async with agent.execute_stream(context) as stream:
            assert [t async for t in stream] == ["first", "ok"]
        result = stream.result
    else:
        result = await agent.execute(context)
    assert EFFECTS == [1]
    assert model.calls == 3
    assert [m.type for m in result.messages] == ["human", "ai", "tool", "ai"]


async def test_a_session_call_that_failed_at_once_does_not_add_its_input_twice(
    make_agent: Any,
) -> None:
    agent, _ = make_agent(
        [flaky(), say("ok")], pipeline=[fast()], graph={"checkpointer": InMemorySaver()}
    )
    result = await agent.execute(AgentContext("x", session_id="s1"))
    assert [m.type for m in result.messages] == ["human", "ai"]


async def test_no_resume_when_a_reader_has_seen_part_of_the_failed_message(make_agent: Any) -> None:
    script = [say("", ("act", {"n": 1})), flaky(fail_after=1), say("ok")]
    agent, model = make_agent(
        script, [act], pipeline=[fast(attempts=3)], graph={"checkpointer": InMemorySaver()}
    )
    with pytest.raises(ProviderError):
        async with agent.execute_stream(AgentContext("x", session_id="s1")) as stream:
            _ = [c async for c in stream.chunks()]
    assert model.calls == 2


async def test_a_retried_unary_call_that_watches_for_silence_emits_its_text_once(
    make_agent: Any,
) -> None:
    sink = RecordingSink()
    agent, _ = make_agent(
        [flaky(fail_after=2), say("hello world")], pipeline=[fast()], timeouts=Timeouts(idle_s=5)
    )
    result = await agent.execute(AgentContext("x", emit=sink))
    assert sink.texts == {result.messages[-1].id: "hello world"}


async def test_a_tools_own_failed_connection_is_not_the_providers(make_agent: Any) -> None:
    @tool
    def look_up() -> str:
        """Look up in a database."""
        raise ConnectionRefusedError("database down")

    agent, _ = make_agent([say("", ("look_up", {}))], [look_up])
    with pytest.raises(AgentFailed, match="database down") as failed:
        await agent.execute("x")
    assert failed.value.code == "agent_failed"


async def test_a_failure_that_would_come_again_is_not_tried_again(make_agent: Any) -> None:
    agent, model = make_agent([say(fail=ValueError("bad request"))], pipeline=[fast(attempts=5)])
    with pytest.raises(AgentFailed, match="bad request"):
        await agent.execute("x")
    assert model.calls == 1


async def test_execute_with_retry_sets_the_layers_attempts_for_one_call(make_agent: Any) -> None:
    agent, model = make_agent([flaky(), flaky(), flaky(), say("ok")], pipeline=[fast(attempts=1)])
    assert (await agent.execute_with_retry("x", max_retries=3)).output == "ok"
    assert model.calls == 4
    agent, model = make_agent([flaky()], pipeline=[fast(attempts=1)])
    with pytest.raises(ProviderError):
        await agent.execute("x")
    assert model.calls == 1


async def test_execute_with_retry_needs_the_layer_and_a_sensible_number(make_agent: Any) -> None:
    agent, _ = make_agent([say("x")], pipeline=[])
    with pytest.raises(ConfigurationError, match="RetryMiddleware"):
        await agent.execute_with_retry("x", 1)
    agent, _ = make_agent([say("x")])
    with pytest.raises(ConfigurationError, match="negative"):
        await agent.execute_with_retry("x", -1)


async def test_a_wait_beyond_the_deadline_is_not_begun(make_agent: Any) -> None:
    agent, model = make_agent(
        [flaky()], pipeline=[RetryMiddleware(attempts=3, backoff_s=1e6, max_backoff_s=1e6)]
    )
    deadline = asyncio.get_running_loop().time() + 5
    with pytest.raises(ProviderError):
        await agent.execute(AgentContext("x", deadline=deadline))
    assert model.calls == 1


class FakeResponse:
    def __init__(self, status: int, **headers: str) -> None:
        self.status_code = status
        self.headers = {k.replace("_", "-"): v for k, v in headers.items()}


class FakeStatusError(Exception):
    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.response = FakeResponse(status, **headers)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FakeStatusError(429), "rate_limit"),
        (FakeStatusError(500), "server_error"),
        (FakeStatusError(529), "server_error"),
        (FakeStatusError(400), None),
        (FakeStatusError(401), None),
        (ConnectionResetError(), "connection"),
        (TimeoutError(), "timeout"),
        (CallTimeout("idle", 1), "timeout"),
        (CallTimeout("model_call", 1), "timeout"),
        (CallTimeout("run", 1), None),
        (ValueError(), None),
        (ConfigurationError(), None),
    ],
)
def test_failures_are_classified(error: Exception, expected: str | None) -> None:
    assert failure_class(error) == expected
    wrapped = RuntimeError("provider package")
    wrapped.__cause__ = error
    if not isinstance(error, CallTimeout | ConfigurationError):
        assert failure_class(wrapped) == expected
        assert status_of(wrapped) == getattr(error, "status_code", None)


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert retry_after_s(FakeStatusError(429, retry_after="2.5")) == 2.5
    assert retry_after_s(FakeStatusError(429, retry_after="-3")) == 0
    assert retry_after_s(FakeStatusError(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")) == 0
    assert retry_after_s(FakeStatusError(429, retry_after="soon")) is None
    assert retry_after_s(FakeStatusError(429)) is None
    assert retry_after_s(ValueError()) is None


async def test_a_provider_that_asks_for_too_long_a_wait_is_not_waited_for(make_agent: Any) -> None:
    agent, model = make_agent(
        [say(fail=FakeStatusError(429, retry_after="900")), say("ok")], pipeline=[fast()]
    )
    with pytest.raises(ProviderError) as failed:
        await agent.execute("x")
    assert (failed.value.status, failed.value.retry_after_s, model.calls) == (429, 900, 1)


async def test_retry_on_limits_the_classes(make_agent: Any) -> None:
    agent, model = make_agent([flaky(), say("ok")], pipeline=[fast(retry_on=["rate_limit"])])
    with pytest.raises(ProviderError):
        await agent.execute("x")
    assert model.calls == 1


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"retry_on": ["whatever"]}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RetryMiddleware(**wrong)
