"""The real chat model class of every provider package on recorded answers.

Counts, costs, attempts and limits.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from tests.support import provider_answers as answers
from tests.support.calls import run_call
from tests.support.providers import openai_answer, openai_stream, provider, template

from agent_runtime import AgentFactory, Budget, MemoryLedger
from agent_runtime.budgets.prices import PriceTable
from agent_runtime.errors import ConfigurationError, ProviderError
from agent_runtime.providers import http_transport
from agent_runtime.providers.errors import causes

pytestmark = pytest.mark.integration

KEY = "dummy-key-for-cases"


@dataclass(frozen=True)
class Case:
    """A usage object as a provider sent it, and what one call with it is worth.

    `counts` are input, output, cache reads, cache writes and reasoning tokens; `rates` is the sum
    in micro-USD.
    """

    model: str
    whole: Callable[[], Any]
    stream: Callable[[], Any]
    counts: tuple[int, int, int, int, int]
    micro_usd: str | None
    path: str = ""
    address: str = "base_url"
    """The template's `base_url`, or the environment variable that the provider's package reads
    instead."""
    needs_key: bool = True
    params: dict[str, Any] = field(default_factory=dict)
    stream_type: str = ""
    retry_after_s: float | None = 7
    kind: str = "exact"

    def served(
        self, *, streamed: bool
    ) -> AbstractAsyncContextManager[tuple[str, list[dict[str, Any]]]]:
        """Serve the case's answer on loopback."""
        headers = {"content-type": self.stream_type} if streamed and self.stream_type else None
        return provider(lambda request, path: (self.stream if streamed else self.whole)(), headers)


def answer_with(answer: Any, request: dict[str, Any], path: str) -> Any:
    return answer


OPENAI = {
    "prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 256, "audio_tokens": 0, "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}  # fmt: skip
RESPONSES = {
    "input_tokens": 2006, "input_tokens_details": {"cached_tokens": 1920}, "output_tokens": 300,
    "output_tokens_details": {"reasoning_tokens": 256}, "total_tokens": 2306,
}  # fmt: skip
ANTHROPIC = {
    "input_tokens": 12, "cache_creation_input_tokens": 1500, "cache_read_input_tokens": 800,
    "output_tokens": 250,
    "cache_creation": {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 1000},
    "service_tier": "standard", "inference_geo": "not_available",
}  # fmt: skip
GOOGLE = {
    "promptTokenCount": 1500, "candidatesTokenCount": 120, "thoughtsTokenCount": 400,
    "totalTokenCount": 2020,
    "cachedContentTokenCount": 1024, "promptTokensDetails": [{"modality": "TEXT",
    "tokenCount": 1500}],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 1024}],
}  # fmt: skip
BEDROCK = {
    "inputTokens": 40, "outputTokens": 200, "totalTokens": 3240,
    "cacheReadInputTokens": 2000, "cacheWriteInputTokens": 1000,
}  # fmt: skip
MISTRAL = {"prompt_tokens": 1000, "total_tokens": 1200, "completion_tokens": 200}
DEEPSEEK = {
    "prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 640},
    "completion_tokens_details": {"reasoning_tokens": 300},
    "prompt_cache_hit_tokens": 640, "prompt_cache_miss_tokens": 360,
}  # fmt: skip
PERPLEXITY = {
    "prompt_tokens": 14, "completion_tokens": 486, "total_tokens": 500,
    "search_context_size": "low",
    "cost": {"input_tokens_cost": 0.00001, "output_tokens_cost": 0.00049, "request_cost": 0.005,
    "total_cost": 0.0055},
}  # fmt: skip
GROQ = {
    "queue_time": 0.05, "prompt_tokens": 4000, "prompt_time": 0.1, "completion_tokens": 300,
    "completion_time": 0.4,
    "total_tokens": 4300, "total_time": 0.5, "prompt_tokens_details": {"cached_tokens": 2048},
    "completion_tokens_details": {"reasoning_tokens": 100},
}  # fmt: skip
OPENROUTER = {
    "prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306, "cost": 0.00066950,
    "is_byok": False,
    "prompt_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 0, "audio_tokens": 0,
    "video_tokens": 0},
    "cost_details": {"upstream_inference_cost": None},
    "completion_tokens_details": {"reasoning_tokens": 256, "image_tokens": 0},
}  # fmt: skip
VLLM = {
    "prompt_tokens": 900,
    "total_tokens": 1000,
    "completion_tokens": 100,
    "prompt_tokens_details": None,
}
OLLAMA = {
    "total_duration": 9, "load_duration": 1, "prompt_eval_count": 26, "prompt_eval_duration": 3,
    "eval_count": 298,
    "eval_duration": 5,
}  # fmt: skip

