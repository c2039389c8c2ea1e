"""A chat model that needs no network.

A rule-based stand-in, deterministic, for trying templates and for tests.

It understands nothing. It matches the words of a question with the tools' names, descriptions and
argument schemas and with the column names and values in earlier results, then reads the result out.
It is no language model.
"""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from agent_runtime.models.local_model import LocalChatModel, estimate_usage
from agent_runtime.models.question import Question


class OfflineChatModel(LocalChatModel):
    """The `offline:` model: same question, tools and history, same answer.

    It bills nothing and says what it is.
    """

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
