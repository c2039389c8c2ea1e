"""langchain-mcp-adapters #283, #619, statgpt-backend #691.

`structuredContent` of an MCP tool reaches the model.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.mcp_servers import calling, program_tool
from tests.support.providers import template

from agent_runtime import AgentFactory


async def told(tool: str) -> Any:
    """Return what the model reads after a call of the tool."""
    async with AgentFactory() as factory:
        factory.register_model("m", model := calling((tool, {})))
        await factory.create_agent(template(model="m", tools=[program_tool()])).execute("go")
    [message] = [message for message in model.received_messages[1] if message.type == "tool"]
    return message.content


async def test_the_text_of_a_resource() -> None:
    assert "resource's text" in str(await told("resource"))


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ("structured_only", "North"),
        ("structured_error", "RATE_LIMITED"),
        ("coded_error", "RATE_LIMITED"),
        ("coded_error", "slow down"),
        ("refused", "-32602"),
        ("refused", "North"),
        ("spoken", "audio/wav"),
    ],
)
async def test_structured_content_alone(tool: str, text: str) -> None:
    assert text in str(await told(tool))


async def test_an_empty_answer_says_that_it_is_empty() -> None:
    assert await told("nothing") not in ("", [])
