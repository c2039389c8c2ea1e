"""langgraph #6626, #6533.

Two tools of one answer each ask a person, and each answer reaches its own question.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langgraph.types import Command, interrupt

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentResult,
    InputInvalid,
    Resume,
    SessionManager,
    SessionMiddleware,
    gated,
)
from agent_runtime.testing import ScriptedChatModel, say


def ask_account() -> str:
    """Ask which account."""
    return "account=" + str(interrupt("which account?"))


def ask_amount() -> str:
    """Ask how much."""
    return "amount=" + str(interrupt("how much?"))


async def asked() -> tuple[AgentExecutor, dict[str, str]]:
    """Start a session that stops with two questions; return the ids of both by their texts."""
    manager = SessionManager()
    model = ScriptedChatModel(
        script=[say("", ("ask_account", {}), ("ask_amount", {})), say("done")]
    )
    graph = create_agent(gated(model), [ask_account, ask_amount], checkpointer=manager.checkpointer)
    agent = AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])
    first = await agent.execute(AgentContext("pay", session_id="s"))
    return agent, {question.value: question.id for question in first.interrupts}


def answers(result: AgentResult) -> list[Any]:
    return sorted(str(message.content) for message in result.messages if message.type == "tool")


@pytest.mark.parametrize("form", [Command, Resume])
async def test_answers_by_the_ids_of_the_questions(form: Any) -> None:
    agent, ids = await asked()
    assert len(set(ids.values())) == 2
    decisions = {ids["which account?"]: "A-1", ids["how much?"]: 5}
    call: Any = Command(resume=decisions) if form is Command else Resume(decisions)
    result = await agent.execute(AgentContext(call, session_id="s"))
    assert answers(result) == ["account=A-1", "amount=5"]


async def test_one_question_is_answered_now_and_the_other_later() -> None:
    agent, ids = await asked()
    first = await agent.execute(AgentContext(Resume({ids["how much?"]: 5}), session_id="s"))
    assert [question.id for question in first.interrupts] == [ids["which account?"]]
    result = await agent.execute(AgentContext(Resume("A-1"), session_id="s"))
    assert answers(result) == ["account=A-1", "amount=5"]


@pytest.mark.parametrize("unknown", ["0" * 32, "id"])
async def test_an_id_that_is_not_pending_is_refused(unknown: str) -> None:
    agent, ids = await asked()
    with pytest.raises(InputInvalid, match="no pending question has the id"):
        await agent.execute(
            AgentContext(Resume({ids["how much?"]: 5, unknown: "A-1"}), session_id="s")
        )
    with pytest.raises(InputInvalid, match=ids["how much?"]):  # it names the ids to answer by
        await agent.execute(AgentContext(Resume({"account": "A-1"}), session_id="s"))


async def test_an_answer_to_a_question_that_is_over_is_no_value_of_the_next_one() -> None:
    agent, ids = await asked()
    await agent.execute(AgentContext(Resume({ids["how much?"]: 5}), session_id="s"))
    with pytest.raises(InputInvalid, match="no pending question has the id"):
        await agent.execute(AgentContext(Resume({ids["how much?"]: 6}), session_id="s"))


async def test_one_answer_for_two_questions_is_refused() -> None:
    agent, _ = await asked()
    with pytest.raises(InputInvalid):
        await agent.execute(AgentContext(Resume("A-1"), session_id="s"))
