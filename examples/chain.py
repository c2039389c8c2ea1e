"""The agent as a step of a LangChain chain."""

import asyncio

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from agent_runtime import AgentFactory


async def main() -> None:
    agent = AgentFactory().create_from_template("templates/searcher.yaml")
    prompt = ChatPromptTemplate.from_messages(
        [("human", "What do the documents say about {topic}?")]
    )

    state_chain = prompt | agent | (lambda state: f"{len(state['messages'])} messages")
    print(await state_chain.ainvoke({"topic": "the warranty of chairs"}))

    text_chain = prompt | agent.text | StrOutputParser()
    async for token in text_chain.astream({"topic": "opening hours on Saturdays"}):
        print(token, end="")
    print()


if __name__ == "__main__":
    asyncio.run(main())
