"""litellm #29808, mastra #9306, pydantic-ai #4953.

A model breaks off in its stream, and a fallback is named.
"""

from __future__ import annotations

import pytest
from tests.support.providers import template

from agent_runtime import AgentFactory, TextChunk
from agent_runtime.testing import ScriptedChatModel, say

ANSWER = "eins zwei drei"


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("words_before", [0, 2])
async def test_the_answer_is_the_fallback_s(attempts: int, words_before: int) -> None:
    async with AgentFactory() as factory:
        broken = say("one two three four", fail=ConnectionError("cut"), fail_after=words_before)
        factory.register_model("first", ScriptedChatModel(script=[broken]))
        factory.register_model("second", ScriptedChatModel(script=[say(ANSWER)]))
        runtime = {"retry": {"attempts": attempts, "initial_delay": "1ms"}}
        agent = factory.create_agent(
            template(model={"id": "first", "fallbacks": ["second"]}, runtime=runtime)
        )
        async with agent.execute_stream("go") as stream:
            chunks = [chunk async for chunk in stream.chunks()]
    result = stream.result
    assert (result.output, stream.text) == (ANSWER, ANSWER)
    assert result.usage.model_calls == 2
    texts: dict[str, str] = {}
    for chunk in chunks:
        if isinstance(chunk, TextChunk):
            texts[chunk.message_id] = texts.get(chunk.message_id, "") + chunk.text
    assert texts.pop(str(result.messages[-1].id)) == ANSWER
    # What the first model had said bears another message's id, by which a reader tells the two
    # apart.
    assert len(texts) == (1 if words_before else 0)
