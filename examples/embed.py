"""An agent embedded in a program: one answer, then one streamed."""

import asyncio

from agent_runtime import AgentFactory


async def main() -> None:
    async with AgentFactory() as factory:
        agent = factory.create_from_template("templates/analyst.yaml")
        print((await agent.execute("Which region sells most?")).output)

        async with agent.execute_stream("What is the average amount per channel?") as stream:
            async for text in stream:
                print(text, end="")
        print(f"\n{stream.result.usage.total_tokens} tokens, {stream.result.cost_usd} USD")


if __name__ == "__main__":
    asyncio.run(main())
