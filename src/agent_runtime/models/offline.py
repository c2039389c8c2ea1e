"""Define a deterministic, rule-based chat model without network, to try templates and for tests.

It understands nothing. It matches the words of a question with the tools' names, descriptions and
argument schemas and with the column names and values in earlier results, and prints the result.
"""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from agent_runtime.models.local_model import LocalChatModel, estimate_usage
from agent_runtime.models.question import Question


class OfflineChatModel(LocalChatModel):
    """Answer the same question, tools and history with the same text (`offline:`), at no cost."""

    provider: str = "offline"

    def answer(
        self, messages: list[BaseMessage], tools: list[dict[str, Any]], tool_choice: Any
    ) -> AIMessage:
        """Answer with a tool call while one fits.

        Then, if the answer has a form (`tool_choice`), that; else text.
        """
        question = Question(messages)
        offered = [t["function"] for t in tools]
        form = offered.pop() if offered and tool_choice in ("any", "required") else None
        if (
            forced_tool := next((t for t in offered if t["name"] == tool_choice), None)
        ) is not None:
            form = forced_tool
            offered = []
        call = question.next_call(offered)
        if call is None and form is not None:
            call = (
                form["name"],
                {n: question.form_value(n, p) for n, p in form["parameters"]["properties"].items()},
            )
        text = "" if call else question.render_answer()
        calls: list[Any] = (
            [{"id": f"call_{len(messages)}", "name": call[0], "args": call[1]}] if call else []
        )
        usage = estimate_usage(messages, text + json.dumps(calls))
        return AIMessage(text, tool_calls=calls, usage_metadata=usage)
