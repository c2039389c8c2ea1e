"""A layer of one's own around every call, unary and streamed."""

import asyncio
import time

from agent_runtime import AgentContext, AgentFactory, AgentResult, Handler, Middleware


class Stopwatch(Middleware):
    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        started = time.monotonic()
        try:
            return await next_call(context)
        finally:
            print(context.run_id, f"{time.monotonic() - started:.3f} s")


async def main() -> None:
    factory = AgentFactory(pipeline=["logging", Stopwatch(), "retry"])
    agent = factory.create_from_template("templates/searcher.yaml")
    print((await agent.execute("How long is the warranty of lamps?")).output)


if __name__ == "__main__":
    asyncio.run(main())
