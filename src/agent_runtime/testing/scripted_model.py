"""A chat model that plays a script."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from pydantic import PrivateAttr

from agent_runtime.models.local_model import LocalChatModel


@dataclass
class Say:
    """Describe one answer of the script: text, tool calls as `(name, args)`, usage, failure.

    Usage is `(input, output)` tokens or complete; None sends none, like some providers. `fail` is
    raised before any text, or after `fail_after` streamed pieces.
    """

    text: str = ""
    tool_calls: Sequence[tuple[str, dict[str, Any]]] = ()
    usage: tuple[int, int] | UsageMetadata | None = (10, 5)
    fail: Exception | None = None
    fail_after: int = 0
    pieces: Sequence[str] | None = field(default=None)
    """How the text is cut for streaming; by words by default."""


def say(text: str = "", *tool_calls: tuple[str, dict[str, Any]], **settings: Any) -> Say:
    """Return a `Say` in one line: `say("hello")`, `say("", ("add", {"a": 1}))`."""
    return Say(text, tool_calls, **settings)


Script = Sequence[Say] | Callable[[list[BaseMessage]], Say]


class ScriptedChatModel(LocalChatModel):
    """Answer from a script: a list, one answer per call (the last one repeats), or a function.

    A function of the messages is safe under concurrency and replayable: it depends on the
    conversation, not on the number of calls. `calls` counts the calls, `received_messages` has the
    messages of each. `delay_s` is the delay before each piece.
    """

    provider: str = "scripted"
    script: Any
    _calls: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _ids: Iterator[int] = PrivateAttr(default_factory=itertools.count)
    _current: dict[int, Say] = PrivateAttr(default_factory=dict)

    @property
    def calls(self) -> int:
        """Return how often the model has been called."""
        return len(self._calls)

    @property
    def received_messages(self) -> list[list[BaseMessage]]:
        """Return the messages of each call."""
        return self._calls

    def answer(
        self, messages: list[BaseMessage], tools: list[dict[str, Any]], tool_choice: Any
    ) -> AIMessage:
        """Return the script's next answer."""
        step = (
            self.script(messages)
            if callable(self.script)
            else self.script[min(self.calls, len(self.script) - 1)]
        )
        self._calls.append(list(messages))
        if step.fail is not None and not step.fail_after:
            raise step.fail
        number = next(self._ids)
        calls: list[Any] = [
            {"id": f"call_{number}_{i}", "name": n, "args": a}
            for i, (n, a) in enumerate(step.tool_calls)
        ]
        usage: Any = step.usage
        if isinstance(usage, tuple):
            inputs, outputs = usage
            usage = UsageMetadata(
                input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs
            )
        message = AIMessage(step.text, tool_calls=calls, usage_metadata=usage)
        self._current[id(message)] = step
        return message

    def pieces(self, message: AIMessage) -> Iterator[str | Exception]:
        """Yield the text in the step's pieces, with its failure in place."""
        step = self._current.pop(id(message))
        cut = re.findall(r"\s*\S+\s*", step.text) if step.pieces is None else step.pieces
        for index, piece in enumerate(cut):
            if step.fail is not None and index == step.fail_after:
                yield step.fail
            yield piece
        if step.fail is not None and step.fail_after >= len(cut):
            yield step.fail
