"""langgraph #40535, langchain-mcp-adapters PR #533, #566.

Parameters with names that LangChain uses itself.
"""

from __future__ import annotations

import pytest
from tests.support.mcp_servers import calling, program_tool
from tests.support.providers import template

from agent_runtime import AgentFactory


@pytest.mark.parametrize(
    "name", ["name", "tool", "config", "runtime", "run_manager", "self", "arguments", "call"]
)
async def test_a_parameter_reaches_the_server(name: str) -> None:
    async with AgentFactory() as factory:
        factory.register_model("m", model := calling(("words", {name: "v"})))
        await factory.create_agent(template(model="m", tools=[program_tool()])).execute("go")
    [message] = [message for message in model.received_messages[1] if message.type == "tool"]
    assert f"('{name}', 'v')" in str(message.content)
