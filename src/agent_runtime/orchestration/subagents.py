"""Sub-agents.

The tool `task`, by which an agent hands a whole task to another one, and the choice among them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import Annotated, Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool, ToolException
from langgraph._internal._constants import CONFIG_KEY_STREAM
from langgraph.config import get_stream_writer

from agent_runtime.orchestration.messages import answer_text, messages_in
from agent_runtime.template.parts_spec import SubagentSpec
from agent_runtime.tools.function_tool import structured_tool

_WORD = re.compile(r"\w+")
_ENDINGS = ("ings", "ing", "ed", "s")
_SMALL_WORDS = frozenset(
    "the and for with from into that this these those are was were has have had can may will not "
    "but all any its "
    "about when where which what who how then than them they you your our their out over under "
    "also".split()
)
KEYWORD_WEIGHT = 3.0
"""A keyword says more than a word of a description."""


class SubagentRouter:
    """Chooses a sub-agent for a task by the words of its description, its name and its keywords.

    A word counts by how few of the sub-agents it speaks for, as in a search index.
    """

    def __init__(self, entries: Sequence[tuple[str, str, tuple[str, ...]]]) -> None:
        self._weights: dict[str, dict[str, float]] = {}
        for name, description, keywords in entries:
            weights = dict.fromkeys(
                _words(f"{name.replace('-', ' ').replace('_', ' ')} {description}"), 1.0
            )
            weights.update(
                dict.fromkeys(map(_stem, _WORD.findall(" ".join(keywords).lower())), KEYWORD_WEIGHT)
            )
            self._weights[name] = weights
        spoken_for = Counter(word for weights in self._weights.values() for word in weights)
        self._rarity = {
            word: math.log(1 + len(entries) / count) for word, count in spoken_for.items()
        }

    def route(self, task: str) -> str | None:
        """The name of the best one; None when no word of the task speaks for any."""
        words = set(map(_stem, _WORD.findall(task.lower())))
        scores = {
            name: sum(weights[word] * self._rarity[word] for word in words if word in weights)
            for name, weights in self._weights.items()
        }
        best = max(scores, key=lambda name: scores[name], default=None)
        return best if best is not None and scores[best] > 0 else None


@lru_cache(maxsize=256)
def router_of(entries: tuple[tuple[str, str, tuple[str, ...]], ...]) -> SubagentRouter:
    """The router of these sub-agents; its index is made once."""
    return SubagentRouter(entries)


def task_tool(
    specs: Sequence[SubagentSpec], agents: Mapping[str, Any], max_steps: int | None = None
) -> BaseTool:
    """The tool `task`.

    `agents` are the graphs behind the names, `max_steps` bounds the steps of each task.
    """
    config: Any = {} if max_steps is None else {"recursion_limit": max_steps}
    router = router_of(tuple((each.name, each.description, tuple(each.keywords)) for each in specs))

    async def task(
        description: Annotated[str, "The whole task: the sub-agent sees nothing else."],
        subagent_type: Annotated[
            str, "Which sub-agent; empty to have it chosen by the description."
        ] = "",
    ) -> str:
        chosen = subagent_type or router.route(description)
        if chosen is None or chosen not in agents:
            known = ", ".join(agents)
            raise ToolException(
                f"no sub-agent '{chosen or ''}' fits; give subagent_type, one of: {known}"
            )
        state = await with_progress(
            agents[chosen], {"messages": [HumanMessage(description)]}, config
        )
        messages = messages_in(state)
        return answer_text(state, messages, None)

    lines = "\n".join(f"- {each.name}: {each.description}" for each in specs)
    return structured_tool(
        coroutine=task,
        name="task",
        description=(
            "Hand a task to a sub-agent, which works on it alone and answers once. It knows "
            "nothing of this "
            f"conversation, so say everything that it needs.\n\nSub-agents:\n{lines}"
        ),
        handle_tool_error=True,
    )


async def with_progress(graph: Any, given: Any, config: Any) -> Any:
    """Return the state that a graph ends in.

    What its tools report goes to the reader of the run around it.
    """
    around = ensure_config().get("configurable", {})
    if CONFIG_KEY_STREAM in around:  # a reader of subgraphs gets it by itself
        return await graph.ainvoke(given, config)
    write = get_stream_writer()
    state = None
    async with aclosing(graph.astream(given, config, stream_mode=["custom", "values"])) as parts:
        async for mode, data in parts:
            if mode == "custom":
                write(data)
            else:
                state = data
    return state


def _words(text: str) -> list[str]:
    return [
        _stem(word)
        for word in _WORD.findall(text.lower())
        if len(word) > 2 and word not in _SMALL_WORDS
    ]


def _stem(word: str) -> str:
    ending = next(
        (each for each in _ENDINGS if word.endswith(each) and len(word) - len(each) > 2), ""
    )
    return word.removesuffix(ending).rstrip("e")
