"""The agent as a node of a LangGraph graph; whoever streams the parent sees the agent's tokens."""

import asyncio

from langchain_core.messages import AIMessageChunk, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from agent_runtime import AgentFactory


async def main() -> None:
    analyst = AgentFactory().create_from_template("templates/analyst.yaml")
    builder = StateGraph(MessagesState)
    builder.add_node("analyst", analyst)
    builder.add_edge(START, "analyst")
    builder.add_edge("analyst", END)
    graph = builder.compile()

    question: MessagesState = {"messages": [HumanMessage("How many orders came from the web?")]}
    async for part in graph.astream(question, stream_mode="messages", subgraphs=True, version="v2"):
        chunk, _metadata = part["data"]
        if isinstance(chunk, AIMessageChunk):
            print(chunk.text, end="")
    print()


if __name__ == "__main__":
    asyncio.run(main())
