"""Answers that came and cannot be read.

A provider's error, settled at its estimate, and bounded in what they take.
"""

from __future__ import annotations

import gzip
import json
import resource
import zlib
from functools import lru_cache
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr
from tests.support.calls import run_call
from tests.support.providers import openai_answer, openai_stream, provider, template

from agent_runtime import AgentExecutor, AgentFactory, Budget, MemoryLedger, gated
from agent_runtime.errors import CallError, ProviderError
from agent_runtime.orchestration.failures import failure_class
from agent_runtime.providers import http_transport
from agent_runtime.providers.errors import is_overloaded

USAGE = {"prompt_tokens": 120_000, "completion_tokens": 500, "total_tokens": 120_500}
EMPTY = {**openai_answer("gpt-5-mini", USAGE), "choices": []}
VENDOR_ERROR = {"error": {"code": "1302", "message": "too many requests"}}
UNARY: dict[str, Any] = {
    "no choices": EMPTY,
    "html": "<html><body>the gateway's page</body></html>",
    "null": b"null",
    "no json": b"{",
    "a list": b"[]",
    "an error in a 200": VENDOR_ERROR,
    "choices of another shape": {**EMPTY, "choices": [{"index": 0}]},
    "a message that is text": {**EMPTY, "choices": [{"index": 0, "message": "hi"}]},
}
STREAMS: dict[str, Any] = {
    "html": "<html></html>",
    "nothing": [],
    "an error event": [VENDOR_ERROR],
    "a line that is no json": ["data: {\n\n"],
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")


def agent_of(factory: AgentFactory, url: str) -> AgentExecutor:
    model = {
        "id": "openai:gpt-5-mini",
        "base_url": url + "/v1",
        "api_key": {"from_env": "DUMMY_KEY"},
    }
    return factory.create_agent(template(model=model, runtime={"retry": {"attempts": 1}}))


@pytest.mark.parametrize(
    ("body", "streamed"),
    [pytest.param(body, False, id=name) for name, body in UNARY.items()]
    + [pytest.param(body, True, id=f"stream: {name}") for name, body in STREAMS.items()],
)
async def test_it_is_a_provider_s_error_and_is_charged_at_its_estimate(
    body: Any, streamed: bool
) -> None:
    ledger = MemoryLedger()
    factory = AgentFactory(ledger=ledger, budgets=[Budget("global", usd=10)])
    async with provider(lambda r, p: body) as (url, requests), factory:
        with pytest.raises(ProviderError) as failed:
            await run_call(agent_of(factory, url), "hello there", streaming=streamed)
    error = failed.value
    assert (error.code, error.status, failure_class(error)) == (
        "provider_error",
        200,
        "server_error",
    )
    assert error.usage.cost_kind == "estimated"
    assert error.cost_usd is not None
    assert error.cost_usd > 0
    [balance] = ledger.balances().run().values()
    assert (balance.spent_micro_usd > 0, balance.held_micro_usd) == (True, 0)
    assert len(requests) == 1


async def test_what_an_empty_answer_says_was_used_is_not_forgotten() -> None:
    async with provider(lambda r, p: EMPTY) as (url, _), AgentFactory() as factory:
        with pytest.raises(ProviderError) as failed:
            await run_call(agent_of(factory, url), "hello there", streaming=False)
    assert failed.value.usage.input_tokens == 120_000
    assert failed.value.usage.estimated


async def test_a_model_that_the_factory_did_not_build_is_treated_alike() -> None:
    from langchain.agents import create_agent

    async with provider(lambda r, p: EMPTY) as (url, _):
        key: Any = "dummy-key-for-cases"
        model = ChatOpenAI(model="gpt-5-mini", base_url=url + "/v1", api_key=key)
        agent = AgentExecutor(create_agent(model, []), pipeline=[])
        with pytest.raises(ProviderError) as failed:
            await agent.execute("hi")
    assert (failed.value.usage.input_tokens, failed.value.usage.estimated) == (120_000, True)


async def test_the_retry_layer_tries_it_again() -> None:
    answers: list[Any] = ["<html></html>", openai_answer("gpt-5-mini", USAGE)]
    async with provider(lambda r, p: answers.pop(0)) as (url, requests), AgentFactory() as factory:
        model = {
            "id": "openai:gpt-5-mini",
            "base_url": url + "/v1",
            "api_key": {"from_env": "DUMMY_KEY"},
        }
        retry = {"retry": {"attempts": 2, "initial_delay": "1ms"}}
        result = await factory.create_agent(template(model=model, runtime=retry)).execute("hi")
    assert (result.output, len(requests), result.usage.cost_kind) == ("Hello.", 2, "estimated")


def test_a_vendor_s_code_in_a_good_answer_is_an_overload() -> None:
    assert is_overloaded(ValueError(VENDOR_ERROR["error"]), ["1302"])
    assert is_overloaded(ValueError({"error": {"code": 1302}}), ["1302"])
    assert not is_overloaded(ValueError("1302 things went wrong"), ["1302"])


async def test_a_mistake_before_the_request_is_no_answer_and_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no such message type")

    async with provider(lambda r, p: EMPTY) as (url, requests), AgentFactory() as factory:
        agent = agent_of(factory, url)
        monkeypatch.setattr(ChatOpenAI, "_get_request_payload", broken)
        with pytest.raises(Exception, match="no such message type") as failed:
            await agent.execute("hi")
    assert getattr(failed.value, "code", "") == "agent_failed"
    assert getattr(failed.value, "cost_usd", None) == 0
    assert requests == []


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("streamed", [False, True])
async def test_figures_in_text_are_estimated(streamed: bool) -> None:
    text = {name: str(count) for name, count in USAGE.items() if name != "total_tokens"}
    make = openai_stream if streamed else openai_answer
    async with (
        provider(lambda r, p: make("gpt-5-mini", text)) as (url, _),
        AgentFactory() as factory,
    ):
        result = await run_call(agent_of(factory, url), "hello there", streaming=streamed)
    assert (result.usage.input_tokens, result.usage.cost_kind) == (120_000, "estimated")


@pytest.mark.parametrize("bad", [-1, 10**9, None])
async def test_figures_that_are_none_are_estimated(bad: Any) -> None:
    usage = {"prompt_tokens": bad, "completion_tokens": bad, "total_tokens": 5}
    async with (
        provider(lambda r, p: openai_answer("gpt-5-mini", usage)) as (url, _),
        AgentFactory() as factory,
    ):
        result = await run_call(agent_of(factory, url), "hello there", streaming=False)
    assert result.usage.cost_kind == "estimated"
    assert 0 < result.usage.input_tokens < 1000


# -- what an answer may take


class City(BaseModel):
    name: str


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_structured_answer_that_was_cut_is_billed_and_not_asked_for_again(
    reason: str,
) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 5000, "total_tokens": 6000}
    answer = openai_answer("gpt-5-mini", usage, '{"na')
    answer["choices"][0]["finish_reason"] = reason
    async with provider(lambda request, path: answer) as (url, requests):
        model = gated(
            ChatOpenAI(
                model="gpt-5-mini", base_url=url + "/v1", api_key=SecretStr("dummy"), max_retries=0
            )
        )
        graph = create_agent(model, response_format=ProviderStrategy(City))
        with pytest.raises(CallError) as failed:
            await AgentExecutor(graph, gated=True).execute("hello")
    assert len(requests) == 1
    assert failure_class(failed.value) is None
    assert (failed.value.usage.input_tokens, failed.value.usage.output_tokens) == (1000, 5000)