CASES = {
    # 86 x 0.25 + 1,920 x 0.025 + 300 x 2
    "openai chat": Case(
        "openai:gpt-5-mini",
        lambda: openai_answer("gpt-5-mini-2025-08-07", OPENAI, service_tier="default"),
        lambda: openai_stream("gpt-5-mini-2025-08-07", OPENAI, service_tier="default"),
        (2006, 300, 1920, 0, 256), "669.5", path="/v1",
    ),
    "openai responses": Case(
        "openai:gpt-5-mini",
        lambda: answers.responses_answer("gpt-5-mini-2025-08-07", RESPONSES,
        service_tier="default"),
        lambda: answers.responses_stream("gpt-5-mini-2025-08-07", RESPONSES,
        service_tier="default"),
        (2006, 300, 1920, 0, 256), "669.5", path="/v1", params={"use_responses_api": True},
        stream_type="text/event-stream",
    ),
    # 12 x 1 + 500 x 1.25 + 1,000 x 2 + 800 x 0.1 + 250 x 5
    "anthropic": Case(
        "anthropic:claude-haiku-4-5",
        lambda: answers.anthropic_answer("claude-haiku-4-5-20251001", ANTHROPIC),
        lambda: answers.anthropic_stream("claude-haiku-4-5-20251001", ANTHROPIC),
        (2312, 250, 800, 1500, 0), "3967",
    ),
    # 476 x 0.3 + 1,024 x 0.03 + 520 x 2.5
    "google": Case(
        "google_genai:gemini-2.5-flash",
        lambda: answers.google_answer("gemini-2.5-flash", GOOGLE),
        lambda: answers.google_stream("gemini-2.5-flash", GOOGLE),
        (1500, 520, 1024, 0, 400), "1473.52", stream_type="text/event-stream",
    ),
    # 40 x 1.1 + 2,000 x 0.11 + 1,000 x 1.375 + 200 x 5.5: a model of a region
    "bedrock": Case(
        "bedrock_converse:us.anthropic.claude-haiku-4-5-20251001-v1:0",
        lambda: answers.bedrock_answer(BEDROCK),
        lambda: answers.bedrock_stream(BEDROCK),
        (3040, 200, 2000, 1000, 0), "2739", address="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        needs_key=False,
        stream_type="application/vnd.amazon.eventstream",
    ),
    # 1,000 x 2 + 200 x 6
    "mistral": Case(
        "mistralai:mistral-large-latest",
        lambda: openai_answer("mistral-large-latest", MISTRAL),
        lambda: answers.stream_with_usage_at_the_end("mistral-large-latest", usage=MISTRAL),
        (1000, 200, 0, 0, 0), "3200", path="/v1",
    ),
    # 360 x 0.27 + 640 x 0.07 + 500 x 1.1
    "deepseek": Case(
        "deepseek:deepseek-chat",
        lambda: openai_answer("deepseek-chat", DEEPSEEK),
        lambda: openai_stream("deepseek-chat", DEEPSEEK),
        (1000, 500, 640, 0, 300), "692",
    ),
    # 14 x 1 + 486 x 1, and 12 for a thousand requests: the table has the dearest search
    "perplexity": Case(
        "perplexity:sonar",
        lambda: openai_answer("sonar", PERPLEXITY),
        lambda: openai_stream("sonar", PERPLEXITY),
        (14, 486, 0, 0, 0), "12500", address="PERPLEXITY_BASE_URL",
    ),
    # 1,952 x 0.15 + 2,048 x 0.075 + 300 x 0.6
    "groq": Case(
        "groq:openai/gpt-oss-120b",
        lambda: openai_answer("openai/gpt-oss-120b", GROQ, service_tier="on_demand",
        x_groq={"id": "req_1"}),
        lambda: answers.stream_with_usage_at_the_end("openai/gpt-oss-120b", x_groq={"id": "req_1",
        "usage": GROQ}),
        (4000, 300, 2048, 0, 100), "626.4", address="GROQ_BASE_URL",
    ),
    "openrouter": Case(
        "openrouter:openai/gpt-5-mini",
        lambda: openai_answer("openai/gpt-5-mini", OPENROUTER, provider="OpenAI",
        system_fingerprint=None),
        lambda: openai_stream("openai/gpt-5-mini", OPENROUTER, provider="OpenAI",
        system_fingerprint=None),
        (2006, 300, 1920, 0, 256), "669.5",
    ),
    # a server of one's own: counted, and without a price
    "vllm": Case(
        "openai:meta-llama/Llama-3.1-8B-Instruct",
        lambda: openai_answer("meta-llama/Llama-3.1-8B-Instruct", VLLM),
        lambda: openai_stream("meta-llama/Llama-3.1-8B-Instruct", VLLM),
        (900, 100, 0, 0, 0), None, path="/v1", kind="unknown",
    ),
    "ollama": Case(
        "ollama:llama3.2",
        lambda: answers.ollama_answer("llama3.2", OLLAMA),
        lambda: answers.ollama_answer("llama3.2", OLLAMA),
        # its client drops the headers
        (26, 298, 0, 0, 0), None, needs_key=False, kind="unknown", retry_after_s=None,
    ),
}  # fmt: skip


