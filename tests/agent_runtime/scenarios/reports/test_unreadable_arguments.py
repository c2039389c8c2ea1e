"""Tool arguments that are no JSON: the model reads that the call did not run, and is asked
again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from tests.support.providers import openai_stream, provider, template

from agent_runtime import AgentFactory, AgentResult, LimitExceeded
from agent_runtime.run.unreadable_arguments import MAX_ARGUMENT_CHARACTERS, UNREADABLE_KEY

BAD = ['{"text": "x', "no json", '{"text": ' + "9" * 5000 + "}"]


def answer_of(request: dict[str, Any], arguments: list[str]) -> Any:
    """Answer with tool calls, and with text when their results came.

    Whole or streamed, as it is asked for.
    """
    results = [each for each in request["messages"] if each["role"] == "tool"]
    calls = [
        {
            "index": n,
            "id": f"call_{n}",
            "type": "function",
            "function": {"name": "echo", "arguments": text},
        }
        for n, text in enumerate(arguments)
    ]
    first, last, _ = openai_stream("gpt-5-mini", None, "")
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    if request.get("stream"):
        delta = (
            {"content": "fine"}
            if results
            else {"role": "assistant", "content": "", "tool_calls": calls}
        )
        end = {"index": 0, "delta": {}, "finish_reason": "stop" if results else "tool_calls"}
        body = [{**first, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
        return [*body, {**last, "choices": [end], "usage": usage}]
    message: dict[str, Any] = {"role": "assistant", "content": "fine" if results else ""}
    if not results:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": "stop" if results else "tool_calls"}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini"}
    return {**head, "choices": [choice], "usage": usage}


def echo(text: str) -> str:
    """Say it again."""
    return f"echo {text}"


async def run(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], *, streamed: bool, **runtime: Any
) -> tuple[AgentResult, list[dict[str, Any]]]:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")
    async with (
        provider(lambda request, path: answer_of(request, arguments)) as (url, requests),
        AgentFactory() as made,
    ):
        made.register_tool("echo", echo)
        model = {
            "id": "openai:gpt-5-mini",
            "base_url": url + "/v1",
            "api_key": {"from_env": "DUMMY_KEY"},
        }
        agent = made.create_agent(template(model=model, tools=["echo"], runtime=runtime))
        if not streamed:
            return await agent.execute("hi"), requests
        async with agent.execute_stream("hi") as stream:
            _ = [piece async for piece in stream]
        return stream.result, requests


def tools_in(messages: list[BaseMessage]) -> list[BaseMessage]:
    return [each for each in messages if each.type == "tool"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("text", BAD, ids=["cut", "words", "long number"])
async def test_the_model_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, text: str, streamed: bool
) -> None:
    result, requests = await run(monkeypatch, [text], streamed=streamed)
    assert result.output == "fine"
    (told,) = tools_in(result.messages)
    assert (told.status, told.tool_call_id) == ("error", "call_0")  # type: ignore[attr-defined]
    (call,) = requests[1]["messages"][-2]["tool_calls"]
    assert (call["id"], json.loads(call["function"]["arguments"])) == (
        "call_0",
        {UNREADABLE_KEY: text[:MAX_ARGUMENT_CHARACTERS]},
    )
    assert result.usage.tool_calls == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_readable_calls_beside_it_run(
    monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    result, requests = await run(
        monkeypatch, ['{"text": "a"}', "no json", '{"text": "b"}'], streamed=streamed
    )
    answers = {each.tool_call_id: str(each.content) for each in tools_in(result.messages)}  # type: ignore[attr-defined]
    assert (answers["call_0"], answers["call_2"]) == ("echo a", "echo b")
    assert answers["call_1"].startswith("not run")
    assert result.usage.tool_calls == 2
    assert not [
        each for each in result.messages if isinstance(each, AIMessage) and each.invalid_tool_calls
    ]
    assert {each["role"] for each in requests[1]["messages"][-3:]} == {"tool"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_id_that_is_used_again_is_another_call(
    monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    """Some servers name the first call of each answer alike."""
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")

    def answer(request: dict[str, Any], path: str) -> Any:
        results = [each for each in request["messages"] if each["role"] == "tool"]
        if len(results) == 1:  # the second try is right, under the same id
            return answer_of({**request, "messages": []}, ['{"text": "a"}'])
        return answer_of(request, ['{"text": "a'])

    async with provider(answer) as (url, _), AgentFactory() as made:
        made.register_tool("echo", echo)
        model = {
            "id": "openai:gpt-5-mini",
            "base_url": url + "/v1",
            "api_key": {"from_env": "DUMMY_KEY"},
        }
        agent = made.create_agent(template(model=model, tools=["echo"]))
        if streamed:
            async with agent.execute_stream("hi") as stream:
                _ = [piece async for piece in stream]
            result = stream.result
        else:
            result = await agent.execute("hi")
    assert [str(each.content) for each in tools_in(result.messages)][1:] == ["echo a"]
    assert result.output == "fine"


async def test_too_many_of_them_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitExceeded, match="1025 in one answer"):
        await run(monkeypatch, ["no json"] * 1025, streamed=False)
