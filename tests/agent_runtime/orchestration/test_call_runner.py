"""The edge of the layers: the caller of a call, and what is shown of it."""

from __future__ import annotations

import pytest

from agent_runtime import AgentContext, AgentExecutor, InputInvalid, Principal, gated
from agent_runtime.testing import ScriptedChatModel, say


def executor() -> AgentExecutor:
    return AgentExecutor(gated(ScriptedChatModel(script=lambda _: say("hi"))))


def test_credentials_are_not_part_of_any_text() -> None:
    agent = executor().with_caller(credentials="dummy-credentials")
    assert "dummy-credentials" not in repr(agent._runner)
    assert "dummy-credentials" not in repr(agent)


def test_a_call_gets_the_caller_of_its_executor_and_stays_the_application_s_own() -> None:
    ada = Principal("ada", "acme")
    call = AgentContext("hello")
    context = executor().with_caller(principal=ada)._runner.build_context(call)
    assert context.principal == ada
    assert call.principal is None
    assert executor()._runner.build_context("hello").principal is None


async def test_a_context_is_one_call() -> None:
    call = AgentContext("hello")
    agent = executor()
    runner = agent._runner
    context = runner.build_context(call)
    assert (await runner.run(context)).output == "hi"
    with pytest.raises(InputInvalid, match="has been used"):
        await runner.run(context)