NOON_S = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
"""DeepSeek asks for half of its price from 16:30 to 0:30 UTC."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {
        "DUMMY_KEY": KEY,
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy-secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def spec_of(case: Case, url: str, environment: pytest.MonkeyPatch) -> Any:
    model: dict[str, Any] = {"id": case.model}
    if case.address == "base_url":
        model["base_url"] = url + case.path
    else:
        environment.setenv(case.address, url + case.path)
    if case.needs_key:
        model["api_key"] = {"from_env": "DUMMY_KEY"}
    if case.params:
        model["params"] = {"extra": case.params}
    return template(model=model, runtime={"retry": {"attempts": 1}})


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CASES)
async def test_usage_and_cost_are_those_of_the_answer(
    name: str, streamed: bool, environment: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    ledger = MemoryLedger()
    prices = PriceTable(clock=lambda: NOON_S)
    async with (
        case.served(streamed=streamed) as (url, requests),
        AgentFactory(ledger=ledger, prices=prices) as factory,
    ):
        agent = factory.create_agent(spec_of(case, url, environment))
        result = await run_call(agent, "hello", streaming=streamed)
    assert result.output in ("Hello.", answers.TEXT)
    usage = result.usage
    counted = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    assert counted == case.counts
    assert not usage.estimated
    expected = None if case.micro_usd is None else Decimal(case.micro_usd) / 10**6
    assert (result.cost_usd, usage.cost_kind) == (expected, case.kind)
    assert len(requests) == 1
    [(_, spend)] = ledger.report(0, 1e12).run()
    assert (spend.input_tokens, spend.output_tokens) == case.counts[:2]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CASES)
async def test_an_attempt_is_one_request(
    name: str, streamed: bool, environment: pytest.MonkeyPatch
) -> None:
    """The clients of most providers try again by themselves unless they are stopped.

    Unseen by budgets and limits.
    """
    case = CASES[name]
    for status in (429, 503):
        refusal = (status, {"error": {"message": "not now", "code": status}})
        served = provider(partial(answer_with, refusal), {"retry-after": "7"})
        async with served as (url, requests), AgentFactory() as factory:
            agent = factory.create_agent(spec_of(case, url, environment))
            with pytest.raises(ProviderError) as caught:
                await run_call(agent, "hello", streaming=streamed)
        assert len(requests) == 1
        assert caught.value.status == status
        assert caught.value.retry_after_s == case.retry_after_s


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CASES)
async def test_an_answer_that_cannot_be_read_is_the_provider_s_error(
    name: str, streamed: bool, environment: pytest.MonkeyPatch
) -> None:
    ledger = MemoryLedger()
    served = provider(partial(answer_with, "<html><body>the gateway's page</body></html>"))
    budgets = [Budget("global", tokens=1_000_000)]
    async with served as (url, _), AgentFactory(ledger=ledger, budgets=budgets) as factory:
        agent = factory.create_agent(spec_of(CASES[name], url, environment))
        with pytest.raises(ProviderError):
            await run_call(agent, "hello", streaming=streamed)
    [balance] = ledger.balances().run().values()
    assert balance.spent_tokens > 0


def outputs_allowed(request: dict[str, Any]) -> int | None:
    """Return the limit of the output in a request, wherever its provider has it."""
    places = [
        request,
        *(request.get(name) or {} for name in ("generationConfig", "inferenceConfig", "options")),
    ]
    names = (
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "maxOutputTokens",
        "maxTokens",
        "num_predict",
    )
    return next(
        (place[name] for place in places for name in names if place.get(name) is not None), None
    )


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CASES)
async def test_a_budget_limits_the_output_in_the_request(
    name: str, streamed: bool, environment: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    factory = AgentFactory(ledger=MemoryLedger(), budgets=[Budget("global", tokens=20_000)])
    async with case.served(streamed=streamed) as (url, requests), factory:
        agent = factory.create_agent(spec_of(case, url, environment))
        await run_call(agent, "hello", streaming=streamed)
    [request] = requests
    assert 0 < (outputs_allowed(request) or 0) < 20_000


@pytest.mark.parametrize(
    "name", [name for name in CASES if name != "bedrock"]
)  # its client does not unpack answers
async def test_a_packed_answer_is_bounded(name: str, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(http_transport, "MAX_ANSWER_BYTES", 2**20)
    packed = gzip.compress(b'{"a": "' + b" " * 2**21 + b'"}')
    served = provider(partial(answer_with, packed), {"content-encoding": "gzip"})
    async with served as (url, _), AgentFactory() as factory:
        agent = factory.create_agent(spec_of(CASES[name], url, environment))
        with pytest.raises(ProviderError) as caught:
            await agent.execute("hello")
    assert any(type(each).__name__ == "AnswerTooLarge" for each in causes(caught.value))


@pytest.mark.parametrize("name", CASES)
async def test_a_server_that_is_not_there_is_the_provider_s_error(
    name: str, environment: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    async with provider(lambda request, path: {}) as (url, _):
        pass
    async with AgentFactory() as factory:
        agent = factory.create_agent(spec_of(case, url, environment))
        with pytest.raises(ProviderError):
            await agent.execute("hello")


@pytest.mark.parametrize(
    ("code", "status"), [("throttlingException", 429), ("internalServerException", 500)]
)
async def test_an_error_inside_amazon_s_stream_has_its_status(
    code: str, status: int, environment: pytest.MonkeyPatch
) -> None:
    body = answers.amazon_event("messageStart", {"role": "assistant"})
    body += answers.amazon_event(code, {"message": "not now"}, "exception")
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    async with provider(lambda request, path: body, headers) as (url, _), AgentFactory() as factory:
        agent = factory.create_agent(spec_of(CASES["bedrock"], url, environment))
        with pytest.raises(ProviderError) as caught:
            await run_call(agent, "hello", streaming=True)
    assert caught.value.status == status


async def test_an_address_that_a_package_does_not_take_is_refused() -> None:
    model = {
        "id": "perplexity:sonar",
        "base_url": "http://127.0.0.1:9",
        "api_key": {"from_env": "DUMMY_KEY"},
    }
    async with AgentFactory() as factory:
        with pytest.raises(ConfigurationError, match="base_url"):
            factory.create_agent(template(model=model))
