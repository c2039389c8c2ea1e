"""`langchain-openai` and `langchain-anthropic`, unmodified, over real sockets."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from tests.support.calls import run_call
from tests.support.provider_server import Answer, ProviderServer, serve

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    AgentFailed,
    CallTimeout,
    ProviderError,
    TextChunk,
    ToolCallChunk,
    parse_template,
)

MODELS = {"openai": "openai:gpt-5-mini", "anthropic": "anthropic:claude-haiku-4-5"}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def make(
    provider: str, server: ProviderServer, runtime: str = "{}", model: str = ""
) -> AgentExecutor:
    base = f"{server.url}/v1" if provider == "openai" else server.url
    text = (
        "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: wire}\n"
        f"spec: {{model: {{id: '{MODELS[provider]}', base_url: '{base}', {model}api_key: "
        "{from_env: DUMMY_KEY},"
        f" params: {{max_tokens: 100}}}}, tools: [add], runtime: {runtime}}}\n"
    )
    factory = AgentFactory()
    factory.register_tool("add", add)
    return factory.create_agent(parse_template(text))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-tests")


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: Any) -> str:
    return str(request.param)


NO_RETRY = "{retry: {attempts: 1}}"
FAST_RETRY = "{retry: {attempts: 3, initial_delay: 1ms}}"


async def test_an_answer_with_usage_and_cost(provider: str) -> None:
    async with serve(Answer(cached=5)) as server:
        result = await make(provider, server).execute("hi")
    assert result.output == "Hello from the wire."
    usage = result.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.estimated) == (
        21,
        7,
        5,
        False,
    )
    assert result.cost_usd is not None
    assert Decimal(0) < result.cost_usd < Decimal("0.001")


async def test_a_stream_with_a_tool_call_keeps_the_text_rule(provider: str) -> None:
    script = [
        Answer(text="Let me add.", tool=("add", {"a": 1, "b": 2})),
        Answer(text="It is three."),
    ]
    async with serve(*script) as server, make(provider, server).execute_stream("1+2") as stream:
        chunks = [c async for c in stream.chunks()]
    texts: dict[str, str] = {}
    for chunk in chunks:
        if isinstance(chunk, TextChunk):
            texts[chunk.message_id] = texts.get(chunk.message_id, "") + chunk.text
    result = stream.result
    assert texts == {m.id: str(m.text) for m in result.messages if m.type == "ai"}
    assert [(c.name, c.args) for c in chunks if isinstance(c, ToolCallChunk)] == [
        ("add", {"a": 1, "b": 2})
    ]
    assert result.messages[2].content == "3"
    assert result.usage.model_calls == 2
    assert (result.usage.input_tokens, result.usage.estimated) == (42, False)
    assert result.usage.output_tokens == 14
    assert server.requests[0]["stream"] is True


async def test_a_429_is_waited_out_as_told_and_every_attempt_is_seen(provider: str) -> None:
    async with serve(Answer(status=429, headers={"retry-after": "0.01"}), Answer()) as server:
        result = await make(provider, server, FAST_RETRY).execute("hi")
    assert result.output == "Hello from the wire."
    assert len(server.requests) == result.usage.model_calls == 2  # the SDK itself does not retry
    assert result.usage.total_tokens == 28
    async with serve(Answer(status=429, headers={"retry-after": "3"})) as server:
        with pytest.raises(ProviderError) as failed:
            await make(provider, server, NO_RETRY).execute("hi")
    assert (failed.value.status, failed.value.retry_after_s, failed.value.usage.total_tokens) == (
        429,
        3,
        0,
    )


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_500_is_tried_again_then_raised_with_its_status(
    provider: str, streaming: bool
) -> None:
    async with serve(Answer(status=500)) as server:
        agent = make(provider, server, FAST_RETRY)
        with pytest.raises(ProviderError) as failed:
            await run_call(agent, "hi", streaming=streaming)
    assert failed.value.status == 500
    assert len(server.requests) == 3
    assert failed.value.usage.total_tokens == 0
    assert "dummy-key" not in str(failed.value)


async def test_a_bad_request_is_not_tried_again(provider: str) -> None:
    async with serve(Answer(status=400)) as server:
        with pytest.raises(ProviderError) as failed:
            await make(provider, server, FAST_RETRY).execute("hi")
    assert (failed.value.status, len(server.requests)) == (400, 1)


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_stall_is_a_model_call_timeout(
    provider: str, streaming: bool, no_tasks_left: None
) -> None:
    async with serve(Answer(stall_s=30)) as server:
        agent = make(provider, server, "{timeout: {model_call: 300ms}, retry: {attempts: 1}}")
        with pytest.raises(CallTimeout) as failed:
            await run_call(agent, "hi", streaming=streaming)
    assert failed.value.scope == "model_call"
    assert failed.value.usage.estimated is True


async def test_a_cut_in_mid_stream_fails_is_estimated_and_not_tried_again(provider: str) -> None:
    async with serve(Answer(text="one two three four five six", cut_after=5)) as server:
        with pytest.raises(ProviderError) as failed:
            async with make(provider, server, FAST_RETRY).execute_stream("hi") as stream:
                _ = [t async for t in stream]
    assert len(server.requests) == 1
    assert failed.value.usage.estimated is True
    assert failed.value.usage.output_tokens >= 1


async def test_a_unary_call_whose_connection_is_cut_is_tried_again(provider: str) -> None:
    async with serve(Answer(cut_after=0), Answer()) as server:
        result = await make(provider, server, FAST_RETRY).execute("hi")
    assert result.output == "Hello from the wire."
    assert len(server.requests) == result.usage.model_calls == 2


async def test_invalid_json_is_a_typed_failure(provider: str) -> None:
    async with serve(Answer(body=b"<html>gateway</html>")) as server:
        with pytest.raises(AgentFailed) as failed:
            await make(provider, server, NO_RETRY).execute("hi")
    assert failed.value.__cause__ is not None
    assert failed.value.usage.model_calls == 1


async def test_leaving_a_stream_closes_the_providers_socket(
    provider: str, no_tasks_left: None
) -> None:
    async with serve(
        Answer(text="word " * 20_000)
    ) as server:  # 40 s of words: a slow machine does not read them all
        async with make(provider, server).execute_stream("hi") as stream:
            async for _ in stream:
                break
        for _ in range(500):
            if server.hung_up:
                break
            await asyncio.sleep(0.02)
        assert server.hung_up == 1, (server.requests, server.tasks)
    assert stream.context.usage.estimated is True
    assert stream.context.usage.cost_usd is not None


async def test_a_provider_that_sends_no_usage_is_estimated() -> None:
    async with (
        serve(Answer(usage=None)) as server,
        make("openai", server).execute_stream("hi") as stream,
    ):
        _ = [t async for t in stream]
    assert stream.result.usage.estimated is True
    assert stream.result.usage.output_tokens >= 4


async def test_the_same_over_the_runnable_face(provider: str) -> None:
    async with serve(Answer(status=500)) as server:
        with pytest.raises(Exception, match=r"told to fail|500") as failed:
            await make(provider, server, NO_RETRY).ainvoke({"messages": "hi"})
    assert type(failed.value).__module__.split(".")[0] in (
        "openai",
        "anthropic",
        "langchain_openai",
        "langchain_anthropic",
    )
    assert any("agent_runtime: run" in n for n in failed.value.__notes__)


async def test_calls_have_names_for_a_provider_that_honours_them(provider: str) -> None:
    """The same call made again has the same names; without the template's word nothing is sent."""
    script = [Answer(tool=("add", {"a": 1, "b": 2})), Answer(text="Three.")] * 4
    async with serve(*script) as server:
        agent = make(provider, server, NO_RETRY, "idempotency_header: Idempotency-Key, ")
        for key in ("batch:1", "batch:1", "batch:2", None):
            await agent.execute(AgentContext("1+2", idempotency_key=key))
        await make(provider, server, NO_RETRY).execute(
            AgentContext("1+2", idempotency_key="batch:1")
        )
    names = [head.get("idempotency-key") for head in server.heads]
    assert names[0] == names[2]
    assert (
        names[1] != names[3]
    )  # this provider gave its tool calls other ids: it is another request
    assert len({names[0], names[1], names[3], *names[4:6]}) == 5
    # Clients of some providers name their calls themselves; those names are not ours.
    assert not set(names[6:]) & set(names[:6])


async def test_a_streamed_call_has_its_name_too(provider: str) -> None:
    async with serve(Answer()) as server:
        agent = make(provider, server, NO_RETRY, "idempotency_header: Idempotency-Key, ")
        for _ in range(2):
            async with agent.execute_stream(AgentContext("hi", idempotency_key="k")) as stream:
                assert "".join([text async for text in stream]).strip() == "Hello from the wire."
    first, second = (head["idempotency-key"] for head in server.heads)
    assert first == second
