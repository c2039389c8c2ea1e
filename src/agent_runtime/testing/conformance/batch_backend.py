"""Check that a batch backend conforms, in any test suite.

    @pytest.mark.parametrize("check", BACKEND_CHECKS)
    async def test_my_backend(check):
        await run_backend_check(check, lambda factory: MyBackend(factory))

A check raises AssertionError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.messages import BaseMessage

from agent_runtime.batch.backends import Backend
from agent_runtime.batch.task import BatchTask
from agent_runtime.budgets.ledger.ledger import Account
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.errors import AgentFailed, CallTimeout, UnknownComponent
from agent_runtime.factory import AgentFactory
from agent_runtime.template import AgentTemplate
from agent_runtime.testing.scripted_model import Say, ScriptedChatModel, say
from agent_runtime.types import AgentContext

BackendFactory = Callable[[AgentFactory], Backend]
WITHIN_S = 30.0
_HEAD = {"apiVersion": "agent-runtime/v1", "kind": "AgentTemplate"}


async def conformance_nap(seconds: float) -> str:
    """Sleep."""
    await asyncio.sleep(seconds)
    return "rested"


def _script(messages: list[BaseMessage]) -> Say:
    """Answer `say X` with X, `nap X` by sleeping, `fail` by raising, else repeat the prompt."""
    last = messages[-1]
    word, _, rest = str(last.text).partition(" ")
    if last.type == "tool" or word == "say":
        return say(rest or str(last.text))
    if word == "nap":
        return say("", ("conformance_nap", {"seconds": float(rest)}))
    if word == "fail":
        return say("", fail=ConnectionError("cut"))
    return say(str(messages[0].text))


def conformance_factory(**dependencies: Any) -> AgentFactory:
    """Return a factory with the agent `conforming` of the checks."""
    factory = AgentFactory(**dependencies)
    factory.register_model("scripted", lambda **_: ScriptedChatModel(script=_script))
    factory.register_tool("conformance_nap", conformance_nap)
    spec = {
        "model": "scripted",
        "system_prompt": "You speak {{ inputs.language }}.",
        "tools": ["conformance_nap"],
        "runtime": {"retry": {"attempts": 1}, "cost": {"unknown_price": "allow"}},
    }
    inputs = {
        "type": "object",
        "properties": {"language": {"type": "string", "default": "English"}},
    }
    content = {**_HEAD, "metadata": {"name": "conforming"}, "inputs": inputs, "spec": spec}
    factory.register_template(AgentTemplate.model_validate(content))
    return factory


async def _run_task(backend: Backend, text: str, name: str = "t", **call_fields: Any) -> Any:
    task = BatchTask(text, agent="conforming", id=name, inputs=call_fields.pop("inputs", {}))
    call = AgentContext(text)
    for key, value in call_fields.items():
        setattr(call, key, value)
    return await backend.run(task, call, "conformance")


async def it_answers_and_says_what_it_used(backend: Backend) -> None:
    """Check that the result is that of `AgentExecutor.execute`."""
    result = await _run_task(backend, "say hello")
    assert (result.output, result.status) == ("hello", "completed")
    assert result.usage.model_calls == 1


async def tasks_run_beside_each_other(backend: Backend) -> None:
    """Check that each of several concurrent tasks gets its own answer."""
    results = await asyncio.gather(*(_run_task(backend, f"say {n}", name=str(n)) for n in range(8)))
    assert [result.output for result in results] == [str(n) for n in range(8)]


async def a_tasks_inputs_fill_its_prompt(backend: Backend) -> None:
    """Check that a task's inputs fill its own prompt only."""
    languages = ["French", "Dutch", "French"]
    runs = [
        _run_task(backend, "prompt", name=str(n), inputs={"language": language})
        for n, language in enumerate(languages)
    ]
    outputs = [
        result.output for result in await asyncio.gather(*runs, _run_task(backend, "prompt"))
    ]
    assert outputs == [
        "You speak French.",
        "You speak Dutch.",
        "You speak French.",
        "You speak English.",
    ]


async def a_failure_is_typed(backend: Backend) -> None:
    """Check that an agent's error is a CallError with its usage, and the next task succeeds."""
    try:
        await _run_task(backend, "fail")
    except AgentFailed as error:
        assert error.usage.model_calls == 1
        assert "cut" in str(error)
    else:
        raise AssertionError("the failure was not raised")
    assert (await _run_task(backend, "say after")).output == "after"


async def a_deadline_ends_a_task(backend: Backend) -> None:
    """Check that a deadline raises CallTimeout."""
    try:
        await _run_task(backend, "nap 60", deadline=asyncio.get_running_loop().time() + 0.3)
    except CallTimeout as error:
        assert error.scope == "run"
    else:
        raise AssertionError("it ran beyond its deadline")


async def cancelling_stops_a_task(backend: Backend) -> None:
    """Check that cancelling returns soon, and does not affect the next task."""
    job = asyncio.ensure_future(_run_task(backend, "nap 60"))
    await asyncio.sleep(0.3)
    job.cancel()
    try:
        await job
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError("a cancelled task gave a result")
    assert (await _run_task(backend, "say after")).output == "after"


async def what_cannot_run_is_refused(backend: Backend) -> None:
    """Check that an unusable task is refused before it is accepted."""
    assert (
        await backend.check(BatchTask("x", agent="conforming"), "conformance") is True
    )  # its spending is under the ledger
    try:
        await backend.check(BatchTask("x", agent="unknown-agent"), "conformance")
    except UnknownComponent:
        return
    raise AssertionError("an unknown agent was accepted")


async def spending_goes_to_the_calls_accounts(backend: Backend) -> None:
    """Check that spending is charged to the call's accounts, among them the batch's budget."""
    account = Account("batch=conformance/total", None, 1_000_000)
    result = await _run_task(backend, "say hello", accounts=(account,))
    ledger = _LEDGERS[id(backend)]
    assert ledger.balances().run()[account.key].spent_tokens == result.usage.total_tokens > 0


BACKEND_CHECKS: tuple[Callable[[Backend], Awaitable[None]], ...] = (
    it_answers_and_says_what_it_used,
    tasks_run_beside_each_other,
    a_tasks_inputs_fill_its_prompt,
    a_failure_is_typed,
    a_deadline_ends_a_task,
    cancelling_stops_a_task,
    what_cannot_run_is_refused,
    spending_goes_to_the_calls_accounts,
)
"""All checks."""
_LEDGERS: dict[int, MemoryLedger] = {}


async def run_backend_check(
    check: Callable[[Backend], Awaitable[None]], make: BackendFactory
) -> None:
    """Run one check on a new backend."""
    ledger = MemoryLedger()
    async with conformance_factory(ledger=ledger) as factory, asyncio.timeout(WITHIN_S):
        backend = make(factory)
        await backend.open()
        _LEDGERS[id(backend)] = ledger
        try:
            await check(backend)
        finally:
            del _LEDGERS[id(backend)]
            await backend.aclose()
