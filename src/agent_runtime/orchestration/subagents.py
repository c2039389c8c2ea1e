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
_SUFFIXES = ("ings", "ing", "ed", "s")
_STOP_WORDS = frozenset(
    "the and for with from into that this these those are was were has have had can may will not "
    "but all any its "
    "about when where which what who how then than them they you your our their out over under "
    "also".split()
)
KEYWORD_WEIGHT = 3.0
"""Weight of a keyword relative to a word of a description."""


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
        agents_per_word = Counter(word for weights in self._weights.values() for word in weights)
        self._inverse_frequency = {
            word: math.log(1 + len(entries) / count) for word, count in agents_per_word.items()
        }

    def route(self, task: str) -> str | None:
        """Return the best name; None when no word of the task matches any."""
        words = set(map(_stem, _WORD.findall(task.lower())))
        scores = {
            name: sum(
                weights[word] * self._inverse_frequency[word] for word in words if word in weights
            )
            for name, weights in self._weights.items()
        }
        best = max(scores, key=lambda name: scores[name], default=None)
        return best if best is not None and scores[best] > 0 else None


@lru_cache(maxsize=256)
def cached_router(entries: tuple[tuple[str, str, tuple[str, ...]], ...]) -> SubagentRouter:
    """Return the router of these sub-agents, whose index is built once."""
    return SubagentRouter(entries)


def build_task_tool(
    specs: Sequence[SubagentSpec], agents: Mapping[str, Any], max_steps: int | None = None
) -> BaseTool:
    """Build the tool `task`.

    `agents` are the graphs by name, `max_steps` bounds the steps of each task.
    """
    config: Any = {} if max_steps is None else {"recursion_limit": max_steps}
    router = cached_router(
        tuple((spec.name, spec.description, tuple(spec.keywords)) for spec in specs)
    )

    async def task(
        description: Annotated[str, "The whole task: the sub-agent sees nothing else."],
        subagent_type: Annotated[
            str, "Which sub-agent; empty to have it chosen by the description."
        ] = "",
    ) -> str:
        agent_name = subagent_type or router.route(description)
        if agent_name is None or agent_name not in agents:
            agent_names = ", ".join(agents)
            raise ToolException(
                f"no sub-agent '{agent_name or ''}' fits; give subagent_type, one of: {agent_names}"
            )
        state = await run_with_progress(
            agents[agent_name], {"messages": [HumanMessage(description)]}, config
        )
        messages = messages_in(state)
        return answer_text(state, messages, None)

    lines = "\n".join(f"- {spec.name}: {spec.description}" for spec in specs)
    return structured_tool(
        coroutine=task,
        name="task",
        description=(
            "Delegate a task to a sub-agent, which works on it alone and answers once. It knows "
            "nothing of this "
            f"conversation, so say everything that it needs.\n\nSub-agents:\n{lines}"
        ),
        handle_tool_error=True,
    )


async def run_with_progress(graph: Any, graph_input: Any, config: Any) -> Any:
    """Return a graph's final state; custom chunks of its tools reach the outer stream."""
    configurable = ensure_config().get("configurable", {})
    if CONFIG_KEY_STREAM in configurable:  # a reader of subgraphs gets it by itself
        return await graph.ainvoke(graph_input, config)
    write = get_stream_writer()
    state = None
    async with aclosing(
        graph.astream(graph_input, config, stream_mode=["custom", "values"])
    ) as parts:
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
        if len(word) > 2 and word not in _STOP_WORDS
    ]


def _stem(word: str) -> str:
    ending = next(
        (suffix for suffix in _SUFFIXES if word.endswith(suffix) and len(word) - len(suffix) > 2),
        "",
    )
    return word.removesuffix(ending).rstrip("e")
