"""One answer or one input blocks nobody.

It is counted when it is read, and a watchdog sees the loop go on.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from tests.support.calls import run_call
from tests.support.loop_watchdog import MAX_STALL_S, Watchdog
from tests.support.providers import template

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    InputInvalid,
    LimitExceeded,
    SessionManager,
)
from agent_runtime.orchestration.answer_bounds import MAX_ANSWERED_CALLS
from agent_runtime.template import AgentTemplate
from agent_runtime.template.json_schema import SchemaCheck
from agent_runtime.testing import ScriptedChatModel, say


class Bench:
    """An agent whose first answer has the tool calls of a test.

    `ran` is what its tool was called with.
    """

    def __init__(self, calls: list[Any], **limits: Any) -> None:
        self.ran: list[Any] = []
        self.seen: list[list[BaseMessage]] = []

        def work(value: Any) -> str:
            """Do it."""
            self.ran.append(value)
            return "done"

        def answer(messages: list[BaseMessage]) -> Any:
            self.seen.append(messages)
            return say("fine") if isinstance(messages[-1], ToolMessage) else say("", *calls)

        self.factory = AgentFactory(session_manager=SessionManager())
        self.factory.register_tool("work", work)
        self.factory.register_model("m", ScriptedChatModel(script=answer))
        self.agent: AgentExecutor = self.factory.create_agent(
            template(model="m", tools=["work"], runtime={"limits": limits})
        )


def calls(count: int) -> list[Any]:
    return [("work", {"value": number}) for number in range(count)]


@pytest.mark.parametrize("streaming", [False, True])
async def test_no_call_of_an_answer_runs_that_goes_beyond_the_limit(streaming: bool) -> None:
    bench = Bench(calls(5), tool_calls=4)
    with pytest.raises(LimitExceeded) as failed:
        await run_call(bench.agent, "go", streaming=streaming)
    assert (failed.value.limit, bench.ran) == ("tool_calls", [])
    assert (
        await run_call(Bench(calls(4), tool_calls=4).agent, "go", streaming=streaming)
    ).output == "fine"


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_calls_beyond_the_bound_are_answered_by_errors(streaming: bool) -> None:
    bench = Bench(calls(10), calls_per_answer=7)
    result = await run_call(bench.agent, AgentContext("go", session_id="s"), streaming=streaming)
    assert (result.output, sorted(bench.ran)) == ("fine", list(range(7)))
    errors = [m for m in bench.seen[-1] if isinstance(m, ToolMessage) and m.status == "error"]
    assert len(errors) == 3
    assert all("at most 7 tool calls, this one has 10" in str(error.content) for error in errors)
    asked = next(m for m in bench.seen[-1] if isinstance(m, AIMessage))
    answered = {m.tool_call_id for m in bench.seen[-1] if isinstance(m, ToolMessage)}
    assert answered == {call["id"] for call in asked.tool_calls}
    assert (
        await run_call(bench.agent, AgentContext("again", session_id="s"), streaming=streaming)
    ).output == "fine"


@pytest.mark.parametrize("count", [500, MAX_ANSWERED_CALLS + 1])
async def test_an_answer_with_many_calls_does_not_stop_the_loop(count: int) -> None:
    bench = Bench(calls(count), tool_calls=40, max_steps=60)
    watchdog = Watchdog()
    async with watchdog.watch():
        with pytest.raises(LimitExceeded):
            await bench.agent.execute(AgentContext("go", session_id="s"))
    assert bench.ran == []
    assert watchdog.longest_s < MAX_STALL_S


async def test_of_ten_thousand_calls_none_runs() -> None:
    """The scripted model makes that message on the loop, as a client that parses one does, so
    nothing is measured."""
    bench = Bench(calls(10_000))
    with pytest.raises(LimitExceeded, match="calls_per_answer"):
        await bench.agent.execute(AgentContext("go", session_id="s"))
    assert bench.ran == []


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("streaming", [False, True])
async def test_arguments_that_cannot_be_stored_are_answered_before_the_state_is(
    streaming: bool,
) -> None:
    bench = Bench([("work", {"value": deep(900)}), ("work", {"value": 1})])
    result = await run_call(bench.agent, AgentContext("go", session_id="s"), streaming=streaming)
    assert (result.output, bench.ran) == ("fine", [1])
    errors = [m for m in bench.seen[-1] if isinstance(m, ToolMessage) and m.status == "error"]
    assert ["nested deeper" in str(error.content) for error in errors] == [True]
    assert (
        await run_call(bench.agent, AgentContext("again", session_id="s"), streaming=streaming)
    ).output == "fine"


@pytest.mark.parametrize("count", [1, 1000])
async def test_an_answer_with_nothing_else_is_refused(count: int) -> None:
    bench = Bench([("work", {"value": deep(70)})] * count)
    watchdog = Watchdog()
    async with watchdog.watch():
        with pytest.raises(LimitExceeded, match="nested deeper"):
            await bench.agent.execute(AgentContext("go", session_id="s"))
    assert bench.ran == []
    assert watchdog.longest_s < 3 * MAX_STALL_S  # the scripted model copies the arguments


async def test_unique_items_of_a_caller_do_not_stop_the_loop() -> None:
    schema = {"properties": {"rows": {"type": "array", "uniqueItems": True, "default": []}}}
    plain = template(model="m").model_dump(by_alias=True, exclude_unset=True)
    plain["spec"]["system_prompt"] = "{{ inputs.rows }}"
    spec = AgentTemplate.model_validate({**plain, "inputs": schema})
    rows = [{"number": number, "text": "x" * 50} for number in range(3000)]
    factory = AgentFactory()
    factory.register_model("m", ScriptedChatModel(script=lambda _: say("fine")))
    watchdog = Watchdog()
    async with watchdog.watch():
        factory.create_agent(spec, {"rows": rows[:10]})  # builds it
    watchdog.longest_s = 0.0
    async with watchdog.watch():
        factory.create_agent(spec, {"rows": rows})
        with pytest.raises(InputInvalid, match="non-unique"):
            factory.create_agent(spec, {"rows": [*rows, rows[7]]})
    assert watchdog.longest_s < MAX_STALL_S


ITEMS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, 1.0, 1.5])
    | st.sampled_from(["", "1", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


def are_equal(first: Any, second: Any) -> bool:
    """Compare as JSON does: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(are_equal, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        names = first.keys() == second.keys()
        return names and all(are_equal(first[name], second[name]) for name in first)
    return (type(first) is type(second) and first == second) or (
        isinstance(first, int | float) and isinstance(second, int | float) and first == second
    )


@example(
    [[[-2, False]], [[-2, 0]], [[-2, False]]]
)  # `jsonschema` sorts them, and sees no equal pair
@given(st.lists(ITEMS, max_size=6))
def test_items_are_unique_when_no_two_are_equal(items: list[Any]) -> None:
    pairs = itertools.combinations(items, 2)
    is_unique = not any(are_equal(first, second) for first, second in pairs)
    assert (not list(SchemaCheck({"uniqueItems": True}).faults(items))) == is_unique