async def test_a_deflated_answer_without_the_head_of_zlib_is_read() -> None:
    pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = pack.compress(json.dumps(openai_answer("gpt-5-mini", USAGE)).encode()) + pack.flush()
    async with (
        provider(lambda r, p: body, {"content-encoding": "deflate"}) as (url, _),
        AgentFactory() as factory,
    ):
        assert (await agent_of(factory, url).execute("hello there")).output == "Hello."


@lru_cache(maxsize=4)
def packed(body: bytes, encoding: str) -> bytes:
    for name in encoding.split(","):
        body = gzip.compress(body) if name.strip() == "gzip" else zlib.compress(body)
    return body


BOMB = b" " * 100_000_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_small_answer_that_unpacks_to_a_flood_is_stopped(
    encoding: str, streamed: bool
) -> None:
    body = packed(BOMB, encoding)
    headers = {"content-encoding": encoding}
    if streamed:
        headers["content-type"] = "text/event-stream"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with provider(lambda r, p: body, headers) as (url, _), AgentFactory() as factory:
        with pytest.raises(ProviderError, match="cannot be read") as failed:
            await run_call(agent_of(factory, url), "hello there", streaming=streamed)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert failed.value.usage.estimated
    assert failure_class(failed.value) is None  # it would come again
    assert grown_mib < 400  # the bound of 64 MiB, gathered and joined by the client


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip", "identity"])
async def test_an_honest_packed_answer_is_read(encoding: str) -> None:
    body = json.dumps(openai_answer("gpt-5-mini", USAGE, "Hello. " * 10_000)).encode()
    body = body if encoding == "identity" else packed(body, encoding)
    async with (
        provider(lambda r, p: body, {"content-encoding": encoding}) as (url, _),
        AgentFactory() as factory,
    ):
        result = await run_call(agent_of(factory, url), "hello there", streaming=False)
    assert result.output == "Hello. " * 10_000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("br", b"{}"), ("zstd", b"{}"), ("gzip", b"no gzip"), ("gzip, " * 5, b"")],
)
async def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str, body: bytes) -> None:
    async with (
        provider(lambda r, p: body, {"content-encoding": encoding}) as (url, _),
        AgentFactory() as factory,
    ):
        with pytest.raises(ProviderError):
            await run_call(agent_of(factory, url), "hello there", streaming=False)


async def test_a_line_of_a_stream_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_transport, "MAX_EVENT_BYTES", 1000)
    stream = openai_stream("gpt-5-mini", USAGE, "x" * 5000)
    async with provider(lambda r, p: stream) as (url, _), AgentFactory() as factory:
        with pytest.raises(ProviderError):
            await run_call(agent_of(factory, url), "hello there", streaming=True)
    short = openai_stream("gpt-5-mini", USAGE, "x" * 500)
    async with provider(lambda r, p: short) as (url, _), AgentFactory() as factory:
        assert (
            await run_call(agent_of(factory, url), "hello there", streaming=True)
        ).output == "x" * 500
