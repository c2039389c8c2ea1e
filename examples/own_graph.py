"""A hand-written LangGraph graph behind the onion.

Limits, timeouts, retries and events, without a template.
"""

import asyncio
from typing import Annotated, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from agent_runtime import AgentExecutor, RunLimits, Timeouts


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    drafts: int


def draft(state: State) -> dict[str, object]:
    number = state.get("drafts", 0) + 1
    return {
        "messages": [AIMessage(f"Draft {number} about: {state['messages'][0].text}")],
        "drafts": number,
    }


def good_enough(state: State) -> str:
    return END if state["drafts"] >= 3 else "draft"


builder = StateGraph(State)
builder.add_node("draft", draft)
builder.add_edge(START, "draft")
builder.add_conditional_edges("draft", good_enough)
graph = builder.compile()


async def main() -> None:
    agent = AgentExecutor(
        graph, name="drafter", limits=RunLimits(max_steps=10), timeouts=Timeouts(run_s=30)
    )
    result = await agent.execute("the new opening hours")
    print(result.output)
    print([event.type for event in agent.callback_handler.events(run_id=result.run_id)])


if __name__ == "__main__":
    asyncio.run(main())
