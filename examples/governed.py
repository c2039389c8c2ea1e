"""A governed agent: an API key, a rate limit, a budget, and a look at logs and metrics."""

import asyncio

from agent_runtime import (
    AgentContext,
    AgentFactory,
    Budget,
    MemoryLedger,
    RateLimited,
    RuntimeMetrics,
    Unauthenticated,
    open_keys,
)


async def main() -> None:
    keys = open_keys("memory:", pepper=b"a dummy pepper, of at least 32 bytes")
    key, _ = keys.create("ada", tenant="acme", scopes=["run:searcher"])
    metrics = RuntimeMetrics()
    ledger = MemoryLedger()
    async with AgentFactory(
        authenticators=[keys],
        rate_limits=["2/minute per user"],
        ledger=ledger,
        budgets=[Budget("tenant", tokens=100_000, per="day")],
        metrics=metrics,
    ) as factory:
        agent = factory.create_from_template("searcher")
        for credentials in (key, None, key, key):
            try:
                result = await agent.execute(
                    AgentContext("How long is the warranty?", credentials=credentials)
                )
                print(result.usage.total_tokens, "tokens")
            except (Unauthenticated, RateLimited) as refused:
                print(f"{refused.code}: {refused}")

    for account, balance in ledger.balances().run().items():
        print(f"{account}: {balance.spent_tokens} of {balance.limit_tokens} tokens")
    print(
        *(
            line
            for line in metrics.render().decode().splitlines()
            if line.startswith("agent_runtime_runs_total")
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
