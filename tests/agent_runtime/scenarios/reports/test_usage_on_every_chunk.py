"""langchain #30429.

Servers with continuous usage send running totals on each chunk, which must not add up.
"""

from __future__ import annotations

import pytest
from tests.support.providers import openai_stream, provider, template

from agent_runtime import AgentFactory


def usage(output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": 700,
        "completion_tokens": output_tokens,
        "total_tokens": 700 + output_tokens,
    }


async def test_the_last_total_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")
    first, last, _ = openai_stream("gpt-5-mini", None, "")
    words = ["a ", "b ", "c ", "d "]
    deltas = [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in words]
    body = [
        {**first, "choices": [delta], "usage": usage(count)}
        for count, delta in enumerate(deltas, 1)
    ]
    answer = [*body, {**last, "usage": usage(5)}]
    async with provider(lambda request, path: answer) as (url, _), AgentFactory() as factory:
        model = {
            "id": "openai:gpt-5-mini",
            "base_url": url + "/v1",
            "api_key": {"from_env": "DUMMY_KEY"},
        }
        async with factory.create_agent(template(model=model)).execute_stream("hi") as stream:
            text = "".join([piece async for piece in stream])
    assert text == "a b c d "
    counted = stream.result.usage
    assert (counted.input_tokens, counted.output_tokens) == (700, 5)
