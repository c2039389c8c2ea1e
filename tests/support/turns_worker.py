"""Makes turns on one session from a process of its own.

`turns_worker.py STORE_URL LOCKED COUNT NAME`.

LOCKED `yes` goes through the session layer; `no` runs the graph on the saver alone, as LangGraph
does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig

from agent_runtime import AgentContext, AgentExecutor, SessionManager, SessionMiddleware, gated
from agent_runtime.testing import ScriptedChatModel, say


def answer(messages: list[Any]) -> Any:
    return say(f"answer to {messages[-1].text}")


async def main(url: str, locked: str, count: int, name: str) -> None:
    async with SessionManager.from_url(url) as manager:
        model = ScriptedChatModel(script=answer, delay_s=0.001)
        graph = create_agent(gated(model), checkpointer=manager.checkpointer)
        agent = AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])
        config: RunnableConfig = {"configurable": {"thread_id": "default:shared"}}

        async def turn(number: int) -> None:
            text = f"{name}-{number}"
            if locked == "yes":
                await agent.execute(AgentContext(text, session_id="shared"))
            else:
                await graph.ainvoke({"messages": text}, config)

        await asyncio.gather(*(turn(n) for n in range(count)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
