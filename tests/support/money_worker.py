"""A process that spends one budget as fast as it can; its provider writes down what it bills.

Arguments: ledger URL, truth file, calls at once, calls in all, budget in USD, seconds that a hold
lives.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import Any

from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import RunnableLambda

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    Budget,
    BudgetExceeded,
    BudgetUnavailable,
    CostTrackingMiddleware,
    PriceTable,
    RedisLedger,
    SpendingPolicy,
    StoreError,
    gated,
)
from agent_runtime.budgets.ledger.retries import flush_deferred
from agent_runtime.testing import ScriptedChatModel, say

PRICES = PriceTable({"scripted:*": {"input": 100, "output": 100}})
INPUT = 10
OUTPUT = 40  # at most: 0.001 and 0.004 USD


class Provider(ScriptedChatModel):
    """Bills what it says it does, as soon as it is asked: whoever dies afterwards has been
    billed."""

    max_tokens: int | None = None
    truth: int = 0
    dice: Any = None

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        output = self.dice.randrange(1, kwargs["max_tokens"] + 1)
        os.write(self.truth, f"{(INPUT + output) * 100}\n".encode())
        await asyncio.sleep(self.dice.random() * 0.01)
        result = await super()._agenerate(messages, stop, run_manager, **kwargs)
        usage = UsageMetadata(input_tokens=INPUT, output_tokens=output, total_tokens=INPUT + output)
        result.generations[0].message.usage_metadata = usage  # type: ignore[attr-defined]
        return result


async def main(
    url: str, truth: str, at_once: int, calls: int, budget: str, hold_ttl_s: float
) -> None:
    dice = random.Random(os.getpid())
    file = os.open(truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    model = gated(Provider(script=[say("ok")], truth=file, dice=dice))
    ledger = RedisLedger(url)
    spending = SpendingPolicy(
        max_output_tokens=OUTPUT,
        min_output_tokens=5,
        hold_ttl_s=hold_ttl_s,
        input_bound=lambda *_: INPUT,
    )
    layer = CostTrackingMiddleware(ledger, [Budget("tenant", usd=budget)], spending)

    async def ask(question: str) -> str:
        return str((await model.ainvoke(question)).text)

    agent = AgentExecutor(RunnableLambda(ask), pipeline=[layer], prices=PRICES, gated=True)
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            while True:
                try:
                    await agent.execute(AgentContext("hi"))
                except BudgetExceeded as refused:
                    if refused.held_usd:  # somebody may give back
                        await asyncio.sleep(0.02 + dice.random() * 0.03)
                        continue
                    return
                except BudgetUnavailable:
                    pass
                break

    await asyncio.gather(*(worker() for _ in range(at_once)))
    while True:  # a call of each could not be written: an application closes its factory again, too
        try:
            await flush_deferred(ledger)
            break
        except StoreError:
            await asyncio.sleep(0.05)
    await ledger.aclose()


if __name__ == "__main__":
    where, truth_file, workers, in_all, usd, hold_s = sys.argv[1:]
    asyncio.run(main(where, truth_file, int(workers), int(in_all), usd, float(hold_s)))
